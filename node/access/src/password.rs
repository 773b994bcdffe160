//! Passwords as they are kept: argon2id, in the PHC string format that other tools write, too.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use subtle::ConstantTimeEq;

/// A salted hash from which a password cannot be had back. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    cost: Cost,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

/// What one check takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Why a text is not the hash of a password. The text itself is never part of the error: it may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing like a PHC string.
    #[error("this is not the hash of a password, and passwords never stand here in clear")]
    NotAHash,
    /// Another function, or an older version of it.
    #[error("only argon2id of version 19 is taken ($argon2id$v=19$…)")]
    Function,
    /// A part is missing or cannot be read.
    #[error("the hash is damaged or was cut; write it as it was printed, with all its $")]
    Damaged,
    /// So cheap that a stolen hash is soon broken.
    #[error("this hash is too weak: at least 7 MiB (m=7168) and m times t at least 35000")]
    TooWeak,
    /// So dear that log-ins would stop the node.
    #[error("this hash takes too much: at most 256 MiB (m=262144) and 16 passes (t=16)")]
    TooDear,
    /// An empty password is none.
    #[error("an empty password is never accepted")]
    Empty,
    /// Longer than [`PasswordHash::PASSWORD_BYTES_MAX`].
    #[error("a password has at most 1024 bytes")]
    TooLong,
}

impl PasswordHash {
    /// Bytes of a salt, drawn anew for each hash.
    pub const SALT_BYTES: usize = 16;
    /// Longest password, in bytes.
    pub const PASSWORD_BYTES_MAX: usize = 1024;

    /// Hashes a password at the cost that OWASP's cheat sheet on password storage names first for argon2id: 19 MiB, two
    /// passes, one lane.
    ///
    /// # Errors
    /// [`PasswordError::Empty`] or [`PasswordError::TooLong`].
    pub fn new(password: &str, salt: [u8; Self::SALT_BYTES]) -> Result<Self, PasswordError> {
        check(password)?;
        let mut hashed = Self {
            cost: DEFAULT,
            salt: salt.to_vec(),
            hash: vec![0; HASH_BYTES],
        };
        hashed.hash = hashed.compute(password).ok_or(PasswordError::Damaged)?;
        Ok(hashed)
    }

    /// Reads a PHC string: `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        let mut parts = text.split('$');
        let (Some(""), Some(function)) = (parts.next(), parts.next()) else {
            return Err(PasswordError::NotAHash);
        };
        if function != "argon2id" || parts.next() != Some("v=19") {
            return Err(PasswordError::Function);
        }
        let (Some(cost), Some(salt), Some(hash), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(PasswordError::Damaged);
        };
        let decode = |text: &str| BASE64.decode(text).map_err(|_| PasswordError::Damaged);
        let parsed = Self {
            cost: Cost::parse(cost)?,
            salt: decode(salt)?,
            hash: decode(hash)?,
        };
        let sizes_fit = (8..=64).contains(&parsed.salt.len()) && (16..=64).contains(&parsed.hash.len());
        if sizes_fit {
            Ok(parsed)
        } else {
            Err(PasswordError::Damaged)
        }
    }

    /// A hash that no password has, at the same cost: what an unknown user's password is checked against, so that the
    /// time tells nothing.
    #[must_use]
    pub fn dummy_like(models: &[&PasswordHash]) -> Self {
        let cost = models.iter().map(|model| model.cost).max().unwrap_or(DEFAULT);
        Self {
            cost,
            salt: vec![0; Self::SALT_BYTES],
            // Nobody knows an input for it, and who knew one would still be unknown.
            hash: vec![0; HASH_BYTES],
        }
    }

    /// Whether this is the password, in a time that does not depend on either. Slow by intention.
    pub fn verify(&self, password: &str) -> bool {
        // The work is done even for what is refused anyway, so that the time tells nothing.
        let fits = check(password).is_ok();
        let password = if fits { password } else { "" };
        let same = self
            .compute(password)
            .is_some_and(|found| bool::from(found.ct_eq(&self.hash)));
        same && fits
    }

    /// Whether a check takes as long as that of another hash.
    pub fn costs_as_much_as(&self, other: &Self) -> bool {
        self.cost == other.cost
    }

    /// The PHC string.
    pub fn expose(&self) -> String {
        let Cost {
            memory_kib,
            passes,
            lanes,
        } = self.cost;
        let (salt, hash) = (BASE64.encode(&self.salt), BASE64.encode(&self.hash));
        format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}")
    }

    fn compute(&self, password: &str) -> Option<Vec<u8>> {
        let Cost {
            memory_kib,
            passes,
            lanes,
        } = self.cost;
        let params = Params::new(memory_kib, passes, lanes, Some(self.hash.len())).ok()?;
        let mut found = vec![0; self.hash.len()];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password.as_bytes(), &self.salt, &mut found)
            .ok()?;
        Some(found)
    }
}

