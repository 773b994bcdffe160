//! A user as configured.

use std::collections::BTreeSet;

use crate::password::PasswordHash;

/// Somebody who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Unique, and never [`crate::Identity::ANONYMOUS`].
    pub name: String,
    /// None for a user who comes with a certificate only.
    pub password: Option<PasswordHash>,
    /// From these, rights follow.
    pub groups: BTreeSet<String>,
}
