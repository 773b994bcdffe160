//! As much of STOMP 1.2 as a load needs: frames as they come, and a connection that has logged in.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::wire::Wire;

/// One frame as it came; headers are looked up when they are asked for.
#[derive(Debug)]
pub(crate) struct StompFrame {
    /// Command and headers, each line with its end.
    head: Bytes,
    pub(crate) body: Bytes,
}

impl StompFrame {
    pub(crate) fn command(&self) -> &[u8] {
        lines(&self.head).next().unwrap_or(b"")
    }

    /// A header's first value, still with its escapes.
    pub(crate) fn header(&self, name: &[u8]) -> Option<&[u8]> {
        find_header(&self.head, name)
    }

    /// What a broker that refused something says about it.
    pub(crate) fn refusal(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        format!("{} {}", head.replace('\n', " "), String::from_utf8_lossy(&self.body))
    }
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn find_header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    lines(head).skip(1).find_map(|line| {
        let value = line.strip_prefix(name)?;
        value.strip_prefix(b":")
    })
}

/// Takes one frame, if a whole one has come.
pub(crate) fn take_frame(input: &mut BytesMut) -> Result<Option<StompFrame>> {
    // Line ends between frames are heart-beats, or the brokers' taste.
    let beats = input.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
    input.advance(beats);
    let Some(head_bytes) = head_bytes(input) else {
        return Ok(None);
    };
    let head = &input[..head_bytes];
    let body_bytes = match find_header(head, b"content-length") {
        Some(text) => std::str::from_utf8(text)?
            .trim()
            .parse()
            .context("content-length is no number")?,
        None => match input[head_bytes..].iter().position(|byte| *byte == 0) {
            Some(length) => length,
            None => return Ok(None),
        },
    };
    if input.len() <= head_bytes + body_bytes {
        return Ok(None);
    }
    ensure!(input[head_bytes + body_bytes] == 0, "a frame has no end");
    let mut whole = input.split_to(head_bytes + body_bytes + 1).freeze();
    let head = whole.split_to(head_bytes);
    whole.truncate(body_bytes);
    Ok(Some(StompFrame { head, body: whole }))
}

/// Bytes up to and with the empty line.
fn head_bytes(input: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let end = at + input[at..].iter().position(|byte| *byte == b'\n')?;
        if at > 0 && (end == at || &input[at..end] == b"\r") {
            return Some(end + 1);
        }
        at = end + 1;
    }
}

/// A connection that has logged in, without heart-beats.
#[derive(Debug)]
pub(crate) struct StompConnection {
    pub(crate) wire: Wire,
}

impl StompConnection {
    pub(crate) async fn open(address: &str) -> Result<Self> {
        let mut wire = Wire::connect(address).await?;
        wire.output
            .put_slice(b"CONNECT\naccept-version:1.2\nhost:localhost\nheart-beat:0,0\n\n\0");
        let mut connection = Self { wire };
        let answer = connection.next().await?;
        ensure!(answer.command() == b"CONNECTED", "{}", answer.refusal());
        Ok(connection)
    }

    /// Sends a frame that asks for the receipt `done` and waits for it.
    pub(crate) async fn call(&mut self, frame: &[u8]) -> Result<()> {
        self.wire.output.put_slice(frame);
        loop {
            let answer = self.next().await?;
            if answer.command() == b"RECEIPT" {
                return Ok(());
            }
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// Also where it is an ERROR.
    pub(crate) async fn next(&mut self) -> Result<StompFrame> {
        loop {
            if let Some(frame) = take_frame(&mut self.wire.input)? {
                if frame.command() == b"ERROR" {
                    bail!("{}", frame.refusal());
                }
                return Ok(frame);
            }
            self.wire.fill().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_only_when_they_are_whole() {
        let text = b"\n\r\nMESSAGE\nack:7\ncontent-length:3\n\nx\0y\0\nRECEIPT\r\nreceipt-id:5\r\n\r\n\0";
        let mut input = BytesMut::new();
        let mut seen = Vec::new();
        for byte in text {
            input.put_u8(*byte);
            while let Some(frame) = take_frame(&mut input).unwrap() {
                let id = frame.header(b"ack").or(frame.header(b"receipt-id")).unwrap().to_vec();
                seen.push((frame.command().to_vec(), id, frame.body));
            }
        }
        let expected = [
            (b"MESSAGE".to_vec(), b"7".to_vec(), Bytes::from_static(b"x\0y")),
            (b"RECEIPT".to_vec(), b"5".to_vec(), Bytes::new()),
        ];
        assert_eq!(seen, expected);
    }
}
