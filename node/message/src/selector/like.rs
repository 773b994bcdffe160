//! The pattern of LIKE: `%` is any run of characters, `_` is one.

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

    /// Whether the whole text fits. On a mismatch only the latest run grows, so the cost is at most their product.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut rest = text.chars();
        let mut at = 0;
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
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
                None if rest.as_str().is_empty() => return true,
                None => {}
            }
            let Some((after_run, from)) = &mut retry else {
                return false;
            };
            if from.next().is_none() {
                return false;
            }
            at = *after_run;
            rest = from.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(Like::new(pattern, None).matches(text), expected, "{pattern} {text}");
        }
        for (pattern, text, expected) in [
            ("100!%", "100%", true),
            ("100!%", "1000", false),
            ("a!!b!c", "a!b!c", true),
        ] {
            assert_eq!(
                Like::new(pattern, Some('!')).matches(text),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
