//! Cuts the text of a selector into words, numbers, strings and signs.

use super::{SelectorError, error_at};

/// One piece of the text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A reserved word, in upper case.
    Keyword(&'static str),
    /// The name of a header or property.
    Name(String),
    /// A string literal without its quotes.
    Text(String),
    /// An integer literal.
    Long(i64),
    /// A literal with a point or exponent, or an integer that is too large for 64 bits.
    Double(f64),
    /// An operator, bracket or comma.
    Sign(&'static str),
    /// Nothing is left.
    End,
}

/// Reserved words, whatever their case.
const KEYWORDS: [&str; 13] = [
    "NOT", "AND", "OR", "BETWEEN", "LIKE", "ESCAPE", "IN", "IS", "TRUE", "FALSE", "NULL", "XPATH", "XQUERY",
];

/// Longer ones first.
const SIGNS: [&str; 14] = ["<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ","];

/// A place in the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Begins at byte `at` of `text`.
    pub(super) fn new(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    /// The next token and the byte at which it begins.
    pub(super) fn next(&mut self) -> Result<(Token, usize), SelectorError> {
        self.skip_blank()?;
        let start = self.at;
        let rest = &self.text[start..];
        let Some(first) = rest.chars().next() else {
            return Ok((Token::End, start));
        };
        let token = match first {
            '\'' => Token::Text(self.quoted('\'')?),
            '"' => Token::Name(self.quoted('"')?),
            '0'..='9' => self.number()?,
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number()?,
            c if starts_name(c) => self.word(),
            _ => {
                let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
                let sign = sign.ok_or_else(|| error_at(self.text, start, "an operator, a name or a literal"))?;
                self.at += sign.len();
                Token::Sign(sign)
            }
        };
        Ok((token, start))
    }

    /// Skips white space, `-- …` to the end of the line and `/* … */`.
    fn skip_blank(&mut self) -> Result<(), SelectorError> {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("--") {
                self.at += trimmed.find(['\n', '\r']).unwrap_or(trimmed.len());
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                let len = comment
                    .find("*/")
                    .ok_or_else(|| error_at(self.text, self.text.len(), "*/"))?;
                self.at += len + 4;
            } else {
                return Ok(());
            }
        }
    }

    /// A text in quotes; a doubled quote stands for one.
    fn quoted(&mut self, quote: char) -> Result<String, SelectorError> {
        let mut value = String::new();
        let start = self.at + 1;
        let mut chars = self.text[start..].char_indices().peekable();
        while let Some((i, c)) = chars.next() {
            if c != quote {
                value.push(c);
            } else if chars.next_if(|(_, next)| *next == quote).is_some() {
                value.push(quote);
            } else {
                self.at = start + i + 1;
                return Ok(value);
            }
        }
        Err(error_at(self.text, self.text.len(), format!("a closing {quote}")))
    }

    fn word(&mut self) -> Token {
        let rest = &self.text[self.at..];
        let len = rest
            .find(|c: char| !(starts_name(c) || c.is_numeric()))
            .unwrap_or(rest.len());
        self.at += len;
        let word = &rest[..len];
        match KEYWORDS.into_iter().find(|keyword| word.eq_ignore_ascii_case(keyword)) {
            Some(keyword) => Token::Keyword(keyword),
            None => Token::Name(word.to_owned()),
        }
    }

    /// Decimal, `0x` hexadecimal, `0` octal, each perhaps with an `L`; or a float, perhaps with `F` or `D`.
    fn number(&mut self) -> Result<Token, SelectorError> {
        let start = self.at;
        let rest = &self.text[start..];
        let end = self.number_end(rest);
        let literal = &rest[..end];
        self.at += end;
        if self.text[self.at..].starts_with(|c: char| starts_name(c) || c.is_numeric()) {
            return Err(error_at(self.text, self.at, "the number to end"));
        }
        let bad = || error_at(self.text, start, "a number");
        let whole = literal.trim_end_matches(['l', 'L']);
        if let Some(hex) = whole.strip_prefix("0x").or_else(|| whole.strip_prefix("0X")) {
            return i64::from_str_radix(hex, 16).map(Token::Long).map_err(|_| bad());
        }
        if literal.contains(['.', 'e', 'E', 'f', 'F', 'd', 'D']) {
            let float = literal.trim_end_matches(['f', 'F', 'd', 'D']);
            return float.parse().map(Token::Double).map_err(|_| bad());
        }
        if whole.len() > 1 && whole.starts_with('0') {
            return i64::from_str_radix(whole, 8).map(Token::Long).map_err(|_| bad());
        }
        match whole.parse() {
            Ok(value) => Ok(Token::Long(value)),
            Err(_) => whole.parse().map(Token::Double).map_err(|_| bad()),
        }
    }

    /// Where the literal at the front of `rest` ends.
    fn number_end(&self, rest: &str) -> usize {
        let bytes = rest.as_bytes();
        let digits = |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        if bytes[0] == b'0' && matches!(bytes.get(1), Some(b'x' | b'X')) {
            let end = 2 + bytes[2..].iter().take_while(|b| b.is_ascii_hexdigit()).count();
            return end + usize::from(matches!(bytes.get(end), Some(b'l' | b'L')));
        }
        let mut end = digits(0);
        let mut float = false;
        if bytes.get(end) == Some(&b'.') {
            float = true;
            end = digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end + 1 + sign);
            if exponent > end + 1 + sign {
                float = true;
                end = exponent;
            }
        }
        let suffix: &[u8] = if float { b"fFdD" } else { b"lLfFdD" };
        end + usize::from(bytes.get(end).is_some_and(|b| suffix.contains(b)))
    }
}

/// Java's identifier start (Jakarta Messaging §3.8.1.1), as near as Rust's tables have it.
fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '$'
}
