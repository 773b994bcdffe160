//! Links between groups over loopback: trust, names, order, room, and what each side reads when a link ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferrymq_transport::{Channel, Identity, Link, LinkEndpoint, LinkError, LinkOptions, Refusal};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use common::{DEADLINE, name, secret, until};

fn endpoint_with(group: &str, node: u64, text: &str, options: LinkOptions) -> LinkEndpoint {
    let identity = Identity::from_secret(name(group, node), &secret(text)).unwrap();
    LinkEndpoint::bind_with(SocketAddr::from(([127, 0, 0, 1], 0)), &identity, options).unwrap()
}

fn endpoint(group: &str, node: u64, text: &str) -> LinkEndpoint {
    endpoint_with(group, node, text, LinkOptions::default())
}

async fn linked(caller: &LinkEndpoint, callee: &LinkEndpoint) -> (Link, Link) {
    let dialled = caller.dial(callee.local_addr().unwrap(), None).await.unwrap();
    (dialled, timeout(DEADLINE, callee.accept()).await.unwrap().unwrap())
}

async fn end_of(link: &mut Link) -> LinkError {
    timeout(DEADLINE, async {
        loop {
            if let Err(error) = link.recv().await {
                return error;
            }
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn both_sides_learn_the_proven_name_and_frames_pass_both_ways() {
    let (north, south) = (endpoint("north", 1, "s"), endpoint("South_2", 3, "s"));
    let (mut a, mut b) = linked(&north, &south).await;
    assert_eq!((a.peer(), b.peer()), (&name("South_2", 3), &name("north", 1)));
    a.send(
        Channel::Control,
        5,
        &[Bytes::from_static(b"de"), Bytes::from_static(b"mand")],
    )
    .await
    .unwrap();
    let frame = timeout(DEADLINE, b.recv()).await.unwrap().unwrap();
    assert_eq!(
        (frame.channel, frame.kind, &frame.payload[..]),
        (Channel::Control, 5, &b"demand"[..])
    );
    let body = Bytes::from((0..3_000_000_u32).map(|i| i as u8).collect::<Vec<_>>());
    b.send(Channel::Bulk, 6, &[Bytes::new(), body.clone()]).await.unwrap();
    let frame = timeout(DEADLINE, a.recv()).await.unwrap().unwrap();
    assert_eq!((frame.channel, frame.kind, frame.payload), (Channel::Bulk, 6, body));
    assert!(a.stats().received_bytes > 3_000_000 && a.stats().rtt > Duration::ZERO);
    until("the queue is empty", || b.stats().queued_bulk_bytes == 0).await;
}

#[tokio::test]
async fn another_secret_is_refused_whoever_dials() {
    let (north, south) = (endpoint("north", 1, "s"), endpoint("south", 1, "t"));
    for (caller, callee) in [(&north, &south), (&south, &north)] {
        let error = caller.dial(callee.local_addr().unwrap(), None).await.unwrap_err();
        assert!(matches!(error, LinkError::Untrusted(_)), "{error}");
        until("the refusal is counted", || {
            callee.refusals().count(Refusal::Untrusted) == 1
        })
        .await;
    }
}

#[tokio::test]
async fn only_the_expected_group_will_do() {
    let (north, south) = (endpoint("north", 1, "s"), endpoint("south", 1, "s"));
    let addr = south.local_addr().unwrap();
    let error = north.dial(addr, Some("east")).await.unwrap_err();
    assert_eq!(
        error,
        LinkError::WrongGroup {
            expected: "east".to_owned(),
            found: "south".to_owned()
        }
    );
    until("the refusal is counted", || south.refusals().total() == 1).await;
    let _wanted = north.dial(addr, Some("south")).await.unwrap();
    let accepted = timeout(DEADLINE, south.accept()).await.unwrap().unwrap();
    assert_eq!(
        accepted.peer(),
        &name("north", 1),
        "the link that was not wanted is not handed out"
    );
}

#[tokio::test]
async fn the_reason_for_closing_is_read_by_the_other_side() {
    let (north, south) = (endpoint("north", 1, "s"), endpoint("south", 1, "s"));
    let (mut a, mut b) = linked(&north, &south).await;
    a.close(42, "stepping down");
    assert_eq!(
        end_of(&mut b).await,
        LinkError::Closed {
            code: 42,
            text: "stepping down".to_owned()
        }
    );
    assert_eq!(end_of(&mut a).await, LinkError::ClosedHere);
    assert_eq!(a.send(Channel::Control, 1, &[]).await, Err(LinkError::ClosedHere));

    let (a, mut b) = linked(&north, &south).await;
    let (sender, receiver) = a.split();
    drop(receiver);
    assert_eq!(
        end_of(&mut b).await,
        LinkError::Closed {
            code: 0,
            text: "dropped".to_owned()
        }
    );
    assert_eq!(timeout(DEADLINE, sender.closed()).await.unwrap(), LinkError::ClosedHere);

    let (_a, mut b) = linked(&north, &south).await;
    timeout(DEADLINE, north.close(7, "going down")).await.unwrap();
    assert_eq!(
        end_of(&mut b).await,
        LinkError::Closed {
            code: 7,
            text: "going down".to_owned()
        }
    );
    assert!(north.accept().await.is_none());
}

#[tokio::test]
async fn an_oversized_frame_is_refused_by_both_sides() {
    let small = LinkOptions {
        frame_bytes_max: 1000,
        ..LinkOptions::default()
    };
    let (north, south) = (endpoint("north", 1, "s"), endpoint_with("south", 1, "s", small));
    let (mut a, mut b) = linked(&north, &south).await;
    let frame = [Bytes::from(vec![0; 1001])];
    let too_large = LinkError::FrameTooLarge {
        bytes: 1001,
        bytes_max: 1000,
    };
    assert_eq!(b.send(Channel::Bulk, 1, &frame).await, Err(too_large.clone()));
    a.send(Channel::Bulk, 1, &frame).await.unwrap();
    assert_eq!(end_of(&mut b).await, too_large);
    assert!(matches!(end_of(&mut a).await, LinkError::Closed { code: 0, text } if text.contains("1001 bytes")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_does_not_delay_control() {
    let (north, south) = (endpoint("north", 1, "s"), endpoint("south", 1, "s"));
    let (a, b) = linked(&north, &south).await;
    let (sender, mut receiver) = a.split();
    let echo = tokio::spawn(async move {
        let (back, mut from) = b.split();
        let mut bulk_bytes = 0;
        while bulk_bytes < BULK_BYTES {
            let frame = from.recv().await.unwrap();
            match frame.channel {
                Channel::Control => back.send(Channel::Control, 2, &[frame.payload]).await.unwrap(),
                Channel::Bulk => bulk_bytes += frame.payload.len(),
            }
        }
        back.send(Channel::Control, 3, &[]).await.unwrap();
        // A last ping may have been under way; then the other side closes.
        while from.recv().await.is_ok() {}
    });
    let bulk = sender.clone();
    let sending = tokio::spawn(async move {
        let chunk = Bytes::from(vec![1; 1 << 20]);
        for _ in 0..BULK_BYTES >> 20 {
            bulk.send(Channel::Bulk, 1, std::slice::from_ref(&chunk)).await.unwrap();
        }
    });
    let (mut rounds, mut slowest) = (0, Duration::ZERO);
    loop {
        let start = Instant::now();
        sender
            .send(Channel::Control, 2, &[Bytes::from_static(b"ping")])
            .await
            .unwrap();
        let frame = timeout(DEADLINE, receiver.recv()).await.unwrap().unwrap();
        if frame.kind == 3 {
            break;
        }
        slowest = slowest.max(start.elapsed());
        rounds += 1;
    }
    sending.await.unwrap();
    assert!(rounds >= 10, "{rounds} round trips beside the bulk");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    sender.close(1, "done");
    timeout(DEADLINE, echo).await.unwrap().unwrap();
}

const BULK_BYTES: usize = 64 << 20;

#[tokio::test]
async fn a_sender_waits_when_the_other_side_does_not_read_and_control_still_passes() {
    let options = LinkOptions {
        frame_bytes_max: 1 << 16,
        queue_bytes_max: 1 << 18,
        window_bytes: 1 << 17,
        ..LinkOptions::default()
    };
    let (north, south) = (
        endpoint_with("north", 1, "s", options),
        endpoint_with("south", 1, "s", options),
    );
    let (a, b) = linked(&north, &south).await;
    let (sender, mut receiver) = a.split();
    let chunk = Bytes::from(vec![1; 1 << 16]);
    let mut taken = 0;
    // Fills the bulk queue, QUIC's window and the stream until nothing moves for long, while nobody reads.
    while let Ok(sent) = timeout(
        Duration::from_secs(1),
        sender.send(Channel::Bulk, 1, std::slice::from_ref(&chunk)),
    )
    .await
    {
        sent.unwrap();
        taken += chunk.len();
        assert!(
            taken <= (1 << 18) + 2 * (1 << 17) + (1 << 17),
            "{taken} bytes were taken without a reader"
        );
    }
    assert_eq!(
        sender.try_send(Channel::Bulk, 1, std::slice::from_ref(&chunk)),
        Ok(false)
    );
    let (back, mut from) = b.split();
    sender
        .send(Channel::Control, 2, &[Bytes::from_static(b"still here")])
        .await
        .unwrap();
    // Control is read first although a quarter of a megabyte of bulk came before it.
    until("the control frame has arrived", || back.stats().received_bytes > 0).await;
    let mut bulk_before = 0;
    while timeout(DEADLINE, from.recv()).await.unwrap().unwrap().channel == Channel::Bulk {
        bulk_before += 1;
    }
    assert!(bulk_before * chunk.len() < taken, "control came after all the bulk");
    back.send(Channel::Control, 3, &[]).await.unwrap();
    assert_eq!(timeout(DEADLINE, receiver.recv()).await.unwrap().unwrap().kind, 3);
}

#[tokio::test]
async fn a_link_is_lost_when_the_other_side_falls_silent() {
    let options = LinkOptions {
        keep_alive_ms: 50,
        idle_timeout_ms: 300,
        ..LinkOptions::default()
    };
    let (north, south) = (
        endpoint_with("north", 1, "s", options),
        endpoint_with("south", 1, "s", options),
    );
    // A relay that stops: what the other side sends after that is lost, as if its host had died.
    let relay = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (relay_addr, south_addr) = (relay.local_addr().unwrap(), south.local_addr().unwrap());
    let north_addr = north.local_addr().unwrap();
    // Its port stays, so nothing is refused.
    let port = relay.clone();
    let relaying = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        loop {
            let (bytes, from) = port.recv_from(&mut buffer).await.unwrap();
            if from == south_addr {
                port.send_to(&buffer[..bytes], north_addr).await.unwrap();
            } else if from == north_addr {
                port.send_to(&buffer[..bytes], south_addr).await.unwrap();
            }
        }
    });
    let mut a = north.dial(relay_addr, None).await.unwrap();
    let mut b = timeout(DEADLINE, south.accept()).await.unwrap().unwrap();
    // Longer than the idle time-out: keep-alives hold the link.
    let held = timeout(Duration::from_millis(1_600), a.recv()).await;
    assert!(held.is_err(), "{held:?}");
    relaying.abort();
    assert_eq!(end_of(&mut a).await, LinkError::Silent);
    assert_eq!(end_of(&mut b).await, LinkError::Silent);
}

/// Who hears nothing says so, since it may still be heard: else the other side would wait for as long once more.
#[tokio::test]
async fn a_link_that_is_cut_one_way_ends_on_both_sides_at_once() {
    let options = LinkOptions {
        keep_alive_ms: 100,
        idle_timeout_ms: 1_000,
        ..LinkOptions::default()
    };
    let (north, south) = (
        endpoint_with("north", 1, "s", options),
        endpoint_with("south", 1, "s", options),
    );
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (relay_addr, south_addr) = (relay.local_addr().unwrap(), south.local_addr().unwrap());
    let north_addr = north.local_addr().unwrap();
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        loop {
            let (bytes, from) = relay.recv_from(&mut buffer).await.unwrap();
            if from == south_addr && !*is_cut.borrow() {
                relay.send_to(&buffer[..bytes], north_addr).await.unwrap();
            } else if from == north_addr {
                relay.send_to(&buffer[..bytes], south_addr).await.unwrap();
            }
        }
    });
    let mut a = north.dial(relay_addr, None).await.unwrap();
    let mut b = timeout(DEADLINE, south.accept()).await.unwrap().unwrap();
    cut.send_replace(true);
    let begun = Instant::now();
    assert_eq!(end_of(&mut a).await, LinkError::Silent);
    let near = begun.elapsed();
    let told = end_of(&mut b).await;
    assert!(
        matches!(&told, LinkError::Closed { text, .. } if text.contains("nothing is heard")),
        "{told:?}"
    );
    let idle = Duration::from_millis(options.idle_timeout_ms);
    assert!(near < idle * 3 / 2, "{near:?}");
    assert!(begun.elapsed() - near < idle / 2, "{near:?}, {:?}", begun.elapsed());
}

/// A killed process says nothing, but its system does: long before the idle time-out.
#[tokio::test]
async fn a_link_is_lost_when_the_other_sides_port_is_refused() {
    let (north, south) = (endpoint("north", 1, "s"), endpoint("south", 1, "s"));
    let relay = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (relay_addr, south_addr) = (relay.local_addr().unwrap(), south.local_addr().unwrap());
    let north_addr = north.local_addr().unwrap();
    let relaying = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        loop {
            let (bytes, from) = relay.recv_from(&mut buffer).await.unwrap();
            // Others only ask whether the port is there.
            if from == south_addr {
                relay.send_to(&buffer[..bytes], north_addr).await.unwrap();
            } else if from == north_addr {
                relay.send_to(&buffer[..bytes], south_addr).await.unwrap();
            }
        }
    });
    let mut a = north.dial(relay_addr, None).await.unwrap();
    let mut b = timeout(DEADLINE, south.accept()).await.unwrap().unwrap();
    let held = timeout(Duration::from_millis(500), a.recv()).await;
    assert!(held.is_err(), "an idle link whose port is there stays: {held:?}");
    relaying.abort();
    let begun = Instant::now();
    assert_eq!(end_of(&mut a).await, LinkError::Refused);
    assert_eq!(end_of(&mut b).await, LinkError::Refused);
    let idle = Duration::from_millis(LinkOptions::default().idle_timeout_ms);
    assert!(begun.elapsed() < idle / 2, "{:?}", begun.elapsed());
    let error = north.dial(relay_addr, None).await.unwrap_err();
    assert_eq!(error, LinkError::Refused, "nor is it dialled for seconds");
}

#[tokio::test]
async fn nobody_there_and_garbage_datagrams() {
    let options = LinkOptions {
        handshake_timeout_ms: 200,
        ..LinkOptions::default()
    };
    let (north, south) = (endpoint_with("north", 1, "s", options), endpoint("south", 1, "s"));
    let mute = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    assert_eq!(
        north.dial(mute.local_addr().unwrap(), None).await.unwrap_err(),
        LinkError::Timeout
    );
    for size in [0, 1, 20, 1200, 1400] {
        for byte in [0_u8, 0x40, 0xc0, 0xff] {
            mute.send_to(&vec![byte; size], south.local_addr().unwrap())
                .await
                .unwrap();
        }
    }
    linked(&endpoint("north", 1, "s"), &south).await;
}

#[tokio::test]
async fn contradicting_options_are_refused() {
    let identity = Identity::from_secret(name("north", 1), &secret("s")).unwrap();
    let defaults = LinkOptions::default();
    for options in [
        LinkOptions {
            keep_alive_ms: 1_500,
            ..defaults
        },
        LinkOptions {
            queue_bytes_max: defaults.frame_bytes_max,
            ..defaults
        },
        LinkOptions {
            queue_bytes_max: usize::MAX,
            ..defaults
        },
    ] {
        let error = LinkEndpoint::bind_with(SocketAddr::from(([127, 0, 0, 1], 0)), &identity, options).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}
