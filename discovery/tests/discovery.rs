//! Agents on loopback that find each other, forget each other, and do not believe strangers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use ferrymq_discovery::{Announcement, Candidate, Config, Discovery, Source, Uri};
use ferrymq_tests::skip::skipped;
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;
use tokio::time::timeout;

/// Longest wait for anything; only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(20);

fn said(group: &str, node: u64) -> Announcement {
    Announcement {
        group: group.to_owned(),
        group_id: 0x1000 + group.len() as u64,
        epoch: 1,
        node,
        incarnation: 1,
        is_master: true,
        is_dead: false,
        endpoints: vec![SocketAddr::from(([0, 0, 0, 0], 61617))],
    }
}

struct Node {
    discovery: Discovery,
    me: watch::Sender<Announcement>,
}

impl Node {
    fn start(group: &str, uri: &str, config: Config) -> Self {
        let (me, watched) = watch::channel(said(group, 1));
        let uris = vec![Uri::parse(uri).unwrap()];
        let interface = Some("127.0.0.1".to_owned());
        Self {
            discovery: Discovery::start(
                Config {
                    uris,
                    interface,
                    ..config
                },
                watched,
            ),
            me,
        }
    }

    async fn sees(&self, what: &str, condition: impl Fn(&[Candidate]) -> bool) -> Vec<Candidate> {
        let mut candidates = self.discovery.candidates();
        let seen = timeout(DEADLINE, candidates.wait_for(|all| condition(all))).await;
        seen.unwrap_or_else(|_| panic!("never: {what}; {:?}", self.discovery.candidates().borrow()))
            .unwrap()
            .clone()
    }

    async fn counts(&self, what: &str, condition: impl Fn(ferrymq_discovery::Stats) -> bool) {
        let start = Instant::now();
        while !condition(self.discovery.stats()) {
            assert!(
                start.elapsed() < DEADLINE,
                "never: {what}; {:?}",
                self.discovery.stats()
            );
            tokio::task::yield_now().await;
        }
    }
}

/// Where the tests meet: an address of its own for each, so that they do not hear each other.
fn multicast(test: u8, options: &str) -> String {
    format!(
        "multicast://239.255.77.{test}:{}?keepAliveInterval=50{options}",
        16_000 + u16::from(test)
    )
}

/// Whether a datagram to a multicast group comes back over loopback.
fn has_multicast(test: &str) -> bool {
    let try_it = || -> std::io::Result<bool> {
        let receiver = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        receiver.bind(&SocketAddrV4::new([0, 0, 0, 0].into(), 0).into())?;
        receiver.join_multicast_v4(&[239, 255, 77, 254].into(), &[127, 0, 0, 1].into())?;
        let receiver = UdpSocket::from(receiver);
        receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
        let sender = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        sender.set_multicast_if_v4(&[127, 0, 0, 1].into())?;
        let to = SocketAddrV4::new([239, 255, 77, 254].into(), receiver.local_addr()?.port());
        sender.send_to(b"?", &to.into())?;
        Ok(receiver.recv(&mut [0; 8]).is_ok())
    };
    let has = try_it().unwrap_or(false);
    if !has {
        skipped(test, "no multicast on loopback here");
    }
    has
}

/// Sends a datagram to a test's multicast address.
fn stranger(test: u8, datagram: &[u8]) {
    let sender = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    sender.set_multicast_if_v4(&[127, 0, 0, 1].into()).unwrap();
    let to = SocketAddrV4::new([239, 255, 77, test].into(), 16_000 + u16::from(test));
    sender.send_to(datagram, &to.into()).unwrap();
}