impl Cost {
    fn parse(text: &str) -> Result<Self, PasswordError> {
        let number = |part: Option<&str>, key: &str| {
            part.and_then(|part| part.strip_prefix(key)?.parse::<u32>().ok())
                .ok_or(PasswordError::Damaged)
        };
        let mut parts = text.split(',');
        let cost = Self {
            memory_kib: number(parts.next(), "m=")?,
            passes: number(parts.next(), "t=")?,
            lanes: number(parts.next(), "p=")?,
        };
        if parts.next().is_some() || cost.passes == 0 || !(1..=16).contains(&cost.lanes) {
            return Err(PasswordError::Damaged);
        }
        // The weakest and the dearest that OWASP's cheat sheet lists do about the same work.
        let work = u64::from(cost.memory_kib) * u64::from(cost.passes);
        if cost.memory_kib < 7_168 || work < 35_000 {
            return Err(PasswordError::TooWeak);
        }
        if cost.memory_kib > 262_144 || cost.passes > 16 {
            return Err(PasswordError::TooDear);
        }
        Ok(cost)
    }
}

fn check(password: &str) -> Result<(), PasswordError> {
    match password.len() {
        0 => Err(PasswordError::Empty),
        bytes if bytes > PasswordHash::PASSWORD_BYTES_MAX => Err(PasswordError::TooLong),
        _ => Ok(()),
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

const DEFAULT: Cost = Cost {
    memory_kib: 19_456,
    passes: 2,
    lanes: 1,
};
const HASH_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tests of the reference implementation (test.c): hashes that other tools made are good here.
    #[test]
    fn a_hash_of_the_reference_implementation_fits() {
        let text = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let hash = PasswordHash::parse(text).unwrap();
        assert!(hash.verify("password") && !hash.verify("Password"));
        assert_eq!(hash.expose(), text);
    }

    #[test]
    fn what_it_writes_it_reads_and_only_the_password_fits() {
        let hash = PasswordHash::new("correct horse", [7; 16]).unwrap();
        let text = hash.expose();
        assert!(
            text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$BwcHBwcHBwcHBwcHBwcHBw$"),
            "{text}"
        );
        let read = PasswordHash::parse(&text).unwrap();
        assert_eq!(read, hash);
        assert!(read.verify("correct horse"));
        for wrong in ["", "correct horse ", "Correct horse", &"x".repeat(1025)] {
            assert!(!read.verify(wrong), "{wrong:?}");
        }
        assert_ne!(PasswordHash::new("correct horse", [8; 16]).unwrap().hash, hash.hash);
        assert_eq!(format!("{hash:?}"), "PasswordHash(…)");
    }

    #[test]
    fn empty_passwords_have_no_hash_and_fit_none() {
        assert_eq!(PasswordHash::new("", [7; 16]), Err(PasswordError::Empty));
        // Even where somebody has made one elsewhere.
        let mut hash = PasswordHash::new("x", [7; 16]).unwrap();
        hash.hash = hash.compute("").unwrap();
        assert!(!hash.verify(""));
        assert!(!PasswordHash::dummy_like(&[]).verify(""));
    }

    #[test]
    fn what_is_no_hash_is_refused_and_not_repeated() {
        let salt_and_hash = "BwcHBwcHBwcHBwcHBwcHBw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let with = |head: &str| format!("${head}${salt_and_hash}");
        let table = [
            ("hunter2".to_owned(), PasswordError::NotAHash),
            (String::new(), PasswordError::NotAHash),
            ("$2b$12$abcdefghijklmnopqrstuv".to_owned(), PasswordError::Function),
            (with("argon2i$v=19$m=19456,t=2,p=1"), PasswordError::Function),
            (with("argon2id$v=16$m=19456,t=2,p=1"), PasswordError::Function),
            (with("argon2id$v=19$m=19456,t=2"), PasswordError::Damaged),
            (with("argon2id$v=19$m=19456,t=0,p=1"), PasswordError::Damaged),
            (with("argon2id$v=19$m=19456,t=2,p=99"), PasswordError::Damaged),
            (with("argon2id$v=19$m=1024,t=40,p=1"), PasswordError::TooWeak),
            (with("argon2id$v=19$m=19456,t=1,p=1"), PasswordError::TooWeak),
            (with("argon2id$v=19$m=4294967295,t=2,p=1"), PasswordError::TooDear),
            (with("argon2id$v=19$m=19456,t=4000,p=1"), PasswordError::TooDear),
            ("$argon2id$v=19$m=19456,t=2,p=1$BwcH".to_owned(), PasswordError::Damaged),
            (
                "$argon2id$v=19$m=19456,t=2,p=1$!!$!!".to_owned(),
                PasswordError::Damaged,
            ),
        ];
        for (text, error) in table {
            assert_eq!(PasswordHash::parse(&text).unwrap_err(), error, "{text}");
        }
        assert!(PasswordHash::parse(&with("argon2id$v=19$m=7168,t=5,p=1")).is_ok());
    }

    #[test]
    fn a_dummy_costs_as_much_as_the_dearest() {
        let cheap = PasswordHash::new("x", [7; 16]).unwrap();
        let mut dear = cheap.clone();
        dear.cost.passes = 3;
        let dummy = PasswordHash::dummy_like(&[&cheap, &dear]);
        assert!(dummy.costs_as_much_as(&dear) && !dummy.costs_as_much_as(&cheap));
    }
}
