//! What two masters say to each other on a link.

use bytes::Bytes;
use ferrymq_broker::{Carried, DeadLetter, DemandVersion, Refused};
use ferrymq_forwarding::{
    frame::{Assembler, Demand, Frame, Held, Hello, Transfer},
    row::{Key, Row},
};
use ferrymq_fuzz::Target;
use ferrymq_message::{Destination, DestinationKind};

fn every_frame() -> Vec<Frame> {
    let row = Row {
        key: Key::of(&Destination::new(DestinationKind::TempQueue, "ID:x").unwrap(), 3),
        name: String::new(),
        path: vec![1, 2, 3],
        consumers: 4,
        credit: 5,
        selectors: vec![None, Some("a = 'ü'".to_owned())],
        durable: true,
        linked: false,
        version: DemandVersion::default(),
    };
    let refused = vec![Refused { position: 1, reason: 2 }];
    let carried = Carried {
        redeliveries: 7,
        redelivered: true,
        hops: 3,
        dead_letter: Some(DeadLetter {
            original: Destination::topic("T"),
            reason: "expired".to_owned(),
        }),
        message: Bytes::from_static(b"a message's stored form"),
    };
    vec![
        Frame::Hello(Hello {
            version: 1,
            group: "north".to_owned(),
            group_id: 1,
            epoch: 2,
            lineage: 4,
            node: 3,
        }),
        Frame::Held(Held {
            epoch: 1,
            floor: 2,
            next: 3,
        }),
        Frame::Redirect {
            endpoints: vec!["a:1".to_owned(), "[::1]:2".to_owned()],
        },
        Frame::Demand(Demand {
            snapshot: true,
            last: true,
            rows: vec![Row::presence(1, "north"), row.clone()],
            gone: vec![Key::presence(9)],
        }),
        Frame::Pulse {
            rows: 1,
            hash: u64::MAX,
            floor: 3,
            time_ms: 4,
        },
        Frame::Resync,
        Frame::Accepted {
            transfer: 1,
            refused,
            demand: Demand {
                rows: vec![row],
                ..Demand::default()
            },
        },
        Frame::Settled { transfer: 5 },
        Frame::Transfer(Transfer {
            transfer: 9,
            floor: 4,
            time_ms: 8,
            destination: Destination::queue("Q"),
            target: Some(u64::MAX),
            messages: vec![carried.clone(), carried],
        }),
    ]
}

/// A transport's frame in one piece: its kind, then its payload.
fn encoded(frame: &Frame) -> Vec<u8> {
    let encoded = frame.encode();
    assert_eq!(encoded.len(), 1, "a small frame is one frame of the transport");
    let payload = encoded[0].chunks.concat();
    [&[encoded[0].kind], &payload[..]].concat()
}

#[test]
fn fuzz_link_frames() {
    let mut seeds: Vec<Vec<u8>> = every_frame().iter().map(encoded).collect();
    // A transfer in one part: its kind, and that it is the last.
    let part = [&[9, 1], &seeds[7][1..]].concat();
    seeds.push(part);
    Target::new("link-frames")
        .seeds(seeds)
        .words([
            &b"\xff\xff\xff\xff"[..],
            b"\x01\0\0\0",
            b"\0\0\0\0\0\0\0\0\0",
            b"\x01\x03\0\0\0a.b",
            b"\0",
        ])
        // A row of nine bytes is one of a hundred and fifty in memory; and all is written and read once more.
        .allocates(200, 128 << 10)
        .run(|input| {
            let Some((kind, payload)) = input.split_first() else {
                return "empty".into();
            };
            let mut assembler = Assembler::default();
            match assembler.take(*kind, Bytes::copy_from_slice(payload)) {
                Ok(Some(frame)) => {
                    let mut again = Assembler::default();
                    let mut found = None;
                    for part in frame.encode() {
                        assert_eq!(found, None, "bytes follow the frame");
                        found = again.take(part.kind, part.chunks.concat().into()).unwrap();
                    }
                    assert_eq!(found.as_ref(), Some(&frame), "what is written is not what is read");
                    format!("kind {kind}")
                }
                Ok(None) => "a part".into(),
                Err(error) => error
                    .to_string()
                    .trim_start_matches(|c: char| c.is_ascii_digit())
                    .to_owned(),
            }
        });
}
