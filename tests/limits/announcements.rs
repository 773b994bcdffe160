//! A flood of forged announcements, and garbage, where discovery listens and has no secret to tell them by.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ferrymq_tests::{
    Discovery, Mesh, MeshBuilder, NodeProcess, authority::Authority, ports::Ports, scratch::Scratch, skip::skipped,
    wait::holds_for, wait_until,
};
use rustix::net::sockopt::set_ip_multicast_if;
use serde_json::Value;

use crate::{arena::size, pulse::Pulse};

/// Names in the flood; a node keeps 1,024.
const FORGED: u16 = 1_000;
/// Attempts under way at one time, each with a socket.
const DIALS_MAX: usize = 32;
const SOON: Duration = Duration::from_secs(60);
/// How long the two true groups may take to be linked: 1 to 7 s were seen on a loaded machine.
const LINKED_MAX: Duration = Duration::from_secs(15);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 2, 3);

/// An announcement as discovery/src/announcement.rs describes it: of a master, without a tag.
fn announcement(mesh: &str, group: &str, id: u64, at: SocketAddrV4) -> Vec<u8> {
    let mut out = b"FMQA\x01\x01".to_vec();
    // The group's id, an epoch, the node, an incarnation.
    for number in [id, 1 << 40, 1, 1 << 60] {
        out.extend(number.to_le_bytes());
    }
    for name in [mesh, group] {
        out.push(name.len() as u8);
        out.extend(name.as_bytes());
    }
    out.extend([1, 4]);
    out.extend(at.ip().octets());
    out.extend(at.port().to_le_bytes());
    out
}

/// Sends to the multicast group over loopback, where this machine can do that.
fn sender(port: u16) -> Option<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    set_ip_multicast_if(&socket, &Ipv4Addr::LOCALHOST).ok()?;
    let receiver = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).ok()?;
    receiver.join_multicast_v4(&GROUP, &Ipv4Addr::LOCALHOST).ok()?;
    receiver.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    socket.send_to(b"?", (GROUP, port)).ok()?;
    receiver.recv(&mut [0; 8]).ok()?;
    Some(socket)
}

/// Says the same again and again until it is dropped.
struct Flood {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(socket: UdpSocket, port: u16, datagrams: Vec<Vec<u8>>) -> Self {
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || {
            loop {
                for some in datagrams.chunks(20) {
                    for datagram in some {
                        // A full buffer is no reason to stop.
                        let _ = socket.send_to(datagram, (GROUP, port));
                    }
                    // What comes faster than it is read is lost.
                    if stopped.recv_timeout(Duration::from_millis(10)) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the flood has failed");
        }
    }
}

/// What is no announcement, or none of this version, or of another mesh.
fn garbage(mesh: &str) -> Vec<Vec<u8>> {
    let good = announcement(mesh, "half", 5, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9));
    let mut all: Vec<Vec<u8>> = (0..good.len()).map(|end| good[..end].to_vec()).collect();
    all.push([&good[..], b"and more"].concat());
    all.push(vec![0xff; 1_400]);
    all.push(b"default.ActiveMQ-4.alive.%localhost%tcp://rogue:61616".to_vec());
    all.push(announcement(
        "another",
        "half",
        5,
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9),
    ));
    let mut counts = good;
    let at = counts.len() - 8;
    counts[at] = 0xff;
    all.push(counts);
    all
}

/// The groups `north` and `south` with certificates of one authority and `rogue` with one of another; none has a secret.
fn prepare(port: u16) -> (Mesh, String, Scratch) {
    let dir = Scratch::new("limits-authorities");
    let mesh = MeshBuilder::new("limits-announcements")
        .group("north", 1)
        .group("south", 1)
        .group("rogue", 1)
        .discovery(Discovery::Multicast)
        .more("\n[log]\nlevel = \"info\"\n")
        .prepare();
    let (authority, other) = (Authority::new(dir.path(), "own"), Authority::new(dir.path(), "other"));
    let name = format!("test-{}", std::process::id());
    let uri = format!("multicast://{GROUP}:{port}?interface=127.0.0.1&group={name}");
    let own_link = mesh.groups[0].nodes[0].ports.link;
    for group in &mesh.groups {
        let node = &group.nodes[0];
        let lines = match group.name.as_str() {
            "rogue" => other.mesh_lines("rogue", 1),
            name => authority.mesh_lines(name, 1),
        };
        let text = fs::read_to_string(node.config()).unwrap();
        assert!(text.contains("secret = \"a secret for tests only\"\n"), "{text}");
        let text = text.replace("secret = \"a secret for tests only\"\n", &lines);
        let wanted = match group.name.as_str() {
            // It tries by itself, too.
            "rogue" => format!("static:(tcp://127.0.0.1:{own_link})"),
            _ => uri.clone(),
        };
        let text = text.replace(&format!("multicast://default?group={name}"), &wanted);
        fs::write(node.config(), text).unwrap();
    }
    (mesh, name, dir)
}

