//! The pattern of LIKE: `%` is any run of characters, `_` is one.

use std::cell::Cell;

/// A pattern, ready to be matched.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Like(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Piece {
    Run,
    One,
    Char(char),
}

impl Like {
    /// Reads a pattern. An escape counts only ahead of `%`, `_` or itself (`ComparisonExpression.LikeExpression`).
    pub(super) fn new(pattern: &str, escape: Option<char>) -> Self {
        let mut pieces = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            let escaped = (Some(c) == escape).then(|| chars.next_if(|n| matches!(n, '%' | '_') || Some(*n) == escape));
            pieces.push(match (escaped.flatten(), c) {
                (Some(literal), _) => Piece::Char(literal),
                (None, '%') => Piece::Run,
                (None, '_') => Piece::One,
                (None, other) => Piece::Char(other),
            });
        }
        Self(pieces)
    }

    /// Whether the whole text fits. On a mismatch only the latest run grows, so the cost is at most their product; none
    /// where that is more than `steps_left`, which is counted down.
    pub(super) fn matches(&self, text: &str, steps_left: &Cell<usize>) -> Option<bool> {
        let mut left = steps_left.get();
        let found = self.matches_within(text, &mut left);
        steps_left.set(left);
        found
    }

    fn matches_within(&self, text: &str, steps_left: &mut usize) -> Option<bool> {
        let mut rest = text.chars();
        let mut at = 0;
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            *steps_left = steps_left.checked_sub(1)?;
            match self.0.get(at) {
                Some(Piece::Run) => {
                    at += 1;
                    retry = Some((at, rest.clone()));
                    continue;
                }
                Some(piece) => {
                    let mut ahead = rest.clone();
                    let fits = match (piece, ahead.next()) {
                        (Piece::Char(wanted), Some(c)) => *wanted == c,
                        (_, next) => next.is_some(),
                    };
                    if fits {
                        rest = ahead;
                        at += 1;
                        continue;
                    }
                }
                None if rest.as_str().is_empty() => return Some(true),
                None => {}
            }
            let Some((after_run, from)) = &mut retry else {
                return Some(false);
            };
            if from.next().is_none() {
                return Some(false);
            }
            at = *after_run;
            rest = from.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, escape: Option<char>, text: &str) -> Option<bool> {
        Like::new(pattern, escape).matches(text, &Cell::new(10_000))
    }

    #[test]
    fn what_takes_too_long_is_given_up() {
        let pattern = format!("%{}b", "a".repeat(200));
        assert_eq!(fits(&pattern, None, &"a".repeat(1_000)), None);
        assert_eq!(fits("%ab", None, &"a".repeat(1_000)), Some(false));
    }

    #[test]
    fn runs_and_single_characters() {
        let table = [
            ("%", "", true),
            ("_", "", false),
            ("a%c", "abbc", true),
            ("a%c", "abcb", false),
            ("%a%b%", "xxaxxbxx", true),
            ("%ab", "aab", true),
            ("_ß_", "aßc", true),
            ("a.c", "abc", false),
            ("", "", true),
            ("", "a", false),
            ("%%", "a", true),
            ("a_", "a\n", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(fits(pattern, None, text), Some(expected), "{pattern} {text}");
        }
        for (pattern, text, expected) in [
            ("100!%", "100%", true),
            ("100!%", "1000", false),
            ("a!!b!c", "a!b!c", true),
        ] {
            assert_eq!(fits(pattern, Some('!'), text), Some(expected), "{pattern} {text}");
        }
    }
}
