//! What is a resend and what only looks like one (P5), and transactions that are refused as a whole.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::process::Command;

use ferrymq_tests::{
    Frame, Mesh, Stomp, binary,
    stomp::ANSWER_MAX,
    users::{self, APP, GUEST, login},
};

/// A persistent message with a producer's number.
fn numbered(queue: &str, producer: &str, number: u64, body: &str) -> Frame {
    Frame::message(queue, body)
        .with("producer-id", producer)
        .with("producer-sequence", number)
}

/// What comes to a consumer of this queue before a message that is sent now.
#[track_caller]
fn everything_in(stomp: &mut Stomp, queue: &str) -> Vec<String> {
    stomp.request(Frame::message(queue, "the last one")).unwrap();
    stomp.request(Frame::subscribe(queue, queue, "auto")).unwrap();
    let mut bodies = Vec::new();
    loop {
        let body = stomp.expect_message().text();
        if body == "the last one" {
            return bodies;
        }
        bodies.push(body);
    }
}

/// The text of the ERROR that ends the connection.
#[track_caller]
fn refusal(result: anyhow::Result<()>) -> String {
    result.expect_err("it is refused").to_string()
}

fn connect(mesh: &Mesh) -> Stomp {
    let group = &mesh.groups[0];
    Stomp::connect(&group.nodes[group.master()].address()).unwrap()
}

#[test]
fn another_message_under_a_number_of_before_is_never_confirmed_p5() {
    for persistent in ["true", "false"] {
        let mesh = Mesh::one_group(&format!("reused-{persistent}"), 1);
        let send = |stomp: &mut Stomp, queue: &str, body: &str| {
            let mut frame = Frame::fleeting(queue, body);
            if persistent == "true" {
                frame = Frame::message(queue, body);
            }
            stomp.request(frame.with("producer-id", "nightly").with("producer-sequence", 1))
        };
        // Consumers, so that what is not persistent goes from hand to hand.
        let mut consumer = connect(&mesh);
        consumer.request(Frame::subscribe("a", "/queue/A", "auto")).unwrap();
        let mut stomp = connect(&mesh);
        send(&mut stomp, "/queue/A", "first").unwrap();
        send(&mut stomp, "/queue/A", "first").unwrap();
        for (queue, body) in [("/queue/B", "first"), ("/queue/A", "second")] {
            let text = refusal(send(&mut connect(&mesh), queue, body));
            for word in ["nightly", "number 1", "another message", "new producer-id"] {
                assert!(text.contains(word), "{text} lacks {word:?}");
            }
        }
        assert_eq!(consumer.expect_message().text(), "first");
        assert_eq!(everything_in(&mut connect(&mesh), "/queue/B"), Vec::<String>::new());
        stomp.request(Frame::message("/queue/A", "the end")).unwrap();
        assert_eq!(consumer.expect_message().text(), "the end");
    }
}

#[test]
fn the_producers_of_two_users_never_meet_p5() {
    let mesh = users::start("users-resend", 1);
    let address = mesh.groups[0].nodes[0].address();
    let mut app = Stomp::connect_with(&address, &login(APP)).unwrap();
    let mut guest = Stomp::connect_with(&address, &login(GUEST)).unwrap();
    // Whoever may write to one queue cannot make another user's next messages vanish.
    for number in 1..=3 {
        guest
            .request(numbered("/queue/orders.new", "app-1", number, "x"))
            .unwrap();
    }
    for number in 1..=3 {
        app.request(numbered("/queue/orders.new", "app-1", number, "x"))
            .unwrap();
    }
    assert_eq!(everything_in(&mut app, "/queue/orders.new").len(), 6);
}

#[test]
fn the_command_line_never_uses_a_producers_name_twice() {
    let mesh = Mesh::one_group("nightly", 1);
    let url = format!("tcp://{}", mesh.groups[0].nodes[0].address());
    let produce = |more: &[&str]| {
        let output = Command::new(binary::ferrymq())
            .args([
                "produce",
                "--url",
                &url,
                "-d",
                "queue://A",
                "--count",
                "5",
                "--size",
                "8",
            ])
            .args(more)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), text)
    };
    for _ in 0..2 {
        let (is_done, text) = produce(&["--producer-id", "nightly"]);
        assert!(is_done, "{text}");
    }
    // Whoever asks for it goes on under a name: what is the same is stored once, what is not is refused.
    for _ in 0..2 {
        let (is_done, text) = produce(&["--resume", "nightly", "--first-sequence", "1"]);
        assert!(is_done, "{text}");
    }
    let (is_done, text) = produce(&["--resume", "nightly", "--first-sequence", "5", "--property", "a=b"]);
    assert!(!is_done && text.contains("another message had this number"), "{text}");
    assert_eq!(everything_in(&mut connect(&mesh), "/queue/A").len(), 5 + 5 + 5 + 4);
}

