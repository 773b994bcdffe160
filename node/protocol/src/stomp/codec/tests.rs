//! The codec: golden frames of each version, hostile bytes, and the round trip.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn limits() -> StompLimits {
    StompLimits {
        frame_bytes_max: 1000,
        header_bytes_max: 100,
        head_bytes_max: 300,
        headers_max: 8,
        ..Default::default()
    }
}

fn open(version: Version) -> Decoder {
    let mut decoder = Decoder::new(limits());
    decoder.open(version);
    decoder
}

/// Everything in `bytes`, handed in `piece` bytes at a time.
fn decode_in_pieces(decoder: &mut Decoder, bytes: &[u8], piece: usize) -> Result<Vec<Frame>, StompError> {
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for part in bytes.chunks(piece) {
        input.extend_from_slice(part);
        while let Some(frame) = decoder.decode(&mut input)? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn encoded(frame: &Frame, version: Version) -> Vec<u8> {
    let mut out = Output::new();
    encode(frame, version, &mut out);
    Vec::from(out.take_chunks()).concat()
}

#[test]
fn golden_frames() {
    use Version::{V1_0, V1_1, V1_2};
    let send = || Frame::new(Command::Send);
    let table: Vec<(Version, &[u8], Frame)> = vec![
        (
            V1_0,
            b"SEND\ndestination: /queue/a \r\n\nhi\0",
            send().with("destination", "/queue/a").with_body("hi"),
        ),
        (V1_0, b"SEND\na:x\\nb:c\n\n\0", send().with("a", "x\\nb:c")),
        (V1_1, b"SEND\na: x \n\n\0", send().with("a", " x ")),
        (V1_1, b"SEND\na\\cb:x\\ny\\\\\\c\n\n\0", send().with("a:b", "x\ny\\:")),
        (V1_1, b"SEND\na:x\\ty\\\n\n\0", send().with("a", "x\\ty\\")),
        (V1_1, b"SEND\na:x\r\n\r\n\0", send().with("a", "x\r")),
        (V1_2, b"SEND\r\na:x\\r\r\n\r\n\0", send().with("a", "x\r")),
        (
            V1_2,
            b"\n\r\n\nSEND\na:1\na:2\nb:3:4\nc:\n\n\0\n\n",
            send().with("a", "1").with("b", "3:4").with("c", ""),
        ),
        (
            V1_2,
            b"SEND\ncontent-length:3\n\n\0\n\0\0",
            send().with("content-length", "3").with_body(&b"\0\n\0"[..]),
        ),
        (
            V1_2,
            b"SEND\ncontent-length: 0 \n\n\0",
            send().with("content-length", " 0 "),
        ),
        (
            V1_2,
            b"SEND\nk:\xc3\xa9\n\n\xff\0",
            send().with("k", "\u{e9}").with_body(&b"\xff"[..]),
        ),
        (
            V1_2,
            b"CONNECT\npasscode:a\\nb:c\n\n\0",
            Frame::new(Command::Connect).with("passcode", "a\\nb:c"),
        ),
    ];
    for (version, bytes, expected) in table {
        for piece in [1, 2, 3, bytes.len()] {
            let frames = decode_in_pieces(&mut open(version), bytes, piece);
            assert_eq!(
                frames.as_deref(),
                Ok(&[expected.clone()][..]),
                "{}",
                bytes.escape_ascii()
            );
        }
    }
}

#[test]
fn frames_follow_each_other() {
    let bytes = b"BEGIN\ntransaction:t\n\n\0\nSEND\ncontent-length:1\n\n\0\0COMMIT\n\n\0";
    for piece in 1..bytes.len() {
        let frames = decode_in_pieces(&mut open(Version::V1_2), bytes, piece).unwrap();
        let commands: Vec<_> = frames.iter().map(|frame| frame.command).collect();
        assert_eq!(commands, [Command::Begin, Command::Send, Command::Commit]);
    }
}

/// P11.
#[test]
fn hostile_bytes_are_refused() {
    let long = [b'x'; 200];
    let many: Vec<u8> = (0..9).flat_map(|i| format!("h{i}:\n").into_bytes()).collect();
    let wide: Vec<u8> = (0..4)
        .flat_map(|i| format!("h{i}:{}\n", "x".repeat(90)).into_bytes())
        .collect();
    let table: Vec<(Vec<u8>, StompError)> = vec![
        (
            b"GET / HTTP/1.1\r\n".to_vec(),
            StompError::UnknownCommand("GET / HTTP/1.1".into()),
        ),
        (b"send\n".to_vec(), StompError::UnknownCommand("send".into())),
        (
            b"\xff\x01\n".to_vec(),
            StompError::UnknownCommand("\\u{fffd}\\u{1}".into()),
        ),
        (long.to_vec(), StompError::HeaderTooLong(100)),
        ([b"SEND\na:", &long[..]].concat(), StompError::HeaderTooLong(100)),
        ([b"SEND\n", &wide[..]].concat(), StompError::HeadTooLong(300)),
        ([b"SEND\n", &many[..]].concat(), StompError::TooManyHeaders(8)),
        (b"SEND\nnocolon\n".to_vec(), StompError::NoHeaderName),
        (b"SEND\n:x\n".to_vec(), StompError::NoHeaderName),
        (b"SEND\na:\xff\n".to_vec(), StompError::NotUtf8),
        (b"SEND\na:\\t\n".to_vec(), StompError::BadEscape),
        (b"SEND\na:\\\n".to_vec(), StompError::BadEscape),
        (b"SEND\na:b\0".to_vec(), StompError::NulInHead),
        (b"DISCONNECT\n\x00".to_vec(), StompError::NulInHead),
        (b"SEND\ncontent-length:-1\n\n".to_vec(), StompError::BadContentLength),
        (b"SEND\ncontent-length:+1\n\n".to_vec(), StompError::BadContentLength),
        (b"SEND\ncontent-length:\n\n".to_vec(), StompError::BadContentLength),
        (b"SEND\ncontent-length:1e3\n\n".to_vec(), StompError::BadContentLength),
        (b"SEND\ncontent-length:1001\n\n".to_vec(), StompError::BodyTooLong(1000)),
        (
            b"SEND\ncontent-length:99999999999999999999999\n\n".to_vec(),
            StompError::BodyTooLong(1000),
        ),
        (b"SEND\ncontent-length:1\n\nab".to_vec(), StompError::MissingNul(1)),
        ([b"SEND\n\n", &[b'x'; 1001][..]].concat(), StompError::BodyTooLong(1000)),
        (
            [b"SEND\n\n", &[b'x'; 1001][..], b"\0"].concat(),
            StompError::BodyTooLong(1000),
        ),
    ];
    for (bytes, expected) in table {
        for piece in [1, 7, bytes.len()] {
            let result = decode_in_pieces(&mut open(Version::V1_2), &bytes, piece);
            assert_eq!(result, Err(expected.clone()), "{}", bytes.escape_ascii());
        }
    }
}

#[test]
fn no_byte_is_looked_at_twice() {
    let mut decoder = open(Version::V1_2);
    let mut input = BytesMut::from(&b"SEND\nhalf a line"[..]);
    assert_eq!(decoder.decode(&mut input), Ok(None));
    assert_eq!((&input[..], decoder.scanned), (&b"half a line"[..], 11));
    input.extend_from_slice(b":\n\nhalf a body");
    assert_eq!(decoder.decode(&mut input), Ok(None));
    assert_eq!((&input[..], decoder.scanned), (&b"half a body"[..], 11));
    input.extend_from_slice(b"\0");
    assert!(
        decoder
            .decode(&mut input)
            .unwrap()
            .is_some_and(|frame| &frame.body[..] == b"half a body")
    );
}

#[test]
fn limits_are_inclusive() {
    let body = format!("SEND\n\n{}\0", "x".repeat(1000));
    assert_eq!(
        decode_in_pieces(&mut open(Version::V1_2), body.as_bytes(), 64)
            .unwrap()
            .len(),
        1
    );
    let header = format!("SEND\na:{}\n\n\0", "x".repeat(98));
    assert_eq!(
        decode_in_pieces(&mut open(Version::V1_2), header.as_bytes(), 64)
            .unwrap()
            .len(),
        1
    );
    // What the first frame used does not count against the second.
    let wide: String = (0..3).map(|i| format!("h{i}:{}\n", "x".repeat(90))).collect();
    let twice = format!("SEND\n{wide}\n\0SEND\n{wide}\n\0");
    assert_eq!(
        decode_in_pieces(&mut open(Version::V1_2), twice.as_bytes(), 64)
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_stranger_gets_little_memory() {
    let mut decoder = Decoder::new(StompLimits::default());
    let result = decode_in_pieces(&mut decoder, b"CONNECT\ncontent-length:1000000\n\n", 100);
    assert_eq!(result, Err(StompError::BodyTooLong(STRANGER_BODY_BYTES_MAX)));
}

#[test]
fn large_bodies_are_shared_both_ways() {
    let mut decoder = Decoder::new(StompLimits::default());
    decoder.open(Version::V1_2);
    let body = vec![7; 100_000];
    let mut input = BytesMut::from(&b"SEND\ncontent-length:100000\n\n"[..]);
    input.extend_from_slice(&body);
    input.extend_from_slice(b"\0");
    let at = input[28..].as_ptr();
    let frame = decoder.decode(&mut input).unwrap().unwrap();
    assert_eq!(frame.body.as_ptr(), at);
    let mut out = Output::new();
    encode(&frame, Version::V1_2, &mut out);
    assert!(out.take_chunks().iter().any(|chunk| chunk.as_ptr() == at));
}

#[test]
fn a_nul_in_the_body_brings_its_length() {
    let frame = Frame::new(Command::Error).with_body(&b"a\0b"[..]);
    assert_eq!(encoded(&frame, Version::V1_0), b"ERROR\ncontent-length:3\n\na\0b\0\n");
}

fn any_text() -> impl Strategy<Value = String> {
    // All that needs an escape, and some that does not; NUL cannot be carried by any version.
    prop::collection::vec(
        prop::sample::select(vec!['a', ':', '\\', '\n', '\r', ' ', 'ß', 'c', 'n', 'r']),
        0..8,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #[test]
    fn reads_what_it_writes(
        names in prop::collection::btree_map("[a-z]{1,5}[:\\\\\n]?", any_text(), 0..6),
        body in prop::collection::vec(any::<u8>(), 0..50),
        piece in 1usize..40,
    ) {
        let mut frame = Frame::new(Command::Message).with_body(Bytes::from(body.clone()));
        for (name, value) in names {
            frame.headers.add(name, value);
        }
        frame.headers.add("content-length", body.len().to_string());
        let bytes = encoded(&frame, Version::V1_2);
        let decoded = decode_in_pieces(&mut open(Version::V1_2), &bytes, piece);
        prop_assert_eq!(decoded, Ok(vec![frame]));
    }

    /// P11.
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
        decodes_alike_or_refuses(&bytes, piece)?;
    }

    /// Beside pure noise, what looks like frames.
    #[test]
    fn any_run_of_pieces_is_decoded_or_refused(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "SEND", "ACK", "\n", "\n\n", "\r\n", "\0", "a:b", "content-length:", "3", "99", "-1", "abc", ":", "\\", "\\n",
        ]), 0..20),
        piece in 1usize..50,
    ) {
        decodes_alike_or_refuses(pieces.concat().as_bytes(), piece)?;
    }

    #[test]
    fn damaged_frames_are_decoded_or_refused(at in 0usize..60, value in any::<u8>(), piece in 1usize..50) {
        let mut bytes = TWO_FRAMES.to_vec();
        bytes[at] = value;
        decodes_alike_or_refuses(&bytes, piece)?;
        // A body is anything, and what follows it is not touched.
        let body = TWO_FRAMES.windows(5).position(|window| window == b"hello").expect("it is there");
        if (body..body + 5).contains(&at) {
            let whole = decode_in_pieces(&mut open(Version::V1_2), TWO_FRAMES, piece).expect("undamaged");
            let frames = decode_in_pieces(&mut open(Version::V1_2), &bytes, piece).expect("only its body is another");
            prop_assert_eq!(&frames[0].body[..], &bytes[body..body + 5]);
            prop_assert_eq!((&frames[0].headers, &frames[1]), (&whole[0].headers, &whole[1]));
        }
    }
}

const TWO_FRAMES: &[u8] = b"SEND\ndestination:/queue/a\ncontent-length:5\nk:a\\cb\n\nhello\0\nACK\nid:1\n\n\0";

/// Bytes mean the same in whatever pieces they come, and a frame that was read is read again as it was written.
fn decodes_alike_or_refuses(bytes: &[u8], piece: usize) -> Result<(), TestCaseError> {
    for version in [Version::V1_0, Version::V1_1, Version::V1_2] {
        let whole = decode_in_pieces(&mut open(version), bytes, bytes.len().max(1));
        let in_pieces = decode_in_pieces(&mut open(version), bytes, piece);
        // Of several things that are wrong, the one that comes first may be another.
        prop_assert_eq!(in_pieces.as_ref().ok(), whole.as_ref().ok());
        for frame in whole.into_iter().flatten() {
            prop_assert!(frame.body.len() <= bytes.len());
            // What 1.0 and 1.1 cannot escape, they cannot write.
            if version == Version::V1_2 {
                let again = decode_in_pieces(&mut open(version), &encoded(&frame, version), piece);
                prop_assert_eq!(again, Ok(vec![frame]));
            }
        }
    }
    Ok(())
}
