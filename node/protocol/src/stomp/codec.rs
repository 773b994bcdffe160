//! Bytes to frames and back.
//!
//! ```text
//! COMMAND EOL  (name ":" value EOL)*  EOL  body NUL EOL*
//! ```
//!
//! EOL is LF, from 1.2 on also CR LF. Between frames any number of EOLs may stand: heart-beats. The body reaches to the
//! first NUL or is as long as `content-length` says.

use bytes::{Buf, BytesMut};

use super::{Command, Frame, Headers, StompError, StompLimits, Version};
use crate::Output;

mod writer;

pub(super) use writer::FrameWriter;

/// Longest body before [`Decoder::open`], in bytes: a stranger gets no more memory.
const STRANGER_BODY_BYTES_MAX: usize = 64 << 10;

/// Longest head before that, in bytes.
const STRANGER_HEAD_BYTES_MAX: usize = 32 << 10;

/// Longest piece of an unknown command that is told, in characters.
const SHOWN_CHARS_MAX: usize = 32;

/// Cuts frames off a stream of bytes. It takes complete lines as they come and remembers how far it has looked for the
/// end of the rest, so no byte is looked at twice however small the pieces are.
#[derive(Debug)]
pub struct Decoder {
    limits: StompLimits,
    version: Version,
    body_bytes_max: usize,
    head_bytes_max: usize,
    command: Option<Command>,
    headers: Headers,
    head_bytes: usize,
    /// Set once the head is complete.
    body: Option<Body>,
    /// Bytes at the front of the input that are known not to hold the end that is looked for.
    scanned: usize,
}

#[derive(Debug, Clone, Copy)]
enum Body {
    Length(usize),
    UpToNul,
}

impl Decoder {
    /// A decoder for the first frames of a connection: version 1.0 and small bodies, until [`Decoder::open`].
    pub fn new(limits: StompLimits) -> Self {
        let body_bytes_max = limits.frame_bytes_max.min(STRANGER_BODY_BYTES_MAX);
        let head_bytes_max = limits.head_bytes_max.min(STRANGER_HEAD_BYTES_MAX);
        Self {
            limits,
            version: Version::V1_0,
            body_bytes_max,
            head_bytes_max,
            command: None,
            headers: Headers::default(),
            head_bytes: 0,
            body: None,
            scanned: 0,
        }
    }

    /// From the next frame on: this version, and bodies as large as the limits allow. Called between frames.
    pub fn open(&mut self, version: Version) {
        self.version = version;
        self.body_bytes_max = self.limits.frame_bytes_max;
        self.head_bytes_max = self.limits.head_bytes_max;
    }

