//! The security floor: whoever reaches a node from another machine is asked who they are, unless the file says
//! otherwise in so many words; and what users and permissions say fits together.

use std::collections::BTreeSet;

use ferrymq_access::PasswordHash;

use crate::{
    node::{Access, Node, Permission},
    problem::Report,
    written_access::{path_of_permission, path_of_user},
};

/// Checks who may come in.
pub(crate) fn check(node: &Node, report: &Report<'_>) {
    ports(node, report);
    tls(node, report);
    if node.access.users.is_empty() {
        nobody(node, report);
    } else {
        doors(node, report);
        users(node, report);
        permissions(&node.access, report);
    }
}

/// Ports for clients and administrators that other machines reach.
fn ports(node: &Node, report: &Report<'_>) {
    let listen = &node.listen;
    let asked = !node.access.users.is_empty();
    let said = report.is_given("access.anonymous") && node.access.anonymous;
    for (key, address) in [
        ("stomp", listen.stomp),
        ("stomp_tls", listen.stomp_tls),
        ("admin", listen.admin),
    ] {
        let Some(address) = address.filter(|address| !address.ip().is_loopback()) else {
            continue;
        };
        let path = format!("listen.{key}");
        let whom = if key == "admin" { "administrators" } else { "clients" };
        if asked {
            if key != "stomp_tls" {
                let cure = if key == "stomp" {
                    "use stomp_tls"
                } else {
                    "listen on 127.0.0.1 and go there by ssh or a proxy with TLS"
                };
                let text = format!("passwords cross the network in clear at {key} on {address}; {cure}");
                report.warn_at(&path, text);
            }
        } else if said {
            let text = format!("{whom} are not asked who they are: let only trusted machines reach {key} on {address}");
            report.warn_at(&path, text);
        } else {
            let text = format!(
                "{key} listens on {address}, which other machines reach, and {whom} would not be asked who they are; \
                 add [[users]] (hash their passwords with: ferrymq hash-password), say anonymous = true under [access], \
                 or listen on 127.0.0.1"
            );
            report.error_at(&path, text);
        }
    }
}

fn tls(node: &Node, report: &Report<'_>) {
    match (&node.tls, node.listen.stomp_tls) {
        (None, Some(address)) => {
            let text =
                format!("stomp_tls listens on {address} without a certificate; set certificate and key under [tls]");
            report.error_at("listen.stomp_tls", text);
        }
        (Some(_), None) => report.warn_at("tls", "nothing listens with TLS; set stomp_tls under [listen]"),
        _ => {}
    }
}

/// Without users.
fn nobody(node: &Node, report: &Report<'_>) {
    let access = &node.access;
    if !access.anonymous {
        let text = "nobody could connect: there are no users; add [[users]], or take anonymous away";
        report.error_at("access.anonymous", text);
    }
    if !access.permissions.is_empty() {
        let text =
            "permissions are for groups of users, and there are none; add [[users]], or take the permissions away";
        report.error_at(&path_of_permission(0), text);
    }
}

/// With users, no other door may lead past them.
fn doors(node: &Node, report: &Report<'_>) {
    let trusted = node.mesh.secret.is_some() || node.mesh.certificates.is_some();
    if let Some(peer) = node.listen.peer
        && !trusted
    {
        let cure = if node.is_alone() {
            "set secret_file under [mesh], or peer = \"off\""
        } else {
            "set secret_file under [mesh], the same on every node"
        };
        let text = format!(
            "clients are asked who they are, but whoever reaches {peer} could say to be a node of this group; {cure}"
        );
        report.error_at("listen.peer", text);
    }
    let exposed = node.listen.stomp_tls.is_some() && node.listen.peer.is_some_and(|peer| !peer.ip().is_loopback());
    if exposed && !node.is_alone() && node.mesh.certificates.is_none() {
        report.warn_at(
            "listen.stomp_tls",
            "what clients send encrypted is carried from slaves to the master in clear; give the nodes certificates \
             under [mesh], or keep them on a network that you trust",
        );
    }
}

fn users(node: &Node, report: &Report<'_>) {
    let access = &node.access;
    let with_certificates = node.tls.as_ref().is_some_and(|tls| tls.client.is_some());
    for user in access.users.iter().filter(|user| user.password.is_none()) {
        if !with_certificates {
            let text = format!(
                "{:?} has no password; make one with: ferrymq hash-password, or give client_ca under [tls] for users \
                 who come with a certificate",
                user.name
            );
            report.error_at(&path_of_user(&user.name), text);
        }
    }
    for user in &access.users {
        if user
            .groups
            .iter()
            .any(|group| group == Access::ANONYMOUS || group == Access::EVERYBODY)
        {
            let text = format!(
                "{:?} is in a group that stands for others: \"anonymous\" are those without a login, \"*\" is everybody",
                user.name
            );
            report.error_at(&path_of_user(&user.name), text);
        }
    }
    let hashes: Vec<(&str, PasswordHash)> = access
        .users
        .iter()
        .filter_map(|user| {
            let hash = PasswordHash::parse(user.password.as_ref()?.expose()).ok()?;
            Some((user.name.as_str(), hash))
        })
        .collect();
    if let Some((first, rest)) = hashes.split_first()
        && let Some((name, _)) = rest.iter().find(|(_, hash)| !hash.costs_as_much_as(&first.1))
    {
        let text = format!(
            "the passwords of {:?} and {name:?} were hashed at different costs: how long an answer takes tells strangers \
             which users there are; hash them anew with the same tool",
            first.0
        );
        report.warn_at(&path_of_user(name), text);
    }
    let someone = |group: &String| access.users.iter().any(|user| user.groups.contains(group));
    if !access.admins.iter().any(someone) {
        let text = format!(
            "no user is in {}: nobody can administer this node over its admin port",
            listed(&access.admins)
        );
        report.warn_at("access.admins", text);
    }
}

fn permissions(access: &Access, report: &Report<'_>) {
    if access.permissions.is_empty() {
        if access.anonymous {
            let text = "clients without a login would come in and could do nothing; add [[permissions]] that name the \
                        group \"anonymous\", or take anonymous away";
            report.error_at("access.anonymous", text);
        } else {
            let text = "there are no [[permissions]]: every user may read and write every destination";
            report.warn_at(&path_of_user(&access.users[0].name), text);
        }
        return;
    }
    let groups: BTreeSet<&str> = access
        .users
        .iter()
        .flat_map(|user| user.groups.iter().map(String::as_str))
        .chain([Access::EVERYBODY, Access::ANONYMOUS])
        .collect();
    let mut reported = BTreeSet::new();
    for (at, permission) in access.permissions.iter().enumerate() {
        let Permission {
            destination,
            read,
            write,
            admin,
        } = permission;
        if read.is_empty() && write.is_empty() && admin.is_empty() {
            let text = format!("the permission for {destination:?} gives nobody anything; add read, write or admin");
            report.warn_at(&path_of_permission(at), text);
        }
        for group in [read, write, admin].into_iter().flatten() {
            if !groups.contains(group.as_str()) && reported.insert(group) {
                let advice = crate::nearest::advice(group, groups.iter().copied());
                let text = format!("no user is in the group {group:?}{advice}");
                report.warn_at(&path_of_permission(at), text);
            }
        }
    }
}

fn listed(groups: &[String]) -> String {
    match groups {
        [] => "a group under admins".to_owned(),
        groups => groups
            .iter()
            .map(|group| format!("{group:?}"))
            .collect::<Vec<_>>()
            .join(" or "),
    }
}
