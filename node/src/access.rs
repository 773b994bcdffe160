//! From the configuration's words on users, rights and certificates to those of the rooms.

use anyhow::Context;
use ferrymq_access::{Access, PasswordHash, Permission, User};
use ferrymq_conf::Node;
use ferrymq_transport::TlsDoor;

/// Users and their rights. Without users nobody is asked.
///
/// # Errors
/// Where the configuration let something pass that the room does not take.
pub(crate) fn access(node: &Node) -> anyhow::Result<Access> {
    let written = &node.access;
    if written.users.is_empty() {
        return Ok(Access::open());
    }
    let mut users = Vec::new();
    for user in &written.users {
        let password = user.password.as_ref().map(|hash| PasswordHash::parse(hash.expose()));
        users.push(User {
            name: user.name.clone(),
            password: password.transpose().with_context(|| format!("user {:?}", user.name))?,
            groups: user.groups.iter().cloned().collect(),
        });
    }
    let mut permissions = Vec::new();
    for permission in &written.permissions {
        let destinations = permission.destination.parse();
        permissions.push(Permission {
            destinations: destinations.with_context(|| format!("permission for {:?}", permission.destination))?,
            read: permission.read.iter().cloned().collect(),
            write: permission.write.iter().cloned().collect(),
            admin: permission.admin.iter().cloned().collect(),
        });
    }
    let admins = written.admins.iter().cloned().collect();
    Ok(Access::new(users, permissions, admins, written.anonymous))
}

/// What clients that connect with TLS meet, where there is such a port.
///
/// # Errors
/// Where a file cannot be read or does not fit, with its name.
pub(crate) fn tls_door(node: &Node) -> anyhow::Result<Option<TlsDoor>> {
    let Some(tls) = node.tls.as_ref().filter(|_| node.listen.stomp_tls.is_some()) else {
        return Ok(None);
    };
    let clients = tls.client.as_ref().map(|client| (client.ca.as_path(), client.required));
    let door = TlsDoor::from_pem(&tls.certificate, &tls.key, clients)
        .context("clients cannot be served with TLS; see [tls]")?;
    Ok(Some(door))
}