#[test]
fn a_commit_of_which_a_part_is_refused_is_refused_as_a_whole() {
    let mesh = Mesh::one_group("whole", 1);
    let mut stomp = connect(&mesh);
    stomp.request(numbered("/queue/A", "p", 1, "before")).unwrap();
    stomp.request(Frame::message("/queue/IN", "input")).unwrap();
    stomp
        .request(Frame::subscribe("in", "/queue/IN", "client-individual"))
        .unwrap();
    let input = stomp.expect_message();
    let commit = |stomp: &mut Stomp, frames: Vec<Frame>| {
        stomp.send(&Frame::new("BEGIN").with("transaction", "t")).unwrap();
        for frame in frames {
            stomp.send(&frame.with("transaction", "t")).unwrap();
        }
        stomp.request(Frame::new("COMMIT").with("transaction", "t"))
    };
    let acknowledge = |message: &Frame| Frame::new("ACK").with("id", message.get("ack").unwrap());
    let parts = vec![
        acknowledge(&input),
        numbered("/queue/A", "p", 2, "one"),
        numbered("/queue/A", "p", 1, "two"),
    ];
    let text = refusal(commit(&mut stomp, parts));
    assert!(text.contains("number 1") && text.contains("another message"), "{text}");
    // What it acknowledged comes again, and a transaction with a resend in it is carried out.
    let mut stomp = connect(&mesh);
    stomp
        .request(Frame::subscribe("in", "/queue/IN", "client-individual"))
        .unwrap();
    let input = stomp.expect_message();
    assert!(input.redelivered());
    let parts = vec![
        acknowledge(&input),
        numbered("/queue/A", "p", 2, "one"),
        numbered("/queue/A", "p", 1, "before"),
    ];
    commit(&mut stomp, parts).unwrap();
    drop(stomp);
    assert_eq!(everything_in(&mut connect(&mesh), "/queue/A"), ["before", "one"]);
    assert_eq!(everything_in(&mut connect(&mesh), "/queue/IN"), Vec::<String>::new());
}

#[test]
fn rollbacks_without_end_refuse_nobody() {
    let mesh = Mesh::one_group("rollbacks", 1);
    let mut stomp = connect(&mesh);
    let rollbacks = 1_100;
    for number in 0..rollbacks {
        let aborted = numbered("/queue/A", "p", 2 * number, "aborted").with("transaction", "t");
        stomp.send(&Frame::new("BEGIN").with("transaction", "t")).unwrap();
        stomp.send(&aborted).unwrap();
        stomp.send(&Frame::new("ABORT").with("transaction", "t")).unwrap();
        let sent = numbered("/queue/A", "p", 2 * number + 1, "sent").with("receipt", number);
        stomp.send(&sent).unwrap();
    }
    for number in 0..rollbacks {
        let frame = stomp.next(ANSWER_MAX).unwrap().expect("a receipt comes");
        assert_eq!(
            (&*frame.command, frame.get("receipt-id")),
            ("RECEIPT", Some(&*number.to_string())),
            "{frame:?}"
        );
    }
    // A number that was rolled back may still be used.
    stomp.request(numbered("/queue/A", "p", 2, "after all")).unwrap();
    assert_eq!(everything_in(&mut stomp, "/queue/A").len() as u64, rollbacks + 1);
}

#[test]
fn artemis_duplicate_ids_are_taken_once_for_each_destination() {
    let mut mesh = Mesh::one_group("duplicate-ids", 3);
    let marked = |queue: &str, id: &str, body: &str| Frame::message(queue, body).with("_AMQ_DUPL_ID", id);
    let mut stomp = connect(&mesh);
    stomp.request(marked("/queue/A", "1", "one")).unwrap();
    stomp
        .request(marked("/queue/A", "1", "the content is not compared"))
        .unwrap();
    stomp.request(marked("/queue/B", "1", "elsewhere")).unwrap();
    mesh.groups[0].kill_master();
    let mut stomp = connect(&mesh);
    stomp.request(marked("/queue/A", "1", "one")).unwrap();
    stomp.request(marked("/queue/A", "2", "two")).unwrap();
    // Also what would have gone from hand to hand.
    let fleeting = Frame::fleeting("/queue/A", "two").with("_AMQ_DUPL_ID", "2");
    stomp.request(fleeting).unwrap();
    assert_eq!(everything_in(&mut stomp, "/queue/A"), ["one", "two"]);
    assert_eq!(everything_in(&mut stomp, "/queue/B"), ["elsewhere"]);
}
