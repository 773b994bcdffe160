//! Log-ins that were right once: so that five thousand clients that come back after a fail-over need not wait for five
//! thousand slow checks.

use std::{collections::BTreeMap, fmt};

use ring::hmac;

/// For each user, a keyed checksum of the password that was right last time. It is kept in memory only, under a key that
/// lives as long as the process: whoever could read it could read the passwords as they come in.
pub struct KnownLogins {
    key: hmac::Key,
    /// One for each user at most.
    seen: BTreeMap<String, hmac::Tag>,
}

impl KnownLogins {
    /// Nobody is known. `key` is drawn at random.
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            seen: BTreeMap::new(),
        }
    }

    /// Whether this was right before. False says nothing; the slow check decides.
    pub fn contains(&self, name: &str, password: &str) -> bool {
        self.seen
            .get(name)
            .is_some_and(|tag| hmac::verify(&self.key, &text(name, password), tag.as_ref()).is_ok())
    }

    /// Notes what the slow check found right.
    pub fn insert(&mut self, name: &str, password: &str) {
        let tag = hmac::sign(&self.key, &text(name, password));
        self.seen.insert(name.to_owned(), tag);
    }
}

/// The name's length goes first, so that no two pairs give the same.
fn text(name: &str, password: &str) -> Vec<u8> {
    let length = (name.len() as u64).to_be_bytes();
    [&length[..], name.as_bytes(), password.as_bytes()].concat()
}

impl fmt::Debug for KnownLogins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownLogins")
            .field("users", &self.seen.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_right_before() {
        let mut known = KnownLogins::new(&[1; 32]);
        assert!(!known.contains("a", "pw"));
        known.insert("a", "pw");
        assert!(known.contains("a", "pw"));
        for (name, password) in [("a", "pW"), ("a", ""), ("b", "pw"), ("ap", "w"), ("", "apw")] {
            assert!(!known.contains(name, password), "{name} {password}");
        }
        known.insert("a", "new");
        assert!(known.contains("a", "new") && !known.contains("a", "pw"));
        assert!(!format!("{known:?}").contains("new"));
    }
}