    /// Bytes of the head that has been taken off the input, of a frame that is not complete.
    pub fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// The next frame, or `None` where the input does not hold the whole of it yet. What is left in `input` must be
    /// handed in again, unchanged, with more bytes behind it.
    ///
    /// # Errors
    /// On a breach of the protocol or of a limit. The stream cannot be read any further then.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, StompError> {
        while self.body.is_none() {
            let unseen = &input[self.scanned..];
            match unseen.iter().position(|b| matches!(b, b'\n' | 0)) {
                Some(at) if unseen[at] == 0 => return Err(StompError::NulInHead),
                Some(at) => {
                    let line_bytes = self.scanned + at;
                    self.line(&input[..line_bytes])?;
                    input.advance(line_bytes + 1);
                    self.scanned = 0;
                }
                None => {
                    self.scanned = input.len();
                    self.check_line(self.scanned)?;
                    return Ok(None);
                }
            }
        }
        self.end(input)
    }

    fn check_line(&self, line_bytes: usize) -> Result<(), StompError> {
        if line_bytes > self.limits.header_bytes_max {
            return Err(StompError::HeaderTooLong(self.limits.header_bytes_max));
        }
        if self.head_bytes + line_bytes > self.head_bytes_max {
            return Err(StompError::HeadTooLong(self.head_bytes_max));
        }
        Ok(())
    }

    /// One line of the head, without its LF.
    fn line(&mut self, line: &[u8]) -> Result<(), StompError> {
        let without_cr = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(command) = self.command else {
            if without_cr.is_empty() {
                return Ok(());
            }
            self.check_line(line.len())?;
            self.command = Some(Command::from_bytes(without_cr.trim_ascii()).ok_or_else(|| unknown(without_cr))?);
            return Ok(());
        };
        if without_cr.is_empty() {
            self.body = Some(self.body_end()?);
            return Ok(());
        }
        self.check_line(line.len())?;
        self.head_bytes += line.len() + 1;
        if self.headers.len() == self.limits.headers_max {
            return Err(StompError::TooManyHeaders(self.limits.headers_max));
        }
        // In 1.1 a CR is a character like any other; CONNECT is read as 1.0.
        let version = if command.is_handshake() {
            Version::V1_0
        } else {
            self.version
        };
        let line = if version == Version::V1_1 { line } else { without_cr };
        let line = std::str::from_utf8(line).map_err(|_| StompError::NotUtf8)?;
        let (name, value) = line.split_once(':').ok_or(StompError::NoHeaderName)?;
        if name.is_empty() {
            return Err(StompError::NoHeaderName);
        }
        // ActiveMQ trims in 1.0 (`StompWireFormat.parseHeaders`): old clients put a space after the colon.
        let value = if version == Version::V1_0 { value.trim() } else { value };
        self.headers.add(unescape(name, version)?, unescape(value, version)?);
        Ok(())
    }

    /// How the body ends, once the head is known.
    fn body_end(&self) -> Result<Body, StompError> {
        let Some(text) = self.headers.get("content-length") else {
            return Ok(Body::UpToNul);
        };
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(StompError::BadContentLength);
        }
        let len: usize = text.parse().map_err(|_| StompError::BodyTooLong(self.body_bytes_max))?;
        if len > self.body_bytes_max {
            return Err(StompError::BodyTooLong(self.body_bytes_max));
        }
        Ok(Body::Length(len))
    }

    /// The frame, if its body is complete.
    fn end(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, StompError> {
        let len = match self.body {
            Some(Body::Length(len)) => match input.get(len) {
                None => return Ok(None),
                Some(0) => len,
                Some(_) => return Err(StompError::MissingNul(len)),
            },
            _ => {
                let found = input[self.scanned..]
                    .iter()
                    .position(|b| *b == 0)
                    .map(|at| self.scanned + at);
                if found.unwrap_or(input.len()) > self.body_bytes_max {
                    return Err(StompError::BodyTooLong(self.body_bytes_max));
                }
                let Some(len) = found else {
                    self.scanned = input.len();
                    return Ok(None);
                };
                len
            }
        };
        let body = input.split_to(len).freeze();
        input.advance(1);
        self.scanned = 0;
        self.head_bytes = 0;
        self.body = None;
        let headers = std::mem::take(&mut self.headers);
        Ok(self.command.take().map(|command| Frame { command, headers, body }))
    }
}

/// Appends a frame to what is to be written. A large body shares its memory. A body that holds a NUL gets a
/// `content-length` if the frame has none.
pub fn encode(frame: &Frame, version: Version, out: &mut Output) {
    let mut writer = FrameWriter::new(frame.command, version, out);
    for (name, value) in frame.headers.iter() {
        writer.header(name, value);
    }
    if frame.body.contains(&0) && frame.headers.get("content-length").is_none() {
        writer.number("content-length", frame.body.len());
    }
    writer.end(frame.body.clone());
}

fn unknown(command: &[u8]) -> StompError {
    let text = String::from_utf8_lossy(&command[..command.len().min(4 * SHOWN_CHARS_MAX)]);
    StompError::UnknownCommand(
        text.chars()
            .take(SHOWN_CHARS_MAX)
            .flat_map(char::escape_default)
            .collect(),
    )
}

/// STOMP 1.2, "Value Encoding". What 1.1 does not define stays as it is, as in ActiveMQ; 1.2 demands an error.
fn unescape(text: &str, version: Version) -> Result<String, StompError> {
    if version == Version::V1_0 || !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match (chars.next(), version) {
            (Some('n'), _) => plain.push('\n'),
            (Some('c'), _) => plain.push(':'),
            (Some('\\'), _) => plain.push('\\'),
            (Some('r'), Version::V1_2) => plain.push('\r'),
            (_, Version::V1_2) => return Err(StompError::BadEscape),
            (other, _) => {
                plain.push('\\');
                plain.extend(other);
            }
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests;
