//! Passwords come in without being shown: from a terminal without echo, or from a pipe.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A password that nobody can check yet: on a terminal it is asked for twice.
pub(crate) fn new_password() -> io::Result<String> {
    if !io::stdin().is_terminal() {
        return line(&mut io::stdin().lock());
    }
    let first = ask("Password: ")?;
    if first == ask("Once more: ")? {
        Ok(first)
    } else {
        Err(io::Error::other("the two passwords differ"))
    }
}

/// The first line of a file; `-` is standard input.
pub(crate) fn password_file(path: &Path) -> io::Result<String> {
    if path == Path::new("-") {
        return line(&mut io::stdin().lock());
    }
    line(&mut io::BufReader::new(std::fs::File::open(path)?))
}

fn ask(prompt: &str) -> io::Result<String> {
    let silent = Silent::begin()?;
    eprint!("{prompt}");
    io::stderr().flush()?;
    let read = line(&mut io::stdin().lock());
    drop(silent);
    eprintln!();
    read
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    io::Read::take(from, LINE_BYTES_MAX).read_line(&mut text)?;
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(text)
}

/// While it lives, the terminal does not show what is typed.
struct Silent(Termios);

impl Silent {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes &= !LocalModes::ECHO;
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Without a terminal there is nothing to be put right.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_it_ends_and_keeps_its_spaces() {
        for (text, expected) in [
            ("pw\n", "pw"),
            ("pw\r\n", "pw"),
            ("pw", "pw"),
            (" p w \nx\n", " p w "),
            ("", ""),
            ("\npw", ""),
        ] {
            assert_eq!(line(&mut text.as_bytes()).unwrap(), expected, "{text:?}");
        }
    }
}
