//! Who may come in and what they may do: users, groups, rights on destinations, and how often a password may be tried.
//!
//! *From* the checked configuration and whoever shows a login; *to* the node, which asks before a session opens and
//! before a destination is used. *Never* waits, reads a clock or draws a random number: time, salts and keys are
//! arguments. Checking a password takes tens of milliseconds of a processor by intention, so the caller does it beside
//! its own work.

pub mod right;

pub mod pattern;
pub mod permission;

pub mod identity;
pub mod password;
pub mod user;

pub mod access;
pub mod login;
pub mod pass;

pub mod attempts;
pub mod known;

pub use access::Access;
pub use attempts::{AttemptLimits, Attempts, Ticket, Turn, Verdict};
pub use identity::Identity;
pub use known::KnownLogins;
pub use login::Challenge;
pub use pass::Pass;
pub use password::{PasswordError, PasswordHash};
pub use pattern::{Pattern, PatternError};
pub use permission::Permission;
pub use right::{Denied, Right};
pub use user::User;
