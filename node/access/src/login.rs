//! A password that is to be checked.

use crate::{identity::Identity, password::PasswordHash};

/// What a password must fit, taken out of [`crate::Access`] so that it can be checked on another thread.
///
/// For an unknown user it looks and takes just as long, and fits nothing.
#[derive(Debug, Clone)]
pub struct Challenge {
    hash: PasswordHash,
    identity: Option<Identity>,
}

impl Challenge {
    pub(crate) fn new(hash: PasswordHash, identity: Option<Identity>) -> Self {
        Self { hash, identity }
    }

    /// Who it is, where the password fits. Takes tens of milliseconds of a processor.
    pub fn solve(self, password: &str) -> Option<Identity> {
        let fits = self.hash.verify(password);
        self.identity.filter(|_| fits)
    }
}
