//! Who the command line is to a node: a name, and a password that no process list shows.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, Failure, secret_input};

/// Who you are
#[derive(Debug, Clone, Args)]
pub(crate) struct CredentialArgs {
    /// User name; the password comes from --password-file or the variable FERRYMQ_PASSWORD
    #[arg(long, visible_alias = "login", env = "FERRYMQ_USER", value_name = "NAME")]
    user: Option<String>,
    /// A file whose first line is the password; "-" is standard input
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
}

/// A name and a password.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Never an option: those of every process are there for every user of the machine to see.
const PASSWORD: &str = "FERRYMQ_PASSWORD";

impl CredentialArgs {
    /// What was given; none without a user.
    ///
    /// # Errors
    /// Exit code 2 where there is a user and no password.
    pub(crate) fn read(&self) -> Result<Option<Credentials>, Failure> {
        let Some(user) = &self.user else { return Ok(None) };
        let wrong = |text: String| Failure::new(Exit::Usage, text);
        let password = match &self.password_file {
            Some(file) => secret_input::password_file(file)
                .map_err(|error| wrong(format!("--password-file {}: {error}", file.display())))?,
            None => std::env::var(PASSWORD)
                .map_err(|_| wrong(format!("--user {user}: set {PASSWORD}, or give --password-file")))?,
        };
        Ok(Some(Credentials {
            user: user.clone(),
            password,
        }))
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
