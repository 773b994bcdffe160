//! The selector language of Jakarta Messaging 3.1 §3.8.1, as ActiveMQ Classic extends it.
//!
//! A selector is parsed once into a tree and then asked for each message. Logic has three values: what names an absent
//! property is unknown, and only TRUE selects. Like types compare with like, numbers among each other; any other
//! comparison is FALSE. NOT binds more loosely than a comparison, as the specification has it.
//!
//! A text that begins with `convert_string_expressions:` (`SelectorParser` in ActiveMQ) reads a string as a number or a
//! boolean wherever its counterpart is one. STOMP needs that, whose properties are all strings.

mod evaluate;
mod lexer;
mod like;
mod parser;

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::Value;

/// What a selector looks names up in.
pub trait Fields {
    /// The header or property of this name, [`Value::Null`] where there is none.
    fn field(&self, name: &str) -> Value;
}

/// A parsed selector; cheap to clone. Two are equal when their texts are.
#[derive(Debug, Clone)]
pub struct Selector(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    text: String,
    convert_strings: bool,
    root: parser::Expr,
}

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a selector needs {expected} at column {column}")]
pub struct SelectorError {
    /// 1-based column, in characters.
    pub column: usize,
    /// What was expected there.
    pub expected: String,
}

impl Selector {
    /// Longest text, in bytes.
    pub const TEXT_BYTES_MAX: usize = 16 * 1024;
    /// Deepest nesting of operators, so that neither parsing nor asking can exhaust the stack.
    pub const DEPTH_MAX: usize = 64;
    /// What a text begins with where strings shall be read as numbers and booleans.
    pub const CONVERT_STRINGS_PREFIX: &str = "convert_string_expressions:";

    /// Reads a selector.
    ///
    /// # Errors
    /// Where the text is empty, too long, too deeply nested or not in the language; XPATH and XQUERY are not supported.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > Self::TEXT_BYTES_MAX {
            return Err(error_at(text, 0, format!("at most {} bytes", Self::TEXT_BYTES_MAX)));
        }
        let (start, convert_strings) = match text.strip_prefix(Self::CONVERT_STRINGS_PREFIX) {
            Some(_) => (Self::CONVERT_STRINGS_PREFIX.len(), true),
            None => (0, false),
        };
        let root = parser::parse(text, start)?;
        Ok(Self(Arc::new(Parsed {
            text: text.to_owned(),
            convert_strings,
            root,
        })))
    }

    /// True only where the selector is TRUE for this message; FALSE and unknown are both false. So
    /// is what would take more than some milliseconds to find out.
    pub fn matches(&self, fields: &impl Fields) -> bool {
        let asked = evaluate::Asked::new(fields);
        evaluate::truth(&self.0.root, &asked, self.0.convert_strings) == Some(true) && !asked.is_spent()
    }

    /// The text it was read from, with its prefix.
    pub fn text(&self) -> &str {
        &self.0.text
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Selector {}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

fn error_at(text: &str, at: usize, expected: impl Into<String>) -> SelectorError {
    SelectorError {
        column: text[..at].chars().count() + 1,
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests;
