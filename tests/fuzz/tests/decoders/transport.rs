//! Frames over a byte stream, as they come in pieces of any size.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use ferrymq_fuzz::{Rng, Target};
use ferrymq_transport::FrameReader;
use tokio::io::{AsyncRead, ReadBuf};

/// Gives so many bytes a read at most.
struct Pieces<'a> {
    rest: &'a [u8],
    rng: Rng,
    longest: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let longest = self.longest;
        let len = (1 + self.rng.below(longest)).min(buf.remaining()).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(len);
        buf.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// Kinds and payloads up to the end or the first error.
fn frames(input: &[u8], longest: usize) -> (Vec<(u8, Vec<u8>)>, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let pieces = Pieces {
        rest: input,
        rng: Rng::new(input.len() as u64),
        longest,
    };
    let mut reader = FrameReader::with_limit(pieces, 16 << 10);
    let mut frames = Vec::new();
    runtime.block_on(async {
        loop {
            match reader.read().await {
                Ok(Some((kind, payload))) => frames.push((kind, payload.to_vec())),
                Ok(None) => return (std::mem::take(&mut frames), "whole".to_owned()),
                Err(error) => {
                    return (
                        std::mem::take(&mut frames),
                        error.to_string().chars().take(20).collect(),
                    );
                }
            }
        }
    })
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes()[..], &[kind], payload].concat()
}

#[test]
fn fuzz_transport_frames() {
    let many: Vec<u8> = (0..20)
        .flat_map(|kind| frame(kind, &vec![kind; usize::from(kind) * 31]))
        .collect();
    Target::new("transport-frames")
        .seeds([frame(1, b""), frame(255, b"payload"), frame(3, &[7; 5000]), many])
        .words([&b"\0\x40\0\0\x01"[..], b"\0\0\0\0\x02", b"\xff\xff\xff\xff\x01"])
        .allocates(64, 2 << 20)
        .rounds(4_000)
        .run(|input| {
            let whole = frames(input, usize::MAX - 1);
            assert_eq!(frames(input, 700), whole, "cut in pieces");
            let again: Vec<u8> = whole
                .0
                .iter()
                .flat_map(|(kind, payload)| frame(*kind, payload))
                .collect();
            assert_eq!(again, input[..again.len()], "what was read is not what was sent");
            format!("{} {}", whole.0.len().min(5), whole.1)
        });
}
