//! Writes one frame header by header, straight into the output.

use std::fmt::{Display, Write};

use bytes::Bytes;

use crate::{
    Output,
    stomp::{Command, Version},
};

/// A frame whose head is being written.
#[derive(Debug)]
pub(crate) struct FrameWriter<'a> {
    out: &'a mut Output,
    version: Version,
}

impl<'a> FrameWriter<'a> {
    /// Begins a frame.
    pub(crate) fn new(command: Command, version: Version, out: &'a mut Output) -> Self {
        out.put_slice(command.as_str().as_bytes());
        out.put_slice(b"\n");
        Self {
            out,
            version: if command.is_handshake() { Version::V1_0 } else { version },
        }
    }

    /// Adds a header.
    pub(crate) fn header(&mut self, name: &str, value: &str) {
        self.escaped(name, true);
        self.out.put_slice(b":");
        self.escaped(value, false);
        self.out.put_slice(b"\n");
    }

    /// Adds a header whose value needs no escape.
    pub(crate) fn number(&mut self, name: &str, value: impl Display) {
        self.out.put_slice(name.as_bytes());
        // Writing to memory cannot fail.
        let _ = writeln!(self.out.tail(), ":{value}");
    }

    /// Ends the frame. ActiveMQ has a line end behind each NUL (`StompWireFormat.END_OF_FRAME`).
    pub(crate) fn end(self, body: Bytes) {
        self.out.put_slice(b"\n");
        self.out.put_bytes(body);
        self.out.put_slice(b"\0\n");
    }

    /// Without escapes a line end or, in a name, a colon would make another header out of a value: a stranger's
    /// property could forge one. There, and for NUL, which no version can escape, a blank stands instead.
    fn escaped(&mut self, text: &str, is_name: bool) {
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|b| matches!(b, b'\\' | b'\n' | b'\r' | b':' | 0)) {
            self.out.put_slice(&rest[..at]);
            let replacement: &[u8] = match (rest[at], self.version) {
                (0, _) | (b'\n' | b'\r', Version::V1_0) => b" ",
                (b':', Version::V1_0) if is_name => b" ",
                (other, Version::V1_0) => &[other],
                (b'\r', Version::V1_1) => b"\r",
                (b'\r', _) => b"\\r",
                (b'\n', _) => b"\\n",
                (b':', _) => b"\\c",
                (_, _) => b"\\\\",
            };
            self.out.put_slice(replacement);
            rest = &rest[at + 1..];
        }
        self.out.put_slice(rest);
    }
}
