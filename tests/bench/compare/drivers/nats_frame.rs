//! As much of NATS's text protocol as a load needs: a connection, and messages with their subjects.
//!
//! ```text
//! MSG subject sid [reply] bytes\r\npayload\r\n
//! HMSG subject sid [reply] header-bytes bytes\r\nheader payload\r\n
//! PING\r\n   PONG\r\n   +OK\r\n   -ERR 'text'\r\n   INFO {…}\r\n
//! ```

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde_json::Value;

use super::wire::Wire;

/// One message as it came.
#[derive(Debug)]
pub(crate) struct NatsMessage {
    /// Of the line: subject, sid, reply and lengths.
    line: Bytes,
    has_reply: bool,
    /// The headers, empty where there are none; a status such as `NATS/1.0 408 …` among them.
    pub(crate) header: Bytes,
    pub(crate) payload: Bytes,
}

impl NatsMessage {
    pub(crate) fn subject(&self) -> &[u8] {
        self.word(0)
    }

    /// Where an answer goes, empty where none is awaited.
    pub(crate) fn reply(&self) -> &[u8] {
        if self.has_reply { self.word(2) } else { b"" }
    }

    /// The number of a status, such as 408 or 503.
    pub(crate) fn status(&self) -> Option<u16> {
        let text = std::str::from_utf8(self.header.get(9..12)?).ok()?;
        text.parse().ok()
    }

    fn word(&self, at: usize) -> &[u8] {
        self.line.split(|byte| *byte == b' ').nth(at).unwrap_or(b"")
    }
}

/// Takes one message, if a whole one has come; answers PING on the way.
pub(crate) fn take_message(wire: &mut Wire) -> Result<Option<NatsMessage>> {
    loop {
        let Some(end) = wire.input.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = &wire.input[..end.saturating_sub(1)];
        let (has_header, words) = match line {
            [b'M', b'S', b'G', b' ', rest @ ..] => (false, rest),
            [b'H', b'M', b'S', b'G', b' ', rest @ ..] => (true, rest),
            other => {
                if other.starts_with(b"PING") {
                    wire.output.put_slice(b"PONG\r\n");
                } else if other.starts_with(b"-ERR") {
                    bail!("the broker says {}", String::from_utf8_lossy(other));
                }
                wire.input.advance(end + 1);
                continue;
            }
        };
        let start = line.len() - words.len();
        let count = words.split(|byte| *byte == b' ').count();
        let mut lengths = words.rsplit(|byte| *byte == b' ').map(number);
        let total = lengths.next().flatten().context("a message has no length")?;
        let header_bytes = if has_header {
            lengths.next().flatten().context("a header has no length")?
        } else {
            0
        };
        ensure!(header_bytes <= total, "a header is longer than its message");
        // The line, the payload and the end after each.
        if wire.input.len() < end + 1 + total + 2 {
            return Ok(None);
        }
        let mut whole = wire.input.split_to(end + 1 + total + 2).freeze();
        let line = whole.slice(start..end - 1);
        whole.advance(end + 1);
        whole.truncate(total);
        let header = whole.split_to(header_bytes);
        return Ok(Some(NatsMessage {
            line,
            has_reply: count == 4 + usize::from(has_header),
            header,
            payload: whole,
        }));
    }
}

/// The decimal number that these bytes are.
pub(crate) fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Appends a message that asks for an answer.
pub(crate) fn put_message(out: &mut BytesMut, subject: &[u8], reply: &[u8], payload: &[u8]) {
    out.put_slice(b"PUB ");
    out.put_slice(subject);
    out.put_u8(b' ');
    if !reply.is_empty() {
        out.put_slice(reply);
        out.put_u8(b' ');
    }
    put_decimal(out, payload.len() as u64);
    out.put_slice(b"\r\n");
    out.put_slice(payload);
    out.put_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub(crate) fn put_decimal(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// A connection that has an inbox of its own.
#[derive(Debug)]
pub(crate) struct NatsConnection {
    pub(crate) wire: Wire,
    /// `_INBOX.name.`; a word of the caller's follows.
    pub(crate) inbox: Vec<u8>,
}

impl NatsConnection {
    /// Connects and subscribes to the inbox, whose name must be the connection's own.
    pub(crate) async fn open(address: &str, name: &str) -> Result<Self> {
        let mut wire = Wire::connect(address).await?;
        let inbox = format!("_INBOX.{name}.");
        wire.output.put_slice(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"lang\":\"rust\",\
              \"version\":\"1\",\"protocol\":1}\r\n",
        );
        wire.output.put_slice(format!("SUB {inbox}* 1\r\n").as_bytes());
        Ok(Self {
            wire,
            inbox: inbox.into_bytes(),
        })
    }

    /// Sends a request of JetStream's interface and returns its answer.
    ///
    /// # Errors
    /// Where the answer is an error, in the broker's words.
    pub(crate) async fn request(&mut self, subject: &str, body: &Value) -> Result<Value> {
        let reply = [&self.inbox[..], b"call"].concat();
        put_message(
            &mut self.wire.output,
            subject.as_bytes(),
            &reply,
            body.to_string().as_bytes(),
        );
        loop {
            match take_message(&mut self.wire)? {
                Some(message) if message.subject() == reply => {
                    if let Some(status) = message.status() {
                        bail!("{subject}: status {status}");
                    }
                    let answer: Value = serde_json::from_slice(&message.payload)?;
                    if let Some(error) = answer.get("error") {
                        bail!("{subject}: {error}");
                    }
                    return Ok(answer);
                }
                Some(_) => {}
                None => self.wire.fill().await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    #[test]
    fn numbers_are_written_as_people_write_them() {
        for number in [0, 7, 10, 1024, u64::MAX] {
            let mut out = BytesMut::new();
            put_decimal(&mut out, number);
            assert_eq!(out, number.to_string());
        }
    }

    #[tokio::test]
    async fn messages_are_taken_from_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut wire = Wire::connect(&listener.local_addr().unwrap().to_string())
            .await
            .unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let text = b"INFO {}\r\nPING\r\nMSG a.b 1 re.ply 3\r\nx\ny\r\nHMSG c 2 16 16\r\nNATS/1.0 408\r\n\r\n\r\nMSG d 1 0\r\n\r\n";
        let mut seen = Vec::new();
        for byte in text {
            server.write_all(&[*byte]).await.unwrap();
            wire.fill().await.unwrap();
            while let Some(message) = take_message(&mut wire).unwrap() {
                let words = (message.subject().to_vec(), message.reply().to_vec());
                seen.push((words, message.status(), message.payload));
            }
        }
        let of = |subject: &[u8], reply: &[u8]| (subject.to_vec(), reply.to_vec());
        let expected = [
            (of(b"a.b", b"re.ply"), None, Bytes::from_static(b"x\ny")),
            (of(b"c", b""), Some(408), Bytes::new()),
            (of(b"d", b""), None, Bytes::new()),
        ];
        assert_eq!(seen, expected);
    }
}