#[tokio::test]
async fn multicast_agents_find_and_forget_each_other() {
    if !has_multicast("multicast_agents_find_and_forget_each_other") {
        return;
    }
    let uri = multicast(1, "");
    let (north, south) = (
        Node::start("north", &uri, Config::default()),
        Node::start("south!", &uri, Config::default()),
    );
    let all = north.sees("south from north", |all| all.len() == 1).await;
    assert_eq!(
        (all[0].group.as_deref(), all[0].node, all[0].is_master),
        (Some("south!"), Some(1), true)
    );
    assert_eq!(all[0].sources.iter().copied().collect::<Vec<_>>(), [Source::Multicast]);
    assert_eq!(
        all[0].endpoints,
        [SocketAddr::from(([127, 0, 0, 1], 61617))],
        "the sender's address stands in"
    );
    south.sees("north from south", |all| all.len() == 1).await;

    south.me.send_modify(|me| (me.epoch, me.is_master) = (2, false));
    north
        .sees("the change", |all| all[0].epoch == 2 && !all[0].is_master)
        .await;

    // One that dies without a goodbye runs out; one that stops is forgotten at once.
    drop(south);
    north.sees("south run out", <[_]>::is_empty).await;
    assert_eq!(north.discovery.stats().expired, 1);
    let east = Node::start("east", &uri, Config::default());
    north.sees("east", |all| all.len() == 1).await;
    timeout(DEADLINE, east.discovery.stop()).await.unwrap();
    north.sees("east gone", <[_]>::is_empty).await;
    assert_eq!(north.discovery.stats().expired, 1, "a goodbye is not an expiry");
}

#[tokio::test]
async fn nodes_of_one_group_and_other_meshes_are_no_candidates() {
    if !has_multicast("nodes_of_one_group_and_other_meshes_are_no_candidates") {
        return;
    }
    let uri = multicast(2, "");
    let north = Node::start("north", &uri, Config::default());
    let sibling = Node::start("north", &uri, Config::default());
    sibling.me.send_modify(|me| me.node = 2);
    let other = Node::start("other", &multicast(2, "&group=othermesh"), Config::default());
    let south = Node::start("south!", &uri, Config::default());
    south
        .sees("north", |all| {
            all.len() == 1 && all[0].group.as_deref() == Some("north")
        })
        .await;
    north.sees("south", |all| !all.is_empty()).await;
    north
        .counts("the sibling was heard too", |stats| stats.received > 4)
        .await;
    let all = north.discovery.candidates().borrow().clone();
    assert_eq!(
        all.iter().map(|c| c.group.clone().unwrap()).collect::<Vec<_>>(),
        ["south!"]
    );
    other.counts("the other mesh announces", |stats| stats.sent > 3).await;
    assert!(other.discovery.candidates().borrow().is_empty());
}

#[tokio::test]
async fn with_a_secret_only_tagged_announcements_are_believed() {
    if !has_multicast("with_a_secret_only_tagged_announcements_are_believed") {
        return;
    }
    let uri = multicast(3, "");
    let keyed = |key: u8| Config {
        secret_key: Some([key; 32]),
        ..Config::default()
    };
    let north = Node::start("north", &uri, keyed(1));
    let _untagged = Node::start("untagged", &uri, Config::default());
    let _wrong = Node::start("wrongkey", &uri, keyed(2));
    north
        .counts("strangers are counted", |stats| stats.unauthenticated > 3)
        .await;
    assert!(north.discovery.candidates().borrow().is_empty());
    let _south = Node::start("south!", &uri, keyed(1));
    let all = north.sees("south", |all| !all.is_empty()).await;
    assert_eq!(all[0].group.as_deref(), Some("south!"));
}

#[tokio::test]
async fn foreign_datagrams_are_ignored_and_garbage_is_counted() {
    if !has_multicast("foreign_datagrams_are_ignored_and_garbage_is_counted") {
        return;
    }
    let north = Node::start("north", &multicast(4, ""), Config::default());
    north.counts("it runs", |stats| stats.sent > 0).await;
    stranger(4, b"default.ActiveMQ-4.alive.%localhost%tcp://host:61616");
    stranger(4, b"");
    stranger(4, &[&b"FMQA\x01"[..], &[0xff; 500]].concat());
    stranger(4, b"FMQA\x63");
    stranger(4, &[0x41; 5000]);
    north.counts("garbage is counted", |stats| stats.malformed == 2).await;
    let _south = Node::start("south!", &multicast(4, ""), Config::default());
    north.sees("south all the same", |all| all.len() == 1).await;
    assert_eq!(north.discovery.stats().malformed, 2);
}