fn links(node: &NodeProcess) -> Vec<Value> {
    let status = node.status().unwrap_or_default();
    status["master"]["mesh"]["links"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// Looks once in a while only: a status with a thousand groups costs more than the flood.
fn seldom(mut look: impl FnMut() -> bool) -> impl FnMut() -> bool {
    let mut last: Option<(Instant, bool)> = None;
    move || match last {
        Some((at, seen)) if at.elapsed() < Duration::from_millis(500) => seen,
        _ => {
            let seen = look();
            last = Some((Instant::now(), seen));
            seen
        }
    }
}

fn is_up(node: &NodeProcess, group: &str) -> bool {
    links(node)
        .iter()
        .any(|link| link["peer"] == group && link["state"] == "up")
}

fn open_files(node: &NodeProcess) -> usize {
    let pid = node.pid().expect("it runs");
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn forged_announcements_make_no_connect_storm_and_keep_no_true_group_away() {
    let mut ports = Ports::take();
    let port = ports.free();
    let Some(socket) = sender(port) else {
        return skipped("forged_announcements", "no multicast over loopback");
    };
    let (mut mesh, name, _dir) = prepare(port);
    for at in [0, 2] {
        mesh.groups[at].start();
    }
    let at = |mesh: &Mesh, group: usize| SocketAddrV4::new(Ipv4Addr::LOCALHOST, mesh.groups[group].nodes[0].ports.link);
    // Takes whatever comes and says nothing.
    let mute = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = SocketAddrV4::new(Ipv4Addr::LOCALHOST, mute.local_addr().unwrap().port());
    let mut said: Vec<Vec<u8>> = (0..FORGED)
        .map(|n| {
            let endpoint = match n % 50 {
                // Ourselves, and others under a name that is not theirs.
                0 => at(&mesh, 0),
                1 => at(&mesh, 1),
                2 => at(&mesh, 2),
                n if n % 2 == 0 => silent,
                // Nobody is there.
                _ => SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1 + n),
            };
            announcement(&name, &format!("forged{n}"), 1_000 + u64::from(n), endpoint)
        })
        .collect();
    // True names: of the rogue with its address, and of the true group with an id and an address that are not its own.
    said.push(announcement(&name, "rogue", 7, at(&mesh, 2)));
    said.push(announcement(&name, "south", u64::MAX, silent));
    said.extend(garbage(&name));

    let north = &mesh.groups[0].nodes[0];
    let pulse = Pulse::start(&north.address());
    let before_rounds = pulse.take(30);
    let before = open_files(north);
    let flood = Flood::start(socket, port, said);
    let mut most = 0;
    {
        let mut is_known = seldom(|| links(north).len() >= usize::from(FORGED) * 9 / 10);
        wait_until("the flood is known", SOON, || {
            most = most.max(open_files(north));
            is_known()
        });
    }
    let begun = Instant::now();
    mesh.groups[1].start();
    let started = begun.elapsed();
    let (north, south) = (&mesh.groups[0].nodes[0], &mesh.groups[1].nodes[0]);
    let mut are_linked = seldom(|| is_up(north, "south") && is_up(south, "north"));
    let linked = wait_until("the true groups are linked", LINKED_MAX, || {
        most = most.max(open_files(north));
        are_linked()
    });
    let rogue = &mesh.groups[2].nodes[0];
    let mut stays = seldom(|| is_up(north, "south") && !is_up(north, "rogue") && !is_up(rogue, "north"));
    holds_for(
        "the link stays, and no other comes",
        Duration::from_secs(size(3, 20)),
        || {
            most = most.max(open_files(north));
            stays()
        },
    );
    wait_until("the rogue is turned away", SOON, || {
        let status = north.status().unwrap_or_default();
        status["turned_away"]["link"]["untrusted"].as_u64() > Some(0)
    });
    let status = north.status().unwrap();
    assert!(
        status["discovery"]["malformed"].as_u64() > Some(0),
        "garbage is counted"
    );
    let up = links(north).into_iter().filter(|link| link["state"] == "up").count();
    assert_eq!(up, 1, "one link");
    let during = pulse.take(1);
    println!(
        "{FORGED} forged groups: descriptors {before} → {most}, linked {linked:?} after a start of {started:?}, a round \
         {before_rounds:?} → {during:?}"
    );
    assert!(most <= before + DIALS_MAX + 40, "{before} → {most} descriptors");
    assert!(during.worst <= Duration::from_secs(3), "{during:?}");
    drop(flood);
    north.assert_alive();
}
