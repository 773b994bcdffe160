//! What is on disk stays readable: the data directory of an earlier program, kept in `tests/data/`, opens, means what it
//! meant, and goes on.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{path::Path, process::Command, time::Duration};

use ferrymq_tests::{Frame, GroupOfNodes, Mesh, MeshBuilder, Stomp, http, wait_until};

/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Group `north` of one node, as a program left it whose snapshots had no sections yet. Snapshot at 616 of some 660 entries;
/// one master before it was killed, so that all that consumers had is in question.
///
/// - `A`: 20 sent less 5 consumed; of the rest the first 3 had been delivered and not acknowledged
/// - `P`: numbers 1, 2, 3 and 7 of producer `p`
/// - `topic://T`: 4 messages for the durable subscription `s` of client `c`, which is away
/// - `LONG`: 600 of 2,000 bytes; `TAIL`: 3, behind the snapshot; `E`: 1 that expires in the year 2100
/// - `ActiveMQ.DLQ`: 1, rejected in `B`
/// - for group `south`, which is gone for good: 1 of `CROSSING` under offer, 1 of `topic://NEWS` kept
const WITHOUT_SECTIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/without-sections.tar.gz");

fn old_group(name: &str, archive: &str) -> Mesh {
    let more =
        "\n[store]\nsegment = \"1MiB\"\nreserve = \"4MiB\"\nsnapshot_log = \"1MiB\"\n\n[limits]\nframe = \"256KiB\"\n";
    let mut mesh = MeshBuilder::new(name).group("north", 1).secret().more(more).prepare();
    let data = mesh.groups[0].nodes[0].data().to_owned();
    unpack(archive, &data);
    mesh.groups[0].start();
    mesh
}

fn unpack(archive: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let tar = Command::new("tar")
        .args(["--strip-components=1", "-xzf", archive, "-C"])
        .arg(to)
        .status();
    assert!(tar.unwrap().success(), "{archive} cannot be unpacked");
}

fn connect(group: &GroupOfNodes, headers: &[(&str, &str)]) -> Stomp {
    Stomp::connect_with(&group.addresses()[0], headers).unwrap()
}

/// Consumes all that a queue has: (body, redelivered).
fn take(group: &GroupOfNodes, queue: &str, count: usize) -> Vec<(String, bool)> {
    let mut stomp = connect(group, &[]);
    let subscribe = Frame::subscribe("1", &format!("/queue/{queue}"), "client-individual");
    stomp.request(subscribe).unwrap();
    let taken = (0..count).map(|_| {
        let message = stomp.expect_message();
        stomp.ack(&message).unwrap();
        (message.text(), message.redelivered())
    });
    let taken = taken.collect();
    stomp.request(Frame::new("UNSUBSCRIBE").with("id", "1")).unwrap();
    wait_until(&format!("{queue} is empty"), ANSWER_MAX, || {
        group.messages(&format!("queue://{queue}")) == 0
    });
    taken
}

fn counts(group: &GroupOfNodes) -> Vec<(&'static str, u64)> {
    ["A", "P", "LONG", "TAIL", "E", "ActiveMQ.DLQ", "CROSSING"]
        .map(|name| (name, group.messages(&format!("queue://{name}"))))
        .to_vec()
}

#[test]
fn a_data_directory_without_sections_opens_and_means_the_same() {
    let mut mesh = old_group("old-data", WITHOUT_SECTIONS);
    let group = &mut mesh.groups[0];
    let all = [
        ("A", 15),
        ("P", 4),
        ("LONG", 600),
        ("TAIL", 3),
        ("E", 1),
        ("ActiveMQ.DLQ", 1),
        ("CROSSING", 1),
    ];
    assert_eq!(counts(group), all);
    let in_doubt = group.status()["master"]["mesh"]["in_doubt"].clone();
    assert_eq!(
        (&in_doubt[0]["group"], &in_doubt[0]["messages"]),
        (&"south".into(), &1.into())
    );

    let a = take(group, "A", 15);
    let bodies: Vec<&str> = a.iter().map(|(body, _)| body.as_str()).collect();
    assert_eq!(bodies, (5..20).map(|n| format!("a {n}")).collect::<Vec<_>>());
    assert!(a[..3].iter().all(|(_, redelivered)| *redelivered), "{a:?}");

    // A number that had not come is new. What was sent under the others was not noted then, so that nobody can tell
    // a resend: it is neither confirmed nor stored twice (P5).
    for (number, is_new) in [(2, false), (7, false), (4, true)] {
        let message = Frame::message("/queue/P", format!("p {number}"))
            .with("producer-id", "p")
            .with("producer-sequence", number);
        let result = connect(group, &[]).request(message);
        assert_eq!(result.is_ok(), is_new, "{number}: {result:?}");
    }
    let p = take(group, "P", 5);
    assert_eq!(
        p.iter().map(|(body, _)| body.as_str()).collect::<Vec<_>>(),
        ["p 1", "p 2", "p 3", "p 7", "p 4"]
    );

    let mut durable = connect(group, &[("client-id", "c")]);
    let subscribe = Frame::subscribe("1", "/topic/T", "auto").with("activemq.subscriptionName", "s");
    durable.request(subscribe.with("selector", "colour = 'red'")).unwrap();
    for n in 0..4 {
        assert_eq!(durable.expect_message().text(), format!("t {n}"));
    }
    assert_eq!(take(group, "ActiveMQ.DLQ", 1)[0].0, "rejected");

    // What it writes now opens again, too.
    group.nodes[0].stop();
    group.start();
    assert_eq!(take(group, "E", 1)[0].0, "for long");
    assert_eq!(take(group, "TAIL", 3)[2].0, "tail 2");
    let long = take(group, "LONG", 600);
    let expected = (0..600).map(|n| (format!("long {n} {}", "x".repeat(2_000)), false));
    assert_eq!(long, expected.collect::<Vec<_>>());

    let at = group.nodes[0].ports.admin_address();
    let (status, answer) = http::post_at(at, "/api/reclaim", "{\"group\":\"south\"}").unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(take(group, "CROSSING", 1), [("in doubt".to_owned(), true)]);
}
