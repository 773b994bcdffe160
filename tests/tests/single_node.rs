//! A group of one, as a STOMP client sees it: what a message broker is expected to do, by itself and after `kill -9`.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferrymq_tests::{
    Frame, Mesh, Stomp,
    stomp::{ANSWER_MAX, marker},
    wait_for, wait_until,
};

fn broker(test: &str) -> Mesh {
    Mesh::one_group(test, 1)
}

fn connect(mesh: &Mesh) -> Stomp {
    Stomp::connect(&mesh.groups[0].nodes[0].address()).unwrap()
}

fn subscribe(stomp: &mut Stomp, destination: &str, ack: &str) {
    stomp.request(Frame::subscribe("1", destination, ack)).unwrap();
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[test]
fn a_message_goes_through_and_is_gone_once_acknowledged() {
    let mesh = broker("through");
    let mut stomp = connect(&mesh);
    assert_eq!(stomp.connected.get("version"), Some("1.2"));
    assert!(stomp.connected.get("server").unwrap().starts_with("FerryMQ/"));
    let sent = Frame::message("/queue/A", "hello")
        .with("colour", "red:\n\\")
        .with("correlation-id", "c-1");
    stomp.request(sent).unwrap();
    subscribe(&mut stomp, "/queue/A", "client-individual");
    let message = stomp.expect_message();
    assert_eq!(
        (&*message.text(), message.get("destination")),
        ("hello", Some("/queue/A"))
    );
    assert_eq!(
        (message.get("colour"), message.get("correlation-id")),
        (Some("red:\n\\"), Some("c-1"))
    );
    assert_eq!((message.get("subscription"), message.redelivered()), (Some("1"), false));
    stomp.ack(&message).unwrap();
    drop(stomp);

    let mut stomp = connect(&mesh);
    subscribe(&mut stomp, "/queue/A", "auto");
    stomp.expect_no_more("/queue/A");
}

#[test]
fn what_was_not_acknowledged_comes_again_marked() {
    let mesh = broker("again");
    let mut stomp = connect(&mesh);
    stomp.request(Frame::message("/queue/A", "one")).unwrap();
    subscribe(&mut stomp, "/queue/A", "client-individual");
    assert!(!stomp.expect_message().redelivered());
    drop(stomp);

    let mut stomp = connect(&mesh);
    subscribe(&mut stomp, "/queue/A", "client-individual");
    let again = stomp.expect_message();
    assert!(again.redelivered(), "P3: {again:?}");
    stomp.ack(&again).unwrap();
}

#[test]
fn cumulative_acknowledgement_covers_what_came_before() {
    let mesh = broker("cumulative");
    let mut stomp = connect(&mesh);
    for n in 1..=3 {
        stomp.request(Frame::message("/queue/A", n.to_string())).unwrap();
    }
    subscribe(&mut stomp, "/queue/A", "client");
    let messages: Vec<Frame> = (0..3).map(|_| stomp.expect_message()).collect();
    stomp.ack(&messages[1]).unwrap();
    drop(stomp);
    let mut stomp = connect(&mesh);
    subscribe(&mut stomp, "/queue/A", "client");
    assert_eq!(stomp.expect_message().text(), "3");
    stomp.expect_no_more("/queue/A");
}

#[test]
fn a_refused_message_becomes_a_dead_letter_that_says_why() {
    let mesh = broker("dead");
    let mut stomp = connect(&mesh);
    stomp.request(Frame::message("/queue/A", "poison")).unwrap();
    subscribe(&mut stomp, "/queue/A", "client-individual");
    let message = stomp.expect_message();
    stomp.nack(&message).unwrap();
    stomp
        .request(Frame::subscribe("dlq", "/queue/ActiveMQ.DLQ", "client-individual"))
        .unwrap();
    let dead = stomp.expect_message();
    assert_eq!(
        (&*dead.text(), dead.get("original-destination")),
        ("poison", Some("/queue/A"))
    );
    assert!(
        dead.get("dlqDeliveryFailureCause")
            .is_some_and(|cause| !cause.is_empty()),
        "{dead:?}"
    );
}

#[test]
fn transactions_are_all_or_nothing() {
    let mesh = broker("transactions");
    let (mut stomp, mut watcher) = (connect(&mesh), connect(&mesh));
    stomp.request(Frame::message("/queue/IN", "work")).unwrap();
    subscribe(&mut watcher, "/queue/OUT", "auto");
    subscribe(&mut stomp, "/queue/IN", "client-individual");
    let work = stomp.expect_message();
    let ack = work.get("ack").unwrap().to_owned();

    stomp.request(Frame::new("BEGIN").with("transaction", "t1")).unwrap();
    stomp
        .request(Frame::message("/queue/OUT", "never").with("transaction", "t1"))
        .unwrap();
    stomp.request(Frame::new("ABORT").with("transaction", "t1")).unwrap();
    watcher.expect_no_more_from(&mut stomp, marker("/queue/OUT"));

    stomp.request(Frame::new("BEGIN").with("transaction", "t2")).unwrap();
    for n in 1..=2 {
        stomp
            .request(Frame::message("/queue/OUT", format!("done {n}")).with("transaction", "t2"))
            .unwrap();
    }
    stomp
        .request(Frame::new("ACK").with("id", ack).with("transaction", "t2"))
        .unwrap();
    watcher.expect_no_more_from(&mut stomp, marker("/queue/OUT"));
    stomp.request(Frame::new("COMMIT").with("transaction", "t2")).unwrap();
    assert_eq!(
        (watcher.expect_message().text(), watcher.expect_message().text()),
        ("done 1".into(), "done 2".into())
    );
    wait_until("the work is acknowledged", ANSWER_MAX, || {
        mesh.groups[0].messages("queue://IN") == 0
    });
}

#[test]
fn nothing_behind_a_refused_send_is_taken() {
    let mesh = broker("refused");
    let (mut stomp, mut watcher) = (connect(&mesh), connect(&mesh));
    subscribe(&mut watcher, "/queue/OUT", "auto");
    let out = |body: &str| Frame::message("/queue/OUT", body);
    let refused = Frame::message("/queue/A,/queue/B", "to two").with("transaction", "t");
    let frames = [
        Frame::new("BEGIN").with("transaction", "t"),
        out("half").with("transaction", "t"),
        refused,
        Frame::new("COMMIT").with("transaction", "t"),
        out("behind"),
    ];
    // At once, so that all of it is under way before the client can be told.
    stomp
        .write(&frames.iter().flat_map(Frame::encode).collect::<Vec<u8>>())
        .unwrap();
    stomp.expect_error();
    watcher.expect_no_more("/queue/OUT");
    wait_until("nothing is left", ANSWER_MAX, || {
        mesh.groups[0].messages("queue://OUT") == 0
    });
}

#[test]
fn topics_reach_every_subscriber_and_durable_ones_later() {
    let mesh = broker("topics");
    let address = mesh.groups[0].nodes[0].address();
    let durable = || {
        let mut stomp = Stomp::connect_with(&address, &[("client-id", "me")]).unwrap();
        let frame = Frame::subscribe("d", "/topic/NEWS", "client-individual");
        stomp.request(frame.with("activemq.subscriptionName", "news")).unwrap();
        stomp
    };
    drop(durable());
    let (mut one, mut two, mut sender) = (connect(&mesh), connect(&mesh), connect(&mesh));
    subscribe(&mut one, "/topic/NEWS", "auto");
    subscribe(&mut two, "/topic/NEWS", "auto");
    sender.request(Frame::message("/topic/NEWS", "extra")).unwrap();
    assert_eq!(
        (one.expect_message().text(), two.expect_message().text()),
        ("extra".into(), "extra".into())
    );
    let mut later = durable();
    let news = later.expect_message();
    assert_eq!(news.text(), "extra");
    later.ack(&news).unwrap();
    drop(later);
    durable().expect_no_more_from(&mut sender, marker("/topic/NEWS"));
}

#[test]
fn selectors_choose_and_leave_the_rest() {
    let mesh = broker("selectors");
    let mut stomp = connect(&mesh);
    for (colour, weight) in [("red", 1), ("blue", 5), ("red", 9)] {
        let frame = Frame::message("/queue/A", format!("{colour} {weight}"));
        stomp
            .request(frame.with("colour", colour).with("weight", weight))
            .unwrap();
    }
    let wanted =
        Frame::subscribe("1", "/queue/A", "client-individual").with("selector", "colour = 'red' AND weight > 3");
    stomp.request(wanted).unwrap();
    let message = stomp.expect_message();
    assert_eq!(message.text(), "red 9");
    stomp.ack(&message).unwrap();
    stomp.expect_no_more_from(
        &mut connect(&mesh),
        marker("/queue/A").with("colour", "red").with("weight", 4),
    );
    assert_eq!(mesh.groups[0].messages("queue://A"), 2);

    let mut wrong = connect(&mesh);
    wrong
        .send(&Frame::subscribe("1", "/queue/A", "auto").with("selector", "colour = = 1"))
        .unwrap();
    let error = wrong.expect_error();
    assert!(format!("{error:?}").contains("selector"), "{error:?}");
}

#[test]
fn an_expired_message_is_never_delivered_and_ends_as_a_dead_letter() {
    let mesh = broker("expiry");
    let mut stomp = connect(&mesh);
    stomp
        .request(Frame::message("/queue/A", "late").with("expires", now_ms() + 200))
        .unwrap();
    stomp
        .request(Frame::message("/queue/A", "in time").with("expires", now_ms() + 600_000))
        .unwrap();
    let expired_at = now_ms() + 250;
    wait_until("the first one has expired", ANSWER_MAX, || now_ms() > expired_at);
    subscribe(&mut stomp, "/queue/A", "auto");
    assert_eq!(stomp.expect_message().text(), "in time");
    stomp.expect_no_more("/queue/A");
    stomp
        .request(Frame::subscribe("dlq", "/queue/ActiveMQ.DLQ", "auto"))
        .unwrap();
    assert_eq!(stomp.expect_message().text(), "late");
}

#[test]
fn browsing_takes_nothing() {
    let mesh = broker("browse");
    let mut stomp = connect(&mesh);
    for n in 1..=3 {
        stomp.request(Frame::message("/queue/A", n.to_string())).unwrap();
    }
    stomp
        .request(Frame::subscribe("b", "/queue/A", "auto").with("browser", "true"))
        .unwrap();
    let seen: Vec<String> = (0..3).map(|_| stomp.expect_message().text()).collect();
    assert_eq!(seen, ["1", "2", "3"]);
    let end = stomp.expect_message();
    assert_eq!(end.get("browser"), Some("end"), "{end:?}");
    assert_eq!(mesh.groups[0].messages("queue://A"), 3);
}

#[test]
fn replies_find_their_temporary_queue() {
    let mesh = broker("temporary");
    let (mut client, mut server) = (connect(&mesh), connect(&mesh));
    subscribe(&mut client, "/temp-queue/answers", "auto");
    subscribe(&mut server, "/queue/SERVICE", "auto");
    client
        .request(Frame::message("/queue/SERVICE", "2+2").with("reply-to", "/temp-queue/answers"))
        .unwrap();
    let question = server.expect_message();
    server
        .request(Frame::message(question.get("reply-to").unwrap(), "4"))
        .unwrap();
    assert_eq!(client.expect_message().text(), "4");
}

#[test]
fn heart_beats_come_and_silence_is_noticed() {
    let mesh = broker("beats");
    let address = mesh.groups[0].nodes[0].address();
    let mut listener = Stomp::connect_with(&address, &[("heart-beat", "0,200")]).unwrap();
    wait_until("a heart-beat comes", ANSWER_MAX, || {
        assert_eq!(listener.next(Duration::from_millis(50)).unwrap(), None);
        listener.heartbeats > 0
    });
    // This one promises heart-beats and sends none.
    let mut silent = Stomp::connect_with(&address, &[("heart-beat", "1000,0")]).unwrap();
    let told = silent.next(ANSWER_MAX);
    let noticed = match &told {
        Ok(Some(frame)) => frame.command == "ERROR",
        Ok(None) => false,
        Err(_) => true,
    };
    assert!(noticed, "{told:?}");
}

#[test]
fn bad_input_ends_its_connection_and_nobody_elses() {
    let mesh = broker("hostile");
    let address = mesh.groups[0].nodes[0].address();
    let mut good = connect(&mesh);
    subscribe(&mut good, "/queue/A", "auto");
    let long = vec![b'x'; 2 << 20];
    let hostile: [&[u8]; 7] = [
        b"NONSENSE\n\n\0",
        b"SEND\ndestination:/queue/A\ncontent-length:-1\n\nx\0",
        b"SEND\ndestination:/queue/A\ncontent-length:99999999999\n\nx\0",
        b"SEND\ndestination:/queue/A\nbad\\escape:1\n\nx\0",
        b"SEND\nno-destination:1\n\nx\0",
        b"CONNECTED\n\n\0",
        &long,
    ];
    for bytes in hostile {
        let mut bad = Stomp::connect(&address).unwrap();
        // The broker may close before everything is written.
        let _ = bad.write(bytes);
        match bad.next(ANSWER_MAX) {
            Ok(Some(frame)) => assert_eq!(frame.command, "ERROR", "{frame:?}"),
            Ok(None) => panic!(
                "no answer to {:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
            ),
            // A reset: what was not read by the broker stood behind its error.
            Err(_) => {}
        }
    }
    let mut raw = Stomp::open(&address).unwrap();
    raw.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(
        !matches!(raw.next(ANSWER_MAX), Ok(None)),
        "something that is not STOMP is answered or closed"
    );
    good.request(Frame::message("/queue/A", "still here")).unwrap();
    assert_eq!(good.expect_message().text(), "still here");
}

#[test]
fn older_versions_of_stomp_are_spoken() {
    let mesh = broker("versions");
    let address = mesh.groups[0].nodes[0].address();
    for (offered, spoken) in [("1.0", "1.0"), ("1.0,1.1", "1.1"), ("1.1,1.2,9.9", "1.2")] {
        let mut stomp = Stomp::connect_with(&address, &[("accept-version", offered)]).unwrap();
        assert_eq!(stomp.connected.get("version"), Some(spoken));
        stomp.request(Frame::message("/queue/A", spoken)).unwrap();
        subscribe(&mut stomp, "/queue/A", "auto");
        assert_eq!(stomp.expect_message().text(), spoken);
    }
    let refused = Stomp::connect_with(&address, &[("accept-version", "9.9")]).unwrap_err();
    assert!(refused.to_string().contains("1.2"), "{refused}");
}

#[test]
fn a_killed_broker_keeps_what_it_acknowledged() {
    let mut mesh = broker("killed");
    let mut stomp = connect(&mesh);
    for n in 1..=500 {
        stomp.request(Frame::message("/queue/A", n.to_string())).unwrap();
    }
    subscribe(&mut stomp, "/queue/A", "client-individual");
    for _ in 0..100 {
        let message = stomp.expect_message();
        stomp.ack(&message).unwrap();
    }
    let node = &mut mesh.groups[0].nodes[0];
    node.kill();
    node.start();
    mesh.groups[0].master();
    let mut stomp = connect(&mesh);
    subscribe(&mut stomp, "/queue/A", "client-individual");
    for n in 101..=500 {
        let message = stomp.expect_message();
        assert_eq!(message.text(), n.to_string());
        // Which of them were on their way is not known; all that were may be marked.
        stomp
            .send(&Frame::new("ACK").with("id", message.get("ack").unwrap()))
            .unwrap();
    }
    stomp.expect_no_more("/queue/A");
}

#[test]
fn a_broker_that_is_told_to_stop_stops_and_comes_back_with_everything() {
    let mut mesh = broker("stopped");
    let mut stomp = connect(&mesh);
    stomp.request(Frame::message("/queue/A", "kept")).unwrap();
    let status = mesh.groups[0].nodes[0].stop();
    assert!(status.success(), "{status}");
    mesh.groups[0].start();
    let mut stomp = connect(&mesh);
    subscribe(&mut stomp, "/queue/A", "auto");
    let message = stomp.expect_message();
    assert_eq!((&*message.text(), message.redelivered()), ("kept", false));
}

#[test]
fn a_hangup_does_not_end_the_broker() {
    let mut mesh = broker("hangup");
    let mut stomp = connect(&mesh);
    for times in 1..=2 {
        mesh.groups[0].nodes[0].hang_up();
        wait_until("it says what it cannot do", ANSWER_MAX, || {
            mesh.groups[0].nodes[0].assert_alive();
            mesh.groups[0].nodes[0].log().matches("SIGHUP").count() >= times
        });
    }
    // The connection from before is still served.
    stomp.request(Frame::message("/queue/A", "kept")).unwrap();
    let log = mesh.groups[0].nodes[0].log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("SIGHUP")).collect();
    assert!(said.len() == 2 && said[0].contains("restart the node"), "{said:?}");
    assert!(mesh.groups[0].nodes[0].stop().success());
}

