//! Inputs as text, for messages and for the files of `regressions/`.

use std::fmt::Write;

/// Sixty-four digits a line, so that a file can be looked at.
pub(crate) fn write(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2 + bytes.len() / 32 + 1);
    for line in bytes.chunks(32) {
        for byte in line {
            // Writing to a String does not fail.
            let _ = write!(out, "{byte:02x}");
        }
        out.push('\n');
    }
    out
}

/// Reads what [`write`] wrote; spaces, line ends and lines that begin with `#` do not count.
pub(crate) fn read(text: &str) -> Option<Vec<u8>> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let digits: Vec<u8> = lines
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(read(&write(&bytes)), Some(bytes));
        assert_eq!(read("# why\n0a 0B\n"), Some(vec![10, 11]));
        assert_eq!(read("0"), None);
        assert_eq!(read("zz"), None);
    }
}
