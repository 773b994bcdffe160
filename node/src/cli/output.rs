//! What commands print: tables for people, JSON for programs.

use std::io::Write;

use clap::ValueEnum;
use serde_json::Value;

use super::{Exit, Failure};

/// The form of what is printed on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// Prints text. That nobody reads it any more (`| head`) ends the command quietly.
///
/// # Errors
/// Where standard output cannot be written to.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// As [`print()`], for bytes that need not be text.
///
/// # Errors
/// Where standard output cannot be written to.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    std::io::stdout()
        .lock()
        .write_all(bytes)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::silent(Exit::Failed),
            _ => Failure::new(Exit::Failed, format!("cannot print: {error}")),
        })
}

/// Prints JSON, indented.
///
/// # Errors
/// Where standard output cannot be written to.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// Rows under headings, in columns as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether there is nothing but headings.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                // Control characters could rewrite the operator's terminal.
                let cell: String = cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
                line += &format!("{cell:<width$}  ", width = width(column));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A cell for a JSON value: text without quotes, `-` for what is absent.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

/// Bytes with a unit.
pub(crate) fn size(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if number < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{number:.1} {unit}")
            };
        }
        number /= 1024.0;
    }
    format!("{number:.1} TiB")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NODE", "ROLE"]);
        assert!(table.is_empty());
        table.row(vec!["1".into(), "master".into()]);
        table.row(vec!["12345".into(), "a\u{1b}[2J".into()]);
        assert_eq!(table.to_string(), "NODE   ROLE\n1      master\n12345  a?[2J\n");
    }

    #[test]
    fn values_as_cells() {
        assert_eq!(
            [json!(null), json!("x"), json!(true), json!(1.5)].each_ref().map(cell),
            ["-", "x", "yes", "1.5"]
        );
        assert_eq!([512, 1536, 1 << 30].map(size), ["512 B", "1.5 KiB", "1.0 GiB"]);
    }
}
