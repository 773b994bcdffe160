//! The link's bytes: every frame is read back as it was, and no bytes do harm. The same test serves as a fuzz target.

#![allow(clippy::unwrap_used, reason = "what is unwrapped here holds, or the test has failed")]

use bytes::Bytes;
use ferrymq_broker::{Carried, DeadLetter, DemandVersion, Refused};
use ferrymq_forwarding::{
    frame::{Assembler, Demand, Encoded, Frame, FrameError, Held, Hello, Lane, PART_BYTES, Transfer},
    row::{Key, Row},
};
use ferrymq_message::{Destination, DestinationKind};
use proptest::prelude::*;

fn payload(encoded: &Encoded) -> Bytes {
    encoded
        .chunks
        .iter()
        .flat_map(|chunk| chunk.iter().copied())
        .collect::<Vec<u8>>()
        .into()
}

fn read_back(frame: &Frame) -> Frame {
    let mut assembler = Assembler::default();
    let mut found = None;
    for encoded in frame.encode() {
        assert!(found.is_none(), "bytes follow the frame");
        let expected = if matches!(frame, Frame::Transfer(_)) {
            Lane::Bulk
        } else {
            Lane::Control
        };
        assert_eq!(encoded.lane, expected);
        assert!(payload(&encoded).len() <= PART_BYTES + 1);
        found = assembler.take(encoded.kind, payload(&encoded)).unwrap();
    }
    found.expect("the frame is whole")
}

fn transfer(sizes: &[usize]) -> Frame {
    let message = |size: &usize| Carried {
        redeliveries: 7,
        redelivered: true,
        hops: 3,
        dead_letter: Some(DeadLetter {
            original: Destination::topic("T"),
            reason: "expired".to_owned(),
        }),
        message: (0..*size).map(|n| n as u8).collect::<Vec<u8>>().into(),
    };
    let messages = sizes.iter().map(message).collect();
    Frame::Transfer(Transfer {
        transfer: 9,
        floor: 4,
        time_ms: 8,
        destination: Destination::queue("Q"),
        target: Some(u64::MAX),
        messages,
    })
}

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
    let presence = Row {
        version: DemandVersion { term: 7, change: 8 },
        ..Row::presence(1, "north")
    };
    let rows = Demand {
        snapshot: true,
        last: true,
        rows: vec![presence, row.clone()],
        gone: vec![],
    };
    let gone = vec![Key::presence(9), row.key.clone()];
    let refused = vec![Refused { position: 1, reason: 2 }];
    vec![
        Frame::Hello(Hello {
            version: 1,
            group: "north".to_owned(),
            group_id: 1,
            epoch: 2,
            lineage: 4,
            node: 3,
        }),
        Frame::Redirect {
            endpoints: vec!["a:1".to_owned(), "[::1]:2".to_owned()],
        },
        Frame::Redirect { endpoints: vec![] },
        Frame::Held(Held {
            epoch: 1,
            floor: 2,
            next: 3,
        }),
        Frame::Demand(rows),
        Frame::Demand(Demand {
            gone,
            ..Demand::default()
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
        transfer(&[]),
        transfer(&[0, 1, 70_000]),
    ]
}

#[test]
fn every_frame_is_read_back_as_it_was() {
    for frame in every_frame() {
        assert_eq!(read_back(&frame), frame);
    }
}

#[test]
fn a_large_transfer_travels_in_parts() {
    for size in [PART_BYTES - 200, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES] {
        let frame = transfer(&[10, size, 10]);
        assert_eq!(frame.encode().len() > 1, size >= PART_BYTES, "{size}");
        assert_eq!(read_back(&frame), frame);
    }
}

#[test]
fn known_bytes_keep_their_meaning() {
    let encoded = Frame::Pulse {
        rows: 1,
        hash: 2,
        floor: 3,
        time_ms: 4,
    }
    .encode();
    assert_eq!((encoded[0].kind, encoded[0].lane), (4, Lane::Control));
    assert_eq!(
        payload(&encoded[0])[..],
        [
            1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0
        ]
    );
    let hello = Frame::Hello(Hello {
        version: 1,
        group: "n".to_owned(),
        group_id: 2,
        epoch: 3,
        lineage: 4,
        node: 5,
    })
    .encode();
    let mut expected = vec![1, 0, 1, 0, 0, 0, b'n'];
    [2_u64, 3, 4, 5]
        .iter()
        .for_each(|number| expected.extend(number.to_le_bytes()));
    assert_eq!((hello[0].kind, payload(&hello[0])), (1, expected.into()));
}

#[test]
fn cut_and_changed_bytes_are_errors_or_other_frames_but_never_a_panic() {
    for frame in every_frame().iter().take(10) {
        let encoded = &frame.encode()[0];
        let bytes = payload(encoded);
        for len in 0..bytes.len() {
            assert!(
                Assembler::default().take(encoded.kind, bytes.slice(..len)).is_err(),
                "{frame:?} cut to {len}"
            );
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        let found = Assembler::default().take(encoded.kind, longer.into());
        assert_eq!(found, Err(FrameError::Trailing(1)), "{frame:?}");
        for at in 0..bytes.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.to_vec();
                changed[at] = value;
                if let Ok(Some(other)) = Assembler::default().take(encoded.kind, changed.into()) {
                    assert_eq!(read_back(&other), other);
                }
            }
        }
    }
}

#[test]
fn counts_that_promise_too_much_take_no_memory() {
    let huge = Bytes::from_static(&[0xff; 4]);
    assert_eq!(Assembler::default().take(2, huge), Err(FrameError::Truncated));
    let demand = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0x7f]);
    assert_eq!(Assembler::default().take(3, demand), Err(FrameError::Truncated));
    assert_eq!(
        Assembler::default().take(99, Bytes::new()),
        Err(FrameError::UnknownKind(99))
    );
    assert_eq!(Assembler::default().take(9, Bytes::new()), Err(FrameError::Truncated));
    assert_eq!(
        Assembler::default().take(9, Bytes::from_static(&[2])),
        Err(FrameError::Malformed("part flag"))
    );
}

#[test]
fn a_path_must_end_at_its_origin() {
    let row = Row {
        path: vec![1, 2],
        ..Row::presence(1, "n")
    };
    let encoded = Frame::Demand(Demand {
        rows: vec![row],
        ..Demand::default()
    })
    .encode();
    let found = Assembler::default().take(encoded[0].kind, payload(&encoded[0]));
    assert_eq!(found, Err(FrameError::Malformed("path")));
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_a_frame_that_reads_back(kind in 0_u8..12, bytes: Vec<u8>) {
        if let Ok(Some(frame)) = Assembler::default().take(kind, bytes.into()) {
            prop_assert_eq!(read_back(&frame), frame);
        }
    }
}
