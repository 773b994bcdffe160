//! Which client language a connection speaks, told from its first bytes, for the one port that serves them all.

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniff {
    /// Too few bytes to tell.
    NeedMore,
    /// STOMP: a CONNECT or STOMP frame, perhaps behind line ends.
    Stomp,
    /// None that this crate speaks.
    Unknown,
}

/// Line ends that a STOMP client may send ahead of its first frame, in bytes.
const LEADING_EOL_BYTES_MAX: usize = 64;

/// Tells the language from the first bytes, which stay where they are.
pub fn sniff(bytes: &[u8]) -> Sniff {
    let start = bytes
        .iter()
        .position(|b| !matches!(b, b'\r' | b'\n'))
        .unwrap_or(bytes.len());
    if start > LEADING_EOL_BYTES_MAX {
        return Sniff::Unknown;
    }
    let word = &bytes[start..];
    for command in [&b"CONNECT"[..], b"STOMP"] {
        let shared = word.len().min(command.len());
        if word[..shared] != command[..shared] {
            continue;
        }
        return match word.get(command.len()) {
            Some(b'\r' | b'\n') => Sniff::Stomp,
            Some(_) => Sniff::Unknown,
            None => Sniff::NeedMore,
        };
    }
    Sniff::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_stomp_from_the_rest() {
        let table: &[(&[u8], Sniff)] = &[
            (b"", Sniff::NeedMore),
            (b"\n\r\n", Sniff::NeedMore),
            (b"CONN", Sniff::NeedMore),
            (b"CONNECT", Sniff::NeedMore),
            (b"CONNECT\n", Sniff::Stomp),
            (b"\nSTOMP\r", Sniff::Stomp),
            (b"CONNECTED", Sniff::Unknown),
            (b"AMQP\0\x01\0\0", Sniff::Unknown),
            (b"\x10\x0c\0\x04MQTT", Sniff::Unknown),
            (b"\0\0\0\xf0\x01ActiveMQ", Sniff::Unknown),
            (&[b'\n'; 100], Sniff::Unknown),
        ];
        for (bytes, expected) in table {
            assert_eq!(sniff(bytes), *expected, "{bytes:?}");
        }
    }
}
