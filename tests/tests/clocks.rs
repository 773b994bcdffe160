//! Clocks that are wrong: messages live as long as they were given, whatever a member's clock says and however far those
//! of two groups are apart (P2).

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferrymq_tests::{
    Frame, Mesh, MeshBuilder, SkewedClock, Stomp, http,
    stomp::{ANSWER_MAX, marker},
    wait_until,
};

const HOUR_SECONDS: i64 = 3_600;
const NORTH: usize = 0;
const SOUTH: usize = 1;
const DEAD_LETTERS: &str = "queue://ActiveMQ.DLQ";

/// The right time, which clients go by.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A message that lives so long.
fn living(body: impl AsRef<[u8]>, lives: Duration) -> Frame {
    Frame::message("/queue/A", body).with("expires", now_ms() + lives.as_millis() as i64)
}

const TEN_MINUTES: Duration = Duration::from_secs(600);

fn connect(mesh: &Mesh, group: usize) -> Stomp {
    let group = &mesh.groups[group];
    Stomp::connect(&group.nodes[group.master()].address()).unwrap()
}

/// Hands mastership to the node at this position.
fn step_down_to(mesh: &Mesh, to: usize) {
    let group = &mesh.groups[NORTH];
    let admin = group.nodes[group.master()].ports.admin_address();
    let (status, answer) = http::post_at(admin, "/api/step-down", &format!("{{\"to\": {}}}", to + 1)).unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(group.master(), to);
}

/// One group of three that runs by clocks of their own.
fn three_with_clocks(test: &str) -> Option<(Mesh, Vec<SkewedClock>)> {
    let mut mesh = MeshBuilder::new(test).group("north", 3).prepare();
    let mut clocks = Vec::new();
    let dir = mesh.dir().to_owned();
    for node in &mut mesh.groups[NORTH].nodes {
        let clock = SkewedClock::new(test, &dir, &node.name)?;
        clock.wind(node);
        clocks.push(clock);
    }
    mesh.groups[NORTH].start();
    Some((mesh, clocks))
}

/// Two groups of one node, linked, the south's clock so many seconds ahead.
fn two_groups_apart(test: &str, south_ahead_seconds: i64) -> Option<Mesh> {
    let mut mesh = MeshBuilder::new(test)
        .group("north", 1)
        .group("south", 1)
        .link(NORTH, SOUTH)
        .prepare();
    let clock = SkewedClock::new(test, mesh.dir(), "south")?;
    clock.wind(&mut mesh.groups[SOUTH].nodes[0]);
    clock.set(south_ahead_seconds);
    for group in &mut mesh.groups {
        group.start();
    }
    mesh.wait_linked();
    Some(mesh)
}

#[test]
fn a_master_whose_clock_is_ahead_lets_messages_live_p2() {
    let Some((mesh, clocks)) = three_with_clocks("clock-ahead") else {
        return;
    };
    let mut sender = connect(&mesh, NORTH);
    sender.request(living("in time", TEN_MINUTES)).unwrap();
    let ahead = mesh.groups[NORTH].slave();
    clocks[ahead].set(2 * HOUR_SECONDS);
    step_down_to(&mesh, ahead);

    let mut consumer = connect(&mesh, NORTH);
    consumer.request(living("sent now", TEN_MINUTES)).unwrap();
    consumer.request(Frame::subscribe("1", "/queue/A", "auto")).unwrap();
    assert_eq!(consumer.expect_message().text(), "in time");
    assert_eq!(consumer.expect_message().text(), "sent now");
    assert_eq!(mesh.groups[NORTH].messages(DEAD_LETTERS), 0);
}

#[test]
fn messages_live_on_in_a_group_whose_clock_is_ahead_p2() {
    let Some(mesh) = two_groups_apart("groups-apart", HOUR_SECONDS) else {
        return;
    };
    let mut consumer = connect(&mesh, SOUTH);
    consumer.request(Frame::subscribe("1", "/queue/A", "auto")).unwrap();
    mesh.wait_demand(NORTH, "queue://A", 1);
    let mut sender = connect(&mesh, NORTH);
    for n in 0..50 {
        sender.request(living(n.to_string(), TEN_MINUTES)).unwrap();
    }
    let mut received: Vec<u32> = (0..50)
        .map(|_| consumer.expect_message().text().parse().unwrap())
        .collect();
    received.sort_unstable();
    assert_eq!(received, Vec::from_iter(0..50));
    consumer.expect_no_more_from(&mut sender, marker("/queue/A"));
    for group in &mesh.groups {
        assert_eq!(group.messages(DEAD_LETTERS), 0, "in {}", group.name);
    }
}

#[test]
fn what_has_crossed_to_a_group_whose_clock_is_behind_expires_in_time_p2() {
    let Some(mesh) = two_groups_apart("group-behind", -HOUR_SECONDS) else {
        return;
    };
    let mut consumer = connect(&mesh, SOUTH);
    consumer
        .request(Frame::subscribe("1", "/queue/A", "client-individual"))
        .unwrap();
    mesh.wait_demand(NORTH, "queue://A", 1);
    let mut sender = connect(&mesh, NORTH);
    let until_ms = now_ms() + 2_000;
    sender.request(living("soon over", Duration::from_secs(2))).unwrap();
    assert_eq!(consumer.expect_message().text(), "soon over");
    // It goes back to its queue there.
    drop(consumer);
    let south = &mesh.groups[SOUTH];
    wait_until("the message is a dead letter", ANSWER_MAX, || {
        south.messages(DEAD_LETTERS) == 1
    });
    assert!(now_ms() >= until_ms, "it has expired too early");
    assert_eq!(south.messages("queue://A"), 0);
}

