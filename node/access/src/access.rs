//! Everything that is configured about users and their rights, and the decisions that follow from it.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_message::Destination;

use crate::{
    identity::Identity,
    login::Challenge,
    password::PasswordHash,
    permission::Permission,
    right::{Denied, Right},
    user::User,
};

/// Users, groups and permissions of a node. Never changes while the node runs.
#[derive(Debug, Clone)]
pub struct Access {
    /// None: nobody is asked who they are, and everybody may do everything.
    users: Option<BTreeMap<String, User>>,
    permissions: Vec<Permission>,
    /// Whether those without a login come in, beside users.
    anonymous: bool,
    /// Members of these may do everything, and administer nodes.
    admins: BTreeSet<String>,
    /// Against which the passwords of unknown users are checked.
    dummy: PasswordHash,
}

impl Access {
    /// Nobody is asked.
    pub fn open() -> Self {
        Self {
            users: None,
            permissions: Vec::new(),
            anonymous: true,
            admins: BTreeSet::new(),
            dummy: PasswordHash::dummy_like(&[]),
        }
    }

    /// Only these users come in, and where `anonymous` those without a login. Without permissions every user, but
    /// nobody anonymous, may read and write everything.
    pub fn new(users: Vec<User>, permissions: Vec<Permission>, admins: BTreeSet<String>, anonymous: bool) -> Self {
        let hashes: Vec<&PasswordHash> = users.iter().filter_map(|user| user.password.as_ref()).collect();
        let dummy = PasswordHash::dummy_like(&hashes);
        Self {
            users: Some(users.into_iter().map(|user| (user.name.clone(), user)).collect()),
            permissions,
            anonymous,
            admins,
            dummy,
        }
    }

    /// Whether nobody is asked who they are.
    pub fn is_open(&self) -> bool {
        self.users.is_none()
    }

    /// How many users there are.
    pub fn users(&self) -> usize {
        self.users.as_ref().map_or(0, BTreeMap::len)
    }

    /// Whether those without a login come in.
    pub fn takes_anonymous(&self) -> bool {
        self.anonymous
    }

    /// Whom somebody without a login comes in as.
    pub fn anonymous(&self) -> Option<Identity> {
        self.anonymous.then(Identity::anonymous)
    }

    /// What the password of a user must fit; of the same form and cost where there is no such user.
    pub fn challenge(&self, name: &str) -> Challenge {
        let user = self.users.as_ref().and_then(|users| users.get(name));
        match user.and_then(|user| Some((user.password.clone()?, user))) {
            Some((hash, user)) => Challenge::new(hash, Some(Identity::new(&user.name, user.groups.clone()))),
            None => Challenge::new(self.dummy.clone(), None),
        }
    }

    /// The user of this name, for somebody who has proven to be it: by a password that was right before, or by a
    /// certificate that was verified.
    pub fn proven(&self, name: &str) -> Option<Identity> {
        let user = self.users.as_ref()?.get(name)?;
        Some(Identity::new(&user.name, user.groups.clone()))
    }

    /// The user whom a verified certificate names: the first of its names that is a user's.
    pub fn certified(&self, names: &[String]) -> Option<Identity> {
        names.iter().find_map(|name| self.proven(name))
    }

    /// Whether there is a user of this name. For the log only: no client may learn it.
    pub fn knows(&self, name: &str) -> bool {
        self.users.as_ref().is_some_and(|users| users.contains_key(name))
    }

    /// Whether somebody may administer nodes. Members of the admin groups may.
    pub fn administers(&self, identity: &Identity) -> bool {
        self.is_open() || identity.is_in_one_of(&self.admins)
    }

    /// Whether somebody may do this with a destination. Every permission that covers the destination counts; what none
    /// allows is denied (ActiveMQ's `DefaultAuthorizationMap`).
    ///
    /// To use a destination is to create it, so whoever may read or write needs no further right for that. Temporary
    /// destinations may be sent to by everybody who came in; who consumes them is [`crate::Pass`]'s affair.
    ///
    /// # Errors
    /// The denial, for whoever asked.
    pub fn check(&self, identity: &Identity, right: Right, destination: &Destination) -> Result<(), Denied> {
        let temporary = destination.kind().is_temporary() && right != Right::Admin;
        if self.administers(identity) || temporary || self.is_permitted(identity, right, destination) {
            return Ok(());
        }
        Err(Denied {
            name: identity.name().to_owned(),
            right,
            destination: destination.clone(),
        })
    }

