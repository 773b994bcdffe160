//! As much of AMQP 0.9.1 as a load needs: frames, the handshake, and a call that waits for its answer.
//!
//! ```text
//! kind u8 | channel u16 | size u32 | payload | 0xCE        kind: 1 method, 2 content header, 3 body, 8 heart-beat
//! method  = class u16 | method u16 | arguments
//! header  = class u16 | 0 u16 | body size u64 | flags u16 | properties
//! ```

use anyhow::{Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::wire::Wire;

pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;
/// Bytes before and after a payload.
const FRAME_BYTES: usize = 8;

/// Class and method of what the load sends or awaits.
pub(crate) mod method {
    pub(crate) const START: (u16, u16) = (10, 10);
    pub(crate) const START_OK: (u16, u16) = (10, 11);
    pub(crate) const TUNE: (u16, u16) = (10, 30);
    pub(crate) const TUNE_OK: (u16, u16) = (10, 31);
    pub(crate) const OPEN: (u16, u16) = (10, 40);
    pub(crate) const OPEN_OK: (u16, u16) = (10, 41);
    pub(crate) const CLOSE: (u16, u16) = (10, 50);
    pub(crate) const CHANNEL_OPEN: (u16, u16) = (20, 10);
    pub(crate) const CHANNEL_OPEN_OK: (u16, u16) = (20, 11);
    pub(crate) const CHANNEL_CLOSE: (u16, u16) = (20, 40);
    pub(crate) const QUEUE_DECLARE: (u16, u16) = (50, 10);
    pub(crate) const QUEUE_DECLARE_OK: (u16, u16) = (50, 11);
    pub(crate) const QUEUE_DELETE: (u16, u16) = (50, 40);
    pub(crate) const QUEUE_DELETE_OK: (u16, u16) = (50, 41);
    pub(crate) const QOS: (u16, u16) = (60, 10);
    pub(crate) const QOS_OK: (u16, u16) = (60, 11);
    pub(crate) const CONSUME: (u16, u16) = (60, 20);
    pub(crate) const CONSUME_OK: (u16, u16) = (60, 21);
    pub(crate) const PUBLISH: (u16, u16) = (60, 40);
    pub(crate) const DELIVER: (u16, u16) = (60, 60);
    pub(crate) const ACK: (u16, u16) = (60, 80);
    pub(crate) const NACK: (u16, u16) = (60, 120);
    pub(crate) const CONFIRM_SELECT: (u16, u16) = (85, 10);
    pub(crate) const CONFIRM_SELECT_OK: (u16, u16) = (85, 11);
}

/// One frame as it came.
#[derive(Debug)]
pub(crate) struct AmqpFrame {
    pub(crate) kind: u8,
    pub(crate) payload: Bytes,
}

impl AmqpFrame {
    /// Class and method, with the arguments left over.
    pub(crate) fn method(mut self) -> Result<((u16, u16), Bytes)> {
        ensure!(
            self.kind == METHOD && self.payload.len() >= 4,
            "a method was to come: {self:?}"
        );
        let name = (self.payload.get_u16(), self.payload.get_u16());
        Ok((name, self.payload))
    }
}

/// Takes one whole frame, if there is one.
pub(crate) fn take_frame(input: &mut BytesMut) -> Result<Option<AmqpFrame>> {
    if input.len() < FRAME_BYTES {
        return Ok(None);
    }
    let size = u32::from_be_bytes([input[3], input[4], input[5], input[6]]) as usize;
    if input.len() < size + FRAME_BYTES {
        return Ok(None);
    }
    let kind = input[0];
    let mut payload = input.split_to(size + FRAME_BYTES).freeze();
    ensure!(payload[size + FRAME_BYTES - 1] == FRAME_END, "a frame has no end");
    payload.advance(FRAME_BYTES - 1);
    payload.truncate(size);
    Ok(Some(AmqpFrame { kind, payload }))
}

/// Appends a frame whose payload `fill` writes.
pub(crate) fn put_frame(out: &mut BytesMut, kind: u8, channel: u16, fill: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    out.put_u16(channel);
    let size_at = out.len();
    out.put_u32(0);
    fill(out);
    let size = (out.len() - size_at - 4) as u32;
    out[size_at..size_at + 4].copy_from_slice(&size.to_be_bytes());
    out.put_u8(FRAME_END);
}

/// Appends a method on the load's one channel.
pub(crate) fn put_method(out: &mut BytesMut, name: (u16, u16), arguments: impl FnOnce(&mut BytesMut)) {
    // Methods of the connection's own class go by channel 0.
    let channel = u16::from(name.0 != 10);
    put_frame(out, METHOD, channel, |out| {
        out.put_u16(name.0);
        out.put_u16(name.1);
        arguments(out);
    });
}

/// A string of at most 255 bytes; the load's own names are shorter.
pub(crate) fn put_short(out: &mut BytesMut, text: &str) {
    let text = &text.as_bytes()[..text.len().min(255)];
    out.put_u8(text.len() as u8);
    out.put_slice(text);
}

fn put_long(out: &mut BytesMut, text: &[u8]) {
    out.put_u32(text.len() as u32);
    out.put_slice(text);
}

/// Skips a short string.
pub(crate) fn skip_short(from: &mut Bytes) -> Result<()> {
    ensure!(!from.is_empty(), "a string was to come");
    let length = from.get_u8() as usize;
    ensure!(from.len() >= length, "a string is cut off");
    from.advance(length);
    Ok(())
}

/// A connection with one open channel.
#[derive(Debug)]
pub(crate) struct AmqpConnection {
    pub(crate) wire: Wire,
}

impl AmqpConnection {
    /// Connects, logs in as `guest` and opens channel 1; no heart-beats.
    pub(crate) async fn open(address: &str) -> Result<Self> {
        let mut wire = Wire::connect(address).await?;
        wire.output.put_slice(b"AMQP\0\0\x09\x01");
        let mut connection = Self { wire };
        connection.answer(method::START).await?;
        let out = &mut connection.wire.output;
        put_method(out, method::START_OK, |out| {
            // One capability: that a consumer's end is told; nothing else is used.
            out.put_u32(0);
            put_short(out, "PLAIN");
            put_long(out, b"\0guest\0guest");
            put_short(out, "en_US");
        });
        let mut tune = connection.answer(method::TUNE).await?;
        ensure!(tune.len() >= 8, "TUNE is cut off");
        let (channels, frame_bytes_max) = (tune.get_u16(), tune.get_u32());
        let out = &mut connection.wire.output;
        put_method(out, method::TUNE_OK, |out| {
            out.put_u16(channels);
            out.put_u32(frame_bytes_max);
            out.put_u16(0);
        });
        connection
            .call(method::OPEN, method::OPEN_OK, |out| {
                put_short(out, "/");
                put_short(out, "");
                out.put_u8(0);
            })
            .await?;
        connection
            .call(method::CHANNEL_OPEN, method::CHANNEL_OPEN_OK, |out| put_short(out, ""))
            .await?;
        Ok(connection)
    }

    /// Sends a method and waits for its answer, whose arguments it returns.
    pub(crate) async fn call(
        &mut self,
        name: (u16, u16),
        answer: (u16, u16),
        arguments: impl FnOnce(&mut BytesMut),
    ) -> Result<Bytes> {
        put_method(&mut self.wire.output, name, arguments);
        self.answer(answer).await
    }

    /// Declares a durable quorum queue with `replicas` members.
    pub(crate) async fn declare_quorum_queue(&mut self, name: &str, replicas: u32) -> Result<()> {
        let declare = |out: &mut BytesMut| {
            out.put_u16(0);
            put_short(out, name);
            // Durable; not passive, exclusive, deleted by itself, or without an answer.
            out.put_u8(0b0_0010);
            let mut table = BytesMut::new();
            put_short(&mut table, "x-queue-type");
            table.put_u8(b'S');
            put_long(&mut table, b"quorum");
            put_short(&mut table, "x-quorum-initial-group-size");
            table.put_u8(b'I');
            table.put_u32(replicas);
            put_long(out, &table);
        };
        self.call(method::QUEUE_DECLARE, method::QUEUE_DECLARE_OK, declare)
            .await?;
        Ok(())
    }

    /// Deletes a queue with all that is in it.
    pub(crate) async fn delete_queue(&mut self, name: &str) -> Result<()> {
        let delete = |out: &mut BytesMut| {
            out.put_u16(0);
            put_short(out, name);
            out.put_u8(0);
        };
        self.call(method::QUEUE_DELETE, method::QUEUE_DELETE_OK, delete).await?;
        Ok(())
    }

    async fn answer(&mut self, wanted: (u16, u16)) -> Result<Bytes> {
        loop {
            let Some(frame) = take_frame(&mut self.wire.input)? else {
                self.wire.fill().await?;
                continue;
            };
            if frame.kind != METHOD {
                continue;
            }
            let (name, arguments) = frame.method()?;
            if name == wanted {
                return Ok(arguments);
            }
            check_not_closed(name, &arguments)?;
        }
    }
}

/// That the broker has not ended the connection or the channel by this method.
pub(crate) fn check_not_closed(name: (u16, u16), arguments: &[u8]) -> Result<()> {
    if name == method::CLOSE || name == method::CHANNEL_CLOSE {
        let text = String::from_utf8_lossy(arguments.get(3..).unwrap_or(&[])).into_owned();
        bail!("the broker has closed: {text}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_only_when_it_is_whole() {
        let mut out = BytesMut::new();
        put_method(&mut out, method::ACK, |out| out.put_u64(7));
        let whole = out.clone();
        for end in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..end]);
            assert!(take_frame(&mut part).unwrap().is_none(), "{end} bytes");
        }
        let frame = take_frame(&mut out).unwrap().expect("a whole frame");
        let (name, mut arguments) = frame.method().unwrap();
        assert_eq!((name, arguments.get_u64(), out.len()), (method::ACK, 7, 0));
    }

    #[test]
    fn what_has_no_end_is_refused() {
        let mut out = BytesMut::new();
        put_method(&mut out, method::QOS_OK, |_| {});
        let last = out.len() - 1;
        out[last] = 0;
        assert!(take_frame(&mut out).is_err());
    }
}