#[test]
fn a_message_expires_in_time_under_a_master_whose_clock_is_behind() {
    let Some((mesh, clocks)) = three_with_clocks("clock-behind") else {
        return;
    };
    let behind = mesh.groups[NORTH].slave();
    clocks[behind].set(-2 * HOUR_SECONDS);
    step_down_to(&mesh, behind);
    let mut sender = connect(&mesh, NORTH);
    let until_ms = now_ms() + 2_000;
    sender.request(living("soon over", Duration::from_secs(2))).unwrap();
    wait_until("the message is a dead letter", ANSWER_MAX, || {
        mesh.groups[NORTH].messages(DEAD_LETTERS) == 1
    });
    assert!(now_ms() >= until_ms, "it has expired too early");
}

/// How far a member's clock is ahead, as the master of the north shows it.
fn skew_ms(mesh: &Mesh, at: usize) -> Option<i64> {
    let status = mesh.groups[NORTH].status();
    let members = status["master"]["clock"]["members"].as_array()?.clone();
    members.iter().find(|member| member["node"] == at + 1)?["skew_ms"].as_i64()
}

fn is_about(found: Option<i64>, wanted_seconds: i64) -> bool {
    found.is_some_and(|found| (found - 1_000 * wanted_seconds).abs() < 1_000)
}

#[test]
fn a_members_wrong_clock_is_shown_and_warned_of_once() {
    let Some((mesh, clocks)) = three_with_clocks("clock-shown") else {
        return;
    };
    let master = mesh.groups[NORTH].master();
    let wrong = mesh.groups[NORTH].slave();
    let warnings = |text: &str| mesh.groups[NORTH].nodes[master].log().matches(text).count();
    wait_until("all clocks are known and right", ANSWER_MAX, || {
        (0..3).all(|at| is_about(skew_ms(&mesh, at), 0))
    });
    assert_eq!(warnings("clock is ahead"), 0);
    clocks[wrong].set(2 * HOUR_SECONDS);
    wait_until("the wrong clock is shown", ANSWER_MAX, || {
        is_about(skew_ms(&mesh, wrong), 2 * HOUR_SECONDS)
    });
    assert!(is_about(skew_ms(&mesh, master), 0));
    wait_until("it is warned of", ANSWER_MAX, || warnings("clock is ahead") == 1);
    let time_ms = || {
        mesh.groups[NORTH].status()["master"]["clock"]["time_ms"]
            .as_i64()
            .unwrap()
    };
    let begun_ms = time_ms();
    wait_until("three more seconds have passed", ANSWER_MAX, || {
        time_ms() > begun_ms + 3_000
    });
    assert_eq!(warnings("clock is ahead"), 1);
    assert!((time_ms() - now_ms()).abs() < 2_000, "it was followed");
    clocks[wrong].set(0);
    wait_until("it is right again", ANSWER_MAX, || {
        warnings("agrees with the others again") == 1 && is_about(skew_ms(&mesh, wrong), 0)
    });
}

#[test]
fn clocks_of_groups_that_are_apart_are_shown_and_warned_of() {
    let Some(mesh) = two_groups_apart("groups-shown", HOUR_SECONDS) else {
        return;
    };
    for (from, ahead_seconds) in [(NORTH, HOUR_SECONDS), (SOUTH, -HOUR_SECONDS)] {
        wait_until("the other group's time is shown", ANSWER_MAX, || {
            let links = mesh.links_of(from);
            is_about(links.iter().find_map(|link| link["skew_ms"].as_i64()), ahead_seconds)
        });
        wait_until("it is warned of", ANSWER_MAX, || {
            mesh.groups[from].nodes[0]
                .log()
                .contains("another group's time is ahead")
        });
    }
}

#[test]
fn a_broker_that_stamps_lets_messages_of_clients_with_wrong_clocks_live_as_they_were_meant_to() {
    let mesh = MeshBuilder::new("stamps")
        .group("north", 1)
        .more("\n[clients]\ntimestamps = \"broker\"\ntime_to_live_max = \"20m\"\n")
        .start();
    let mut stomp = connect(&mesh, NORTH);
    stomp.request(Frame::subscribe("1", "/queue/A", "auto")).unwrap();
    for (ahead_seconds, lives, left) in [
        (-2 * HOUR_SECONDS, TEN_MINUTES, TEN_MINUTES),
        (2 * HOUR_SECONDS, TEN_MINUTES, TEN_MINUTES),
        (0, 6 * TEN_MINUTES, 2 * TEN_MINUTES),
    ] {
        let sent_ms = now_ms() + 1_000 * ahead_seconds;
        let message = Frame::message("/queue/A", "x")
            .with("timestamp", sent_ms)
            .with("expires", sent_ms + lives.as_millis() as i64);
        stomp.request(message).unwrap();
        let message = stomp.expect_message();
        let number = |name: &str| message.get(name).unwrap().parse::<i64>().unwrap();
        assert!((number("timestamp") - now_ms()).abs() < 20_000, "{message:?}");
        assert_eq!(number("expires") - number("timestamp"), left.as_millis() as i64);
    }
}