    fn is_permitted(&self, identity: &Identity, right: Right, destination: &Destination) -> bool {
        if self.permissions.is_empty() {
            return right != Right::Admin && !identity.is_anonymous();
        }
        self.permissions
            .iter()
            .any(|permission| permission.grants(identity, right) && permission.destinations.covers(destination))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.into(),
            password: None,
            groups: set(groups),
        }
    }

    fn permission(destinations: &str, read: &[&str], write: &[&str], admin: &[&str]) -> Permission {
        Permission {
            destinations: destinations.parse().unwrap(),
            read: set(read),
            write: set(write),
            admin: set(admin),
        }
    }

    fn shop() -> Access {
        Access::new(
            vec![
                user("till", &["tills"]),
                user("store", &["stores", "tills"]),
                user("boss", &["admins"]),
                user("nobody", &[]),
            ],
            vec![
                permission("queue://orders.>", &["stores"], &["tills"], &[]),
                permission("queue://orders.returns", &["tills"], &[], &["stores"]),
                permission("topic://news.>", &["*"], &["stores"], &[]),
                permission("topic://public", &["anonymous"], &[], &[]),
            ],
            set(&["admins"]),
            true,
        )
    }

    #[test]
    fn every_matching_permission_counts_and_what_none_allows_is_denied() {
        use Right::{Admin, Read, Write};
        let access = shop();
        let table = [
            ("till", Write, "queue://orders.new", true),
            ("till", Read, "queue://orders.new", false),
            ("till", Read, "queue://orders.returns", true),
            ("till", Write, "queue://orders.returns", true),
            ("store", Read, "queue://orders.new", true),
            ("store", Admin, "queue://orders.new", false),
            ("store", Admin, "queue://orders.returns", true),
            ("till", Write, "queue://other", false),
            ("till", Write, "topic://orders.new", false),
            ("till", Read, "topic://news.today", true),
            ("till", Read, "topic://news.>", true),
            ("till", Read, "topic://>", false),
            ("till", Write, "topic://news.today", false),
            ("till", Write, "queue://orders.new,queue://other", true),
            ("boss", Admin, "queue://anything", true),
            ("boss", Read, "topic://>", true),
            ("nobody", Read, "topic://news.today", true),
            ("nobody", Write, "queue://orders.new", false),
            ("nobody", Write, "temp-queue://ID:x:1", true),
            ("nobody", Admin, "temp-queue://ID:x:1", false),
        ];
        for (name, right, destination, allowed) in table {
            let identity = access.certified(&[name.to_owned()]).unwrap();
            let found = access.check(&identity, right, &destination.parse().unwrap());
            assert_eq!(found.is_ok(), allowed, "{name} {right} {destination}");
        }
        let anonymous = access.anonymous().unwrap();
        let may = |right, destination: &str| access.check(&anonymous, right, &destination.parse().unwrap()).is_ok();
        assert!(may(Read, "topic://public") && may(Read, "topic://news.x") && !may(Write, "queue://orders.new"));
    }

    #[test]
    fn only_admin_groups_administer() {
        let access = shop();
        for (name, may) in [("till", false), ("store", false), ("boss", true), ("nobody", false)] {
            let identity = access.certified(&[name.to_owned()]).unwrap();
            assert_eq!(access.administers(&identity), may, "{name}");
        }
        assert!(!access.administers(&access.anonymous().unwrap()));
    }

    #[test]
    fn without_permissions_users_may_use_everything_and_strangers_nothing() {
        let access = Access::new(vec![user("u", &["g"])], Vec::new(), set(&["admins"]), true);
        let queue = Destination::queue("Q");
        let identity = access.certified(&["x".into(), "u".into()]).unwrap();
        assert!(access.check(&identity, Right::Read, &queue).is_ok());
        assert!(access.check(&identity, Right::Write, &queue).is_ok());
        assert!(access.check(&identity, Right::Admin, &queue).is_err());
        let anonymous = access.anonymous().unwrap();
        for right in [Right::Read, Right::Write, Right::Admin] {
            assert!(access.check(&anonymous, right, &queue).is_err());
        }
    }

    #[test]
    fn a_denial_names_what_was_wanted_and_an_open_node_denies_nothing() {
        let access = shop();
        let till = access.certified(&["till".into()]).unwrap();
        let denied = access
            .check(&till, Right::Write, &Destination::queue("ADMIN"))
            .unwrap_err();
        assert_eq!(
            denied.to_string(),
            "not authorized: till has no write right on queue://ADMIN"
        );
        let open = Access::open();
        let anybody = open.anonymous().unwrap();
        assert!(open.check(&anybody, Right::Admin, &Destination::queue("ADMIN")).is_ok());
        assert!(open.administers(&anybody));
        assert!(open.certified(&["till".into()]).is_none());
    }

    #[test]
    fn only_the_right_password_of_a_known_user_solves() {
        let mut alice = user("alice", &["g"]);
        alice.password = Some(PasswordHash::new("secret", [1; 16]).unwrap());
        let mut bob = user("bob", &[]);
        bob.password = None;
        let access = Access::new(vec![alice, bob], Vec::new(), BTreeSet::new(), false);
        assert_eq!(access.challenge("alice").solve("secret").unwrap().name(), "alice");
        for (name, password) in [
            ("alice", "wrong"),
            ("alice", ""),
            ("bob", "secret"),
            ("bob", ""),
            ("mallory", "secret"),
            ("", ""),
        ] {
            assert!(access.challenge(name).solve(password).is_none(), "{name} {password}");
        }
        assert!(access.anonymous().is_none());
    }
}
