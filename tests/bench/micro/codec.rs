//! STOMP frames of 1 KiB: SEND read off a stream, MESSAGE written, and the stored form in between.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput};
use ferrymq_message::{Destination, Message, Producer, StoredMessage, Value};
use ferrymq_protocol::{
    Output,
    stomp::{Command, Decoder, Frame, StompLimits, Version, encode},
};

const BODY_BYTES: usize = 1 << 10;
/// Frames in one read of a socket.
const FRAMES: usize = 64;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    stomp(&mut criterion);
    stored(&mut criterion);
    criterion.final_summary();
}

fn body() -> Bytes {
    (0..BODY_BYTES)
        .map(|at| b'a' + (at % 26) as u8)
        .collect::<Vec<_>>()
        .into()
}

fn send() -> Frame {
    Frame::new(Command::Send)
        .with("destination", "/queue/ORDERS.REGION.0001")
        .with("receipt", "r-1234567")
        .with("persistent", "true")
        .with("content-type", "text/plain")
        .with("content-length", BODY_BYTES.to_string())
        .with_body(body())
}

fn message() -> Frame {
    Frame::new(Command::Message)
        .with("destination", "/queue/ORDERS.REGION.0001")
        .with("message-id", "ID:north-1-1700000000000-1234567")
        .with("subscription", "0")
        .with("ack", "1234567")
        .with("persistent", "true")
        .with("priority", "4")
        .with("timestamp", "1700000000000")
        .with("content-length", BODY_BYTES.to_string())
        .with_body(body())
}

fn written(frame: &Frame, times: usize) -> BytesMut {
    let mut out = Output::new();
    (0..times).for_each(|_| encode(frame, Version::V1_2, &mut out));
    let mut bytes = BytesMut::new();
    out.take_chunks()
        .iter()
        .for_each(|chunk| bytes.extend_from_slice(chunk));
    bytes
}

fn stomp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stomp");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for (name, frame) in [("decode SEND", send()), ("decode MESSAGE", message())] {
        let bytes = written(&frame, FRAMES);
        group.bench_function(name, |bencher| {
            let input = || {
                let mut decoder = Decoder::new(StompLimits::default());
                decoder.open(Version::V1_2);
                (decoder, bytes.clone())
            };
            let read = |(mut decoder, mut input): (Decoder, BytesMut)| {
                let mut frames = 0;
                while let Some(frame) = decoder.decode(&mut input).expect("the frames are right") {
                    black_box(&frame);
                    frames += 1;
                }
                assert_eq!(frames, FRAMES);
            };
            bencher.iter_batched(input, read, BatchSize::SmallInput);
        });
    }
    for (name, frame) in [("encode SEND", send()), ("encode MESSAGE", message())] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut out = Output::new();
                (0..FRAMES).for_each(|_| encode(&frame, Version::V1_2, &mut out));
                black_box(out.take_chunks())
            });
        });
    }
    group.finish();
}

fn stored(criterion: &mut Criterion) {
    let mut message = Message::new(
        "ID:north-1-1700000000000-1234567",
        Destination::queue("ORDERS.REGION.0001"),
        body(),
    );
    message.producer = Some(Producer {
        id: "ID:client-1-1700000000000".into(),
        sequence: 1_234_567,
    });
    message.properties.push(("region".into(), Value::Text("north".into())));
    let bytes = message.encode();
    let mut group = criterion.benchmark_group("stored");
    group.throughput(Throughput::Elements(1));
    let mut out = BytesMut::with_capacity(2 * BODY_BYTES);
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            message.encode_into(&mut out);
            black_box(out.len())
        });
    });
    group.bench_function("routing", |bencher| {
        bencher.iter(|| StoredMessage::new(bytes.clone()).and_then(|stored| stored.routing()));
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| StoredMessage::new(bytes.clone()).and_then(|stored| stored.decode()));
    });
    group.finish();
}
