//! Reads a URI from left to right and remembers the column, so that an error names the place and the cure.

use std::fmt;

/// What is wrong with a URI, where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct UriError {
    /// The place, counted in characters from 1.
    pub column: usize,
    /// What is wrong, with the column.
    pub message: String,
    /// What to do about it.
    pub cure: String,
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.cure.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.cure)
        }
    }
}

/// A place in a URI. Copied to look ahead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan<'a> {
    text: &'a str,
    at: usize,
}

/// A piece of the URI and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) text: &'a str,
    pub(crate) column: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Where the next character stands, counted in characters from 1.
    pub(crate) fn column(&self) -> usize {
        self.text[..self.at].chars().count() + 1
    }

    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(crate) fn skip_spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Takes `wanted` if it comes next.
    pub(crate) fn take(&mut self, wanted: &str) -> bool {
        let comes = self.rest().starts_with(wanted);
        if comes {
            self.at += wanted.len();
        }
        comes
    }

    /// Takes characters as long as they are wanted.
    pub(crate) fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> Piece<'a> {
        let (column, rest) = (self.column(), self.rest());
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        Piece {
            text: &rest[..end],
            column,
        }
    }

    /// An error at the next character.
    pub(crate) fn error(&self, what: impl fmt::Display, cure: impl Into<String>) -> UriError {
        error_at(self.column(), what, cure)
    }
}

impl Piece<'_> {
    /// An error about this piece.
    pub(crate) fn error(&self, what: impl fmt::Display, cure: impl Into<String>) -> UriError {
        error_at(self.column, what, cure)
    }
}

/// `what` holds `@` where "at column n" shall stand, or gets it at its end.
fn error_at(column: usize, what: impl fmt::Display, cure: impl Into<String>) -> UriError {
    let (what, place) = (what.to_string(), format!("at column {column}"));
    let message = match what.split_once(" @ ") {
        Some((before, after)) => format!("{before} {place} {after}"),
        None => format!("{what} {place}"),
    };
    UriError {
        column,
        message,
        cure: cure.into(),
    }
}

/// The candidate that `word` is probably a misspelling of.
pub(crate) fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let word = word.to_lowercase();
    candidates
        .iter()
        .map(|candidate| (edits(&word, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters must be inserted, removed, replaced or swapped with their neighbour.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(WORD_MAX).collect(), b.chars().take(WORD_MAX).collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Longer words are compared by their beginning only.
const WORD_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_find_their_word_and_others_do_not() {
        let words = ["multicast", "static", "maxReconnectDelay", "tcp"];
        assert_eq!(nearest("mutlicast", &words), Some("multicast"));
        assert_eq!(nearest("maxreconectdelay", &words), Some("maxReconnectDelay"));
        assert_eq!(nearest("tpc", &words), Some("tcp"));
        assert_eq!(nearest("kubernetes", &words), None);
        assert_eq!(edits("abc", ""), 3);
    }

    #[test]
    fn columns_count_characters() {
        let mut scan = Scan::new("ää:x");
        assert!(!scan.take(":"));
        assert_eq!(
            scan.take_while(char::is_alphabetic),
            Piece {
                text: "ää", column: 1
            }
        );
        assert!(scan.take(":"));
        assert_eq!(scan.column(), 4);
        assert_eq!(scan.error("wrong", "").to_string(), "wrong at column 4");
        assert_eq!(
            scan.error("x @ is wrong", "write y").to_string(),
            "x at column 4 is wrong; write y"
        );
    }
}
