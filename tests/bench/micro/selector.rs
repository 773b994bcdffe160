//! Selectors: reading one, and asking one for a message, without and with decoding the message first as the dispatcher
//! does.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use ferrymq_message::{Destination, Message, Selector, StoredMessage, Value};

/// From the cheapest to what people really write.
const SELECTORS: [(&str, &str); 5] = [
    ("compare", "region = 'north'"),
    ("arithmetic", "amount * 2 > 100 AND amount BETWEEN 10 AND 1000"),
    (
        "in and like",
        "region IN ('south', 'west', 'north') AND customer LIKE 'ACME-%'",
    ),
    (
        "long",
        "(region = 'south' OR region = 'west' OR region = 'north') AND JMSPriority >= 4 AND amount > 10 \
         AND customer NOT LIKE '%-TEST' AND missing IS NULL AND JMSType = 'order'",
    ),
    (
        "strings as numbers",
        "convert_string_expressions:count > 10 AND region = 'north'",
    ),
];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let message = message();
    let stored = message.encode();
    let mut group = criterion.benchmark_group("selector");
    group.throughput(Throughput::Elements(1));
    for (name, text) in SELECTORS {
        let selector = Selector::parse(text).expect("the selectors above are right");
        assert!(selector.matches(&message), "{name}: measured is what matches");
        group.bench_function(BenchmarkId::new("parse", name), |bencher| {
            bencher.iter(|| Selector::parse(black_box(text)));
        });
        group.bench_function(BenchmarkId::new("matches", name), |bencher| {
            bencher.iter(|| selector.matches(black_box(&message)));
        });
        group.bench_function(BenchmarkId::new("decode and match", name), |bencher| {
            bencher.iter(|| {
                let read = StoredMessage::new(stored.clone()).and_then(|stored| stored.decode());
                read.is_ok_and(|message| selector.matches(&message))
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

fn message() -> Message {
    let mut message = Message::new(
        "ID:north-1-1700000000000-1234567",
        Destination::queue("ORDERS.REGION.0001"),
        vec![0x5a; 1 << 10],
    );
    message.message_type = Some("order".into());
    for (name, value) in [
        ("customer", Value::Text("ACME-4711".into())),
        ("region", Value::Text("north".into())),
        ("amount", Value::Int(99)),
        ("count", Value::Text("17".into())),
    ] {
        message.properties.push((name.into(), value));
    }
    message
}
