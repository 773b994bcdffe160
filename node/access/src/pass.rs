//! What one connection may do, remembered for as long as it lasts.

use std::{collections::BTreeMap, sync::Arc};

use ferrymq_message::Destination;

use crate::{
    access::Access,
    identity::Identity,
    right::{Denied, Right},
};

/// One connection's rights. Each destination is looked up once: what was allowed before costs one comparison where it
/// is the same as last time, otherwise one look into a tree of at most [`Pass::REMEMBERED_BYTES_MAX`]. Where everybody
/// may do everything there is nothing to remember.
#[derive(Debug)]
pub struct Pass {
    access: Arc<Access>,
    /// None: nobody has come in yet, who may do nothing.
    identity: Option<Identity>,
    /// The connection's own temporary destinations begin with this and a colon.
    connection_id: String,
    /// For each right, where it was last used.
    last: [Option<Destination>; 3],
    allowed: BTreeMap<Destination, u8>,
    /// What `allowed` takes.
    allowed_bytes: usize,
}

/// What a destination takes in the memory of a pass beside its name, roughly.
const ENTRY_BYTES: usize = 64;

impl Pass {
    /// Memory for destinations, in bytes: some hundreds of them. Beyond that it begins anew. Each connection has one, and
    /// there may be thousands.
    pub const REMEMBERED_BYTES_MAX: usize = 32 << 10;

    /// The pass of whoever has not come in: it allows nothing.
    pub fn none() -> Self {
        Self {
            access: Arc::new(Access::open()),
            identity: None,
            connection_id: String::new(),
            last: [None, None, None],
            allowed: BTreeMap::new(),
            allowed_bytes: 0,
        }
    }

    /// The pass of a connection whose user has come in. Temporary destinations that begin with `connection_id` and a
    /// colon are its own.
    pub fn new(access: Arc<Access>, identity: Identity, connection_id: String) -> Self {
        Self {
            access,
            identity: Some(identity),
            connection_id,
            ..Self::none()
        }
    }

    /// Who came in.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whether this connection may do this. Only the connection that made a temporary destination consumes from it.
    ///
    /// # Errors
    /// The denial, for its client.
    pub fn check(&mut self, right: Right, destination: &Destination) -> Result<(), Denied> {
        let last = right as usize;
        if self.last[last].as_ref() == Some(destination) {
            return Ok(());
        }
        let bit = 1 << last;
        if self.allowed.get(destination).is_none_or(|bits| bits & bit == 0) {
            self.decide(right, destination)?;
            if !self.access.is_open() {
                self.remember(destination, bit);
            }
        }
        self.last[last] = Some(destination.clone());
        Ok(())
    }

    fn remember(&mut self, destination: &Destination, bit: u8) {
        if let Some(bits) = self.allowed.get_mut(destination) {
            *bits |= bit;
            return;
        }
        let bytes = ENTRY_BYTES + destination.name().len();
        if self.allowed_bytes + bytes > Self::REMEMBERED_BYTES_MAX {
            self.allowed.clear();
            self.allowed_bytes = 0;
        }
        self.allowed_bytes += bytes;
        self.allowed.insert(destination.clone(), bit);
    }

    fn decide(&self, right: Right, destination: &Destination) -> Result<(), Denied> {
        let denied = |name: &str| Denied {
            name: name.to_owned(),
            right,
            destination: destination.clone(),
        };
        let Some(identity) = &self.identity else {
            return Err(denied("a client that has not logged in"));
        };
        if destination.kind().is_temporary() && right == Right::Read && !self.is_own(destination) {
            return Err(denied(identity.name()));
        }
        self.access.check(identity, right, destination)
    }

