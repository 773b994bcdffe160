//! Users, permissions and certificates for clients as written: `[access]`, `[[users]]`, `[[permissions]]`, `[tls]`.

use ferrymq_access::PasswordHash;
use toml::de::DeValue;

use crate::{
    node::{Access, ClientCertificates, Permission, Secret, Tls, User},
    problem::Place,
    section::{Raw, Section},
    values,
};

/// Longest name of a user or a group, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest destination of a permission, in bytes.
const DESTINATION_BYTES_MAX: usize = 1_024;

/// All that is said about users and their rights.
pub(crate) fn access(root: &Section<'_>) -> Access {
    let section = root.section("access");
    let anonymous = section.read("anonymous", values::boolean);
    let admins = section.read("admins", |raw| words(raw, group));
    section.finish();
    let users = users(root);
    Access {
        anonymous: anonymous.unwrap_or(users.is_empty()),
        admins: admins.unwrap_or_else(|| vec!["admins".to_owned()]),
        permissions: permissions(root),
        users,
    }
}

/// `[tls]`; none where the section is absent.
pub(crate) fn tls(root: &Section<'_>) -> Option<Tls> {
    let section = root.section("tls");
    let certificate = section.read("certificate", values::filled);
    let key = section.read("key", values::filled);
    let ca = section.read("client_ca", values::filled);
    let required = section.read("client_required", values::boolean);
    if ca.is_none() && required.is_some() {
        section.complain_here("client_required says something about clients' certificates; give client_ca, too");
    }
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Tls {
            certificate: certificate.into(),
            key: key.into(),
            client: ca.map(|ca| ClientCertificates {
                ca: ca.into(),
                required: required.unwrap_or(true),
            }),
        }),
        (None, None) if ca.is_none() => None,
        (certificate, _) => {
            let missing = if certificate.is_none() { "certificate" } else { "key" };
            section.complain_here(format!("certificate and key belong together; missing: {missing}"));
            None
        }
    };
    section.finish();
    tls
}

fn users(root: &Section<'_>) -> Vec<User> {
    let mut users: Vec<User> = Vec::new();
    for (place, section) in tables(root, "users", "a user") {
        let name = section.require("name", "what the client gives as its login", user_name);
        let password = section.read("password", password);
        let groups = section.read("groups", |raw| words(raw, group)).unwrap_or_default();
        if let Some(name) = name {
            if users.iter().any(|known| known.name == name) {
                root.complain(&place, format!("two users have the name {name:?}"));
            }
            root.report.note(path_of_user(&name), place);
            users.push(User { name, password, groups });
        }
        section.finish();
    }
    users
}

fn permissions(root: &Section<'_>) -> Vec<Permission> {
    let mut permissions = Vec::new();
    for (place, section) in tables(root, "permissions", "a permission") {
        let what = "which destinations it is about, such as \"queue://orders.>\" or \">\"";
        let destination = section.require("destination", what, pattern);
        let groups = |key| section.read(key, |raw| words(raw, group)).unwrap_or_default();
        let permission = Permission {
            destination: destination.unwrap_or_default(),
            read: groups("read"),
            write: groups("write"),
            admin: groups("admin"),
        };
        root.report.note(path_of_permission(permissions.len()), place);
        permissions.push(permission);
        section.finish();
    }
    permissions
}

/// Where rules find a user's place again.
pub(crate) fn path_of_user(name: &str) -> String {
    format!("users of {name}")
}

/// Where rules find a permission's place again.
pub(crate) fn path_of_permission(at: usize) -> String {
    format!("permissions at {at}")
}

/// The tables of a list `[[key]]`.
fn tables<'a>(root: &Section<'a>, key: &'static str, what: &str) -> Vec<(Place, Section<'a>)> {
    let Some(entry) = root.entry(key) else {
        return Vec::new();
    };
    let wrong = format!("{what} is written as [[{key}]], in double brackets, with its keys below");
    let Raw::Toml(DeValue::Array(tables)) = &entry.value else {
        root.report.spoil(key);
        root.complain(&entry.place, wrong);
        return Vec::new();
    };
    let mut found = Vec::new();
    for (number, element) in tables.iter().enumerate() {
        let place = Place::File(element.span().start);
        match element.get_ref() {
            DeValue::Table(table) => {
                let section = root.unnamed(format!("{key}[{}]", number + 1), place.clone(), table);
                found.push((place, section));
            }
            _ => {
                root.report.spoil(key);
                root.complain(&place, wrong.clone());
            }
        }
    }
    found
}

fn user_name(raw: &Raw<'_>) -> Result<String, String> {
    let name = values::filled(raw)?;
    // A colon ends the name in HTTP's Basic authentication (RFC 7617 section 2).
    if name.len() > NAME_BYTES_MAX || name.contains(char::is_control) || name.contains(':') {
        return Err(format!(
            "a name has at most {NAME_BYTES_MAX} bytes, no colon and no control character"
        ));
    }
    if name == Access::ANONYMOUS {
        return Err("\"anonymous\" stands for clients without a login; choose another name".to_owned());
    }
    Ok(name)
}

fn group(written: &str) -> Result<String, String> {
    if written.trim().is_empty() || written.len() > NAME_BYTES_MAX || written.contains(char::is_control) {
        return Err(format!(
            "a group's name has 1 to {NAME_BYTES_MAX} bytes and no control character"
        ));
    }
    Ok(written.to_owned())
}

/// A hash; what else was written is never repeated.
fn password(raw: &Raw<'_>) -> Result<Secret, String> {
    let written = values::text(raw)?;
    match PasswordHash::parse(&written) {
        Ok(_) => Ok(Secret::new(written)),
        Err(error) => Err(format!("{error}; make one with: ferrymq hash-password")),
    }
}

fn pattern(raw: &Raw<'_>) -> Result<String, String> {
    let written = values::pattern(&values::text(raw)?)?;
    if written.len() > DESTINATION_BYTES_MAX || written.contains(char::is_control) {
        return Err(format!(
            "a destination has at most {DESTINATION_BYTES_MAX} bytes and no control character"
        ));
    }
    if written.contains(',') {
        return Err(format!(
            "{written:?}: a permission is about one pattern; write a [[permissions]] for each"
        ));
    }
    Ok(written)
}

/// A list of words, each of them read by `read`.
fn words(raw: &Raw<'_>, read: impl Fn(&str) -> Result<String, String>) -> Result<Vec<String>, String> {
    let Raw::Toml(DeValue::Array(array)) = raw else {
        return Err(format!("expected a list such as [\"shop\"], found {}", raw.kind()));
    };
    array
        .iter()
        .map(|element| read(&values::text(&Raw::Toml(element.get_ref()))?))
        .collect()
}
