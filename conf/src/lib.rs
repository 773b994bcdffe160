//! Configuration: one small TOML file per node, read once at boot.
//!
//! *From* a file and the environment; *to* node's boot, which translates [`Node`] into what each room is told.
//! *Never* reads anything after boot, and never lets a file pass of which it does not know every word.

pub mod node;
pub mod problem;

mod written;
mod written_access;
mod written_connectors;

mod check;
mod check_access;
mod environment;
mod nearest;
mod section;
mod units;
mod values;

use std::path::Path;

use toml::de::DeTable;

pub use node::{
    Access, BacklogFull, Certificates, ClientCertificates, Clients, Connector, Limits, Listen, Log, Member, Mesh, Node,
    Permission, Secret, Store, Sync, Timers, Timestamps, Tls, User,
};
pub use problem::{Problem, Problems};

/// A good configuration, and what deserves a second look nevertheless.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What the node is told.
    pub node: Node,
    /// In the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads and checks the file at `path`, with the `FERRYMQ_…` ones among `variables` laid over it.
///
/// # Errors
/// Everything that is wrong, each with its place and cure.
pub fn load(path: &Path, variables: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    let wrong = |text: String| {
        Problems(vec![Problem {
            place: name.clone(),
            text,
        }])
    };
    let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(wrong(format!("has {} bytes; is it a configuration file?", bytes.len())));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text".to_owned()))?;
    read(&name, &text, variables)
}

/// Largest file that is read.
const FILE_BYTES_MAX: usize = 1 << 20;

/// As [`load`], for a text at hand; `name` stands in error texts. Reads `secret_file`, no other file.
///
/// # Errors
/// Everything that is wrong, each with its place and cure.
pub fn read(name: &str, text: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, Problems> {
    let report = problem::Report::new(name, text);
    let environment = environment::Environment::new(variables);
    let (table, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let place = problem::Place::File(error.span().map_or(0, |span| span.start));
        report.error(&place, syntax_error(text, error));
    }
    if !syntax.is_empty() {
        // What follows a slip of syntax would only be reported as nonsense.
        return Err(Problems(report.finish().0));
    }
    let root = section::Section::root(&report, &environment, table.get_ref());
    let node = written::node(&root);
    root.finish();
    check::check(&node, &report);
    let (errors, warnings) = report.finish();
    if errors.is_empty() {
        Ok(Loaded { node, warnings })
    } else {
        Err(Problems(errors))
    }
}

/// The parser's own words, except where text lacks its quotes, the usual slip: it takes such a word for a number.
fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let rest = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("");
    let before = text.get(..start).and_then(|before| before.lines().last()).unwrap_or("");
    if before.trim_end().ends_with('=') && rest.starts_with(|c: char| c.is_alphabetic()) {
        let word = rest.split([' ', '#', ',']).next().unwrap_or("");
        return format!("text stands in quotes: {word:?}");
    }
    error.message().replace('\n', ", ")
}