    fn is_own(&self, destination: &Destination) -> bool {
        destination
            .name()
            .strip_prefix(self.connection_id.as_str())
            .is_some_and(|rest| rest.starts_with(':'))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{permission::Permission, user::User};

    fn access() -> Arc<Access> {
        let groups: BTreeSet<String> = ["g".to_owned()].into();
        let user = User {
            name: "u".into(),
            password: None,
            groups: groups.clone(),
        };
        let permission = Permission {
            destinations: "queue://A.>".parse().unwrap(),
            read: BTreeSet::new(),
            write: groups.clone(),
            admin: BTreeSet::new(),
        };
        let both = Permission {
            destinations: "queue://C.>".parse().unwrap(),
            read: groups,
            ..permission.clone()
        };
        Arc::new(Access::new(vec![user], vec![permission, both], BTreeSet::new(), false))
    }

    fn pass() -> Pass {
        let access = access();
        let identity = access.certified(&["u".into()]).unwrap();
        Pass::new(access, identity, "ID:n-1".into())
    }

    #[test]
    fn what_is_remembered_for_one_right_says_nothing_about_another() {
        let mut pass = pass();
        let queue = Destination::queue("A.B");
        for _ in 0..2 {
            assert!(pass.check(Right::Write, &queue).is_ok());
            assert!(pass.check(Right::Read, &queue).is_err());
            assert!(pass.check(Right::Write, &Destination::queue("B")).is_err());
        }
        assert_eq!(pass.allowed.len(), 1, "denials are not remembered");
    }

    #[test]
    fn temporary_destinations_are_consumed_by_their_own_connection_only() {
        let mut pass = pass();
        for (destination, own) in [
            ("temp-queue://ID:n-1:reply", true),
            ("temp-topic://ID:n-1:reply", true),
            ("temp-queue://ID:n-11:reply", false),
            ("temp-queue://ID:n-1", false),
            ("temp-queue://ID:n-2:reply", false),
        ] {
            let destination: Destination = destination.parse().unwrap();
            assert_eq!(pass.check(Right::Read, &destination).is_ok(), own, "{destination}");
            assert!(pass.check(Right::Write, &destination).is_ok(), "{destination}");
        }
        // An open node keeps them apart, too.
        let open = Arc::new(Access::open());
        let mut anybody = Pass::new(open.clone(), open.anonymous().unwrap(), "ID:n-1".into());
        assert!(
            anybody
                .check(Right::Read, &"temp-queue://ID:n-2:r".parse().unwrap())
                .is_err()
        );
        assert!(anybody.check(Right::Read, &Destination::queue("Q")).is_ok());
    }

    #[test]
    fn memory_is_bounded_in_bytes_whatever_the_names() {
        for name_bytes in [6, 40, Destination::NAME_BYTES_MAX] {
            let mut pass = pass();
            let (mut most, mut destinations_max) = (0, 0);
            for number in 0..3_000 {
                let queue = Destination::queue(&format!("C.{number:0>width$}", width = name_bytes - 2));
                assert!(pass.check(Right::Write, &queue).is_ok());
                let kept: usize = pass.allowed.keys().map(|kept| ENTRY_BYTES + kept.name().len()).sum();
                assert_eq!(kept, pass.allowed_bytes);
                most = most.max(kept);
                destinations_max = destinations_max.max(pass.allowed.len());
                assert!(pass.check(Right::Read, &queue).is_ok());
                assert_eq!(kept, pass.allowed_bytes, "another right takes nothing more");
            }
            assert!(most <= Pass::REMEMBERED_BYTES_MAX, "{most} bytes");
            let each = ENTRY_BYTES + name_bytes;
            assert_eq!(destinations_max, Pass::REMEMBERED_BYTES_MAX / each, "all of it is used");
        }
    }

    #[test]
    fn where_everybody_may_do_everything_nothing_is_remembered() {
        let open = Arc::new(Access::open());
        let mut anybody = Pass::new(open.clone(), open.anonymous().unwrap(), "ID:n-1".into());
        for number in 0..100 {
            assert!(
                anybody
                    .check(Right::Write, &Destination::queue(&format!("A.{number}")))
                    .is_ok()
            );
        }
        assert!(anybody.allowed.is_empty() && anybody.allowed_bytes == 0);
    }

    #[test]
    fn nobody_comes_in_without_a_pass() {
        assert!(Pass::none().check(Right::Read, &Destination::queue("A.B")).is_err());
    }
}