#[tokio::test]
async fn a_flood_of_nodes_fills_the_table_and_no_more() {
    if !has_multicast("a_flood_of_nodes_fills_the_table_and_no_more") {
        return;
    }
    let uri = multicast(5, "");
    let small = Config {
        candidates_max: 2,
        ..Config::default()
    };
    let north = Node::start("north", &uri, small);
    let others: Vec<_> = ["a", "bb", "ccc", "dddd"]
        .map(|group| Node::start(group, &uri, Config::default()))
        .into_iter()
        .collect();
    north.counts("the table is full", |stats| stats.table_full > 2).await;
    assert_eq!(north.discovery.candidates().borrow().len(), 2);
    for node in &others {
        node.sees("all others", |all| all.len() == 4).await;
    }
}

#[tokio::test]
async fn one_who_only_listens_is_not_heard() {
    if !has_multicast("one_who_only_listens_is_not_heard") {
        return;
    }
    let uri = multicast(6, "");
    let silent = Node::start(
        "silent",
        &uri,
        Config {
            announce: false,
            ..Config::default()
        },
    );
    let south = Node::start("south!", &uri, Config::default());
    silent.sees("south", |all| all.len() == 1).await;
    assert_eq!(silent.discovery.stats().sent, 0);
    assert!(south.discovery.candidates().borrow().is_empty());
}

#[tokio::test]
async fn mdns_agents_find_and_forget_each_other() {
    if !has_multicast("mdns_agents_find_and_forget_each_other") {
        return;
    }
    let config = |key: u8| Config {
        mdns_port: 15_353,
        secret_key: Some([key; 32]),
        ..Config::default()
    };
    let north = Node::start("north", "mdns://", config(1));
    let south = Node::start("south!", "mdns://", config(1));
    let all = north.sees("south from north", |all| all.len() == 1).await;
    assert_eq!(
        (all[0].group.as_deref(), all[0].node, all[0].epoch),
        (Some("south!"), Some(1), 1)
    );
    assert_eq!(all[0].sources.iter().copied().collect::<Vec<_>>(), [Source::Mdns]);
    assert_eq!(all[0].endpoints, [SocketAddr::from(([127, 0, 0, 1], 61617))]);
    south.sees("north from south", |all| all.len() == 1).await;

    south.me.send_modify(|me| (me.epoch, me.is_master) = (2, false));
    north
        .sees("the change", |all| all[0].epoch == 2 && !all[0].is_master)
        .await;

    let _wrong = Node::start("wrongkey", "mdns://", config(2));
    north
        .counts("the wrong tag is counted", |stats| stats.unauthenticated > 0)
        .await;
    assert_eq!(north.discovery.candidates().borrow().len(), 1);

    timeout(DEADLINE, south.discovery.stop()).await.unwrap();
    north.sees("south gone", <[_]>::is_empty).await;
}

#[tokio::test]
async fn fixed_lists_are_resolved_and_merged_when_identified() {
    let uri = "static:(tcp://127.0.0.1:61617,failover:(tcp://localhost:61618,tcp://no-such-host.invalid:1))";
    let north = Node::start("north", uri, Config::default());
    let all = north
        .sees("both lists", |all| {
            all.len() == 2 && all[1].endpoints.iter().any(|e| e.port() == 61618)
        })
        .await;
    assert_eq!((all[0].group.clone(), all[0].static_list), (None, Some(0)));
    assert_eq!(all[0].endpoints, [SocketAddr::from(([127, 0, 0, 1], 61617))]);
    assert!(all[1].endpoints.iter().all(|endpoint| endpoint.ip().is_loopback()));
    north.discovery.identified(0, "south", 7).await;
    north
        .sees("the name", |all| {
            all[0].group.as_deref() == Some("south") && all[0].group_id == Some(7)
        })
        .await;
    let own = said("north", 1);
    north.discovery.identified(1, &own.group, own.group_id).await;
    north.sees("the own list gone", |all| all.len() == 1).await;
}
