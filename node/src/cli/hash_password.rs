//! `ferrymq hash-password`: what stands in a configuration in place of a password.

use clap::Args;
use ferrymq_access::PasswordHash;
use ring::rand::{SecureRandom, SystemRandom};

use super::{Exit, Failure, output::print, secret_input};

/// Hash a password for the configuration
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ferrymq hash-password
  ferrymq hash-password < password.txt
  pass show broker/app | ferrymq hash-password

On a terminal the password is asked for twice and not shown; otherwise it is the first line of standard input.
The hash (argon2id with a salt of its own) goes into the configuration of every node of the group:

  [[users]]
  name = \"app\"
  password = \"$argon2id$…\"
  groups = [\"apps\"]

Exit codes: 0 done, 1 no or an unusable password")]
pub(crate) struct HashPasswordArgs {}

pub(crate) fn run(HashPasswordArgs {}: HashPasswordArgs) -> Result<(), Failure> {
    let failed = |text: String| Failure::new(Exit::Failed, text);
    let password = secret_input::new_password().map_err(|error| failed(error.to_string()))?;
    let mut salt = [0; PasswordHash::SALT_BYTES];
    SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_| failed("the system has no random numbers".to_owned()))?;
    let hash = PasswordHash::new(&password, salt).map_err(|error| failed(error.to_string()))?;
    print(&format!("{}\n", hash.expose()))
}