/// The log's end and what the journal has written, once nothing moves any more.
fn log_at_rest(mesh: &Mesh) -> (u64, u64) {
    let mut before = None;
    let (rest, _) = wait_for("the log is at rest", ANSWER_MAX, || {
        let status = mesh.groups[0].status();
        let now = (
            status["group"]["applied_index"].as_u64()?,
            status["journal_bytes_written"].as_u64()?,
        );
        (before.replace(now) == Some(now)).then_some(now)
    });
    rest
}

/// Sends until one message has done without the log: before that the log must hear that there are consumers.
fn warm_up(mesh: &Mesh, sender: &mut Stomp, consumer: &mut Stomp, queue: &str) {
    let name = format!("queue://{}", queue.trim_start_matches("/queue/"));
    wait_until("messages do without the log", ANSWER_MAX, || {
        sender.request(Frame::fleeting(queue, "warm-up")).unwrap();
        let message = consumer.expect_message();
        consumer.ack(&message).unwrap();
        mesh.groups[0].queue(&name).unwrap()["without_log"] != 0
    });
}

#[test]
fn non_persistent_messages_do_without_the_log_while_a_consumer_has_room() {
    let mesh = broker("fleeting");
    let (mut sender, mut consumer) = (connect(&mesh), connect(&mesh));
    subscribe(&mut consumer, "/queue/A", "client-individual");
    warm_up(&mesh, &mut sender, &mut consumer, "/queue/A");
    let rest = log_at_rest(&mesh);
    let before = mesh.groups[0].queue("queue://A").unwrap();
    for n in 0..50 {
        sender.request(Frame::fleeting("/queue/A", n.to_string())).unwrap();
    }
    let messages: Vec<Frame> = (0..50).map(|_| consumer.expect_message()).collect();
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(messages.iter().map(Frame::text).collect::<Vec<_>>(), expected, "P6");
    let queue = mesh.groups[0].queue("queue://A").unwrap();
    assert_eq!((&queue["messages"], &queue["in_flight"]), (&50.into(), &50.into()));
    for message in &messages {
        consumer.ack(message).unwrap();
    }
    let queue = mesh.groups[0].queue("queue://A").unwrap();
    let grown = |name: &str| queue[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    assert_eq!((&queue["messages"], &queue["bytes"]), (&0.into(), &0.into()));
    assert_eq!(
        (grown("enqueued"), grown("dequeued"), grown("without_log")),
        (50, 50, 50)
    );
    assert_eq!(log_at_rest(&mesh), rest, "the log has grown");
}

#[test]
fn non_persistent_messages_of_a_lost_consumer_come_again_marked_and_in_order() {
    let mesh = broker("fleeting-again");
    let (mut sender, mut first) = (connect(&mesh), connect(&mesh));
    let limited = Frame::subscribe("1", "/queue/A", "client-individual").with("activemq.prefetchSize", 3);
    first.request(limited).unwrap();
    warm_up(&mesh, &mut sender, &mut first, "/queue/A");
    // Three go straight to the consumer. The others find no room, and take the log after a moment.
    for n in 0..6 {
        sender.request(Frame::fleeting("/queue/A", n.to_string())).unwrap();
    }
    sender.request(Frame::message("/queue/A", "6")).unwrap();
    for n in 0..3 {
        assert_eq!(first.expect_message().text(), n.to_string());
    }
    assert_eq!(mesh.groups[0].messages("queue://A"), 7);
    drop(first);

    let mut second = connect(&mesh);
    subscribe(&mut second, "/queue/A", "client");
    let again: Vec<Frame> = (0..7).map(|_| second.expect_message()).collect();
    let texts: Vec<String> = again.iter().map(Frame::text).collect();
    assert_eq!(texts, ["0", "1", "2", "3", "4", "5", "6"], "P6");
    assert_eq!(
        again.iter().map(Frame::redelivered).collect::<Vec<_>>(),
        [true, true, true, false, false, false, false],
        "P3"
    );
    // One acknowledgement of both kinds.
    second.ack(&again[6]).unwrap();
    drop(second);
    let mut third = connect(&mesh);
    subscribe(&mut third, "/queue/A", "auto");
    third.expect_no_more("/queue/A");
    wait_until("nothing is left", ANSWER_MAX, || {
        mesh.groups[0].messages("queue://A") == 0
    });
}

#[test]
fn non_persistent_messages_come_back_from_an_aborted_transaction_and_are_buried_when_they_are_refused() {
    let mesh = broker("fleeting-back");
    let (mut sender, mut consumer) = (connect(&mesh), connect(&mesh));
    subscribe(&mut consumer, "/queue/A", "client-individual");
    warm_up(&mesh, &mut sender, &mut consumer, "/queue/A");
    let rest = log_at_rest(&mesh);
    let acknowledge_in = |consumer: &mut Stomp, message: &Frame, name: &str, end: &str| {
        let id = message.get("ack").unwrap();
        consumer.request(Frame::new("BEGIN").with("transaction", name)).unwrap();
        let ack = Frame::new("ACK").with("id", id).with("transaction", name);
        consumer.request(ack).unwrap();
        consumer.request(Frame::new(end).with("transaction", name)).unwrap();
    };
    sender.request(Frame::fleeting("/queue/A", "work")).unwrap();
    let message = consumer.expect_message();
    assert!(!message.redelivered());
    acknowledge_in(&mut consumer, &message, "t1", "ABORT");
    let again = consumer.expect_message();
    assert_eq!((&*again.text(), again.redelivered()), ("work", true), "P3");
    acknowledge_in(&mut consumer, &again, "t2", "COMMIT");
    assert_eq!(mesh.groups[0].messages("queue://A"), 0);
    assert_eq!(log_at_rest(&mesh), rest, "the log has grown");

    sender.request(Frame::fleeting("/queue/A", "poison")).unwrap();
    let message = consumer.expect_message();
    consumer.nack(&message).unwrap();
    let dead = Frame::subscribe("dlq", "/queue/ActiveMQ.DLQ", "client-individual");
    consumer.request(dead).unwrap();
    let dead = consumer.expect_message();
    assert_eq!(
        (&*dead.text(), dead.get("original-destination")),
        ("poison", Some("/queue/A"))
    );
    assert_eq!(mesh.groups[0].messages("queue://A"), 0);
}
