//! A long backlog: nodes join and come back under load, disk is given back, memory and start stay small (P8); and how
//! long a group is without a master.
//!
//! With `FERRYMQ_SCALE=1` also at full size, which wants a release build (`FERRYMQ_BIN`), root and some minutes:
//! `FERRYMQ_SCALE=1 FERRYMQ_BIN=target/release/ferrymq cargo nextest run -p ferrymq-tests --test backlog --no-capture`.

use std::{
    env, fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use ferrymq_tests::{
    Frame, GroupOfNodes, History, Mesh, MeshBuilder, NodeProcess, Stomp, binary,
    config::GroupConfig,
    disk::PowerDisk,
    http,
    load::{self, Load, Sending},
    node::START_MAX,
    ports::Ports,
    scratch::Scratch,
    skip, wait_until,
};

const LOAD_MAX: Duration = Duration::from_secs(120);
const MESSAGE_BYTES: usize = 1024;
const BACKLOG: &str = "/queue/BACKLOG";

/// A store whose files and thresholds are small, so that a small backlog goes through all that a large one does.
const SMALL_STORE: &str =
    "\n[store]\nsegment = \"4MiB\"\nreserve = \"16MiB\"\nsnapshot_log = \"8MiB\"\ncache = \"4MiB\"\n";
/// 64 MiB of bodies.
const SMALL_BACKLOG: u64 = 65_536;

#[test]
fn a_wiped_node_catches_up_with_a_backlog_while_clients_work() {
    let mut mesh = MeshBuilder::new("backlog-wiped")
        .group("north", 3)
        .more(SMALL_STORE)
        .start();
    let history = Arc::new(History::default());
    fill(&mesh.groups[0], SMALL_BACKLOG, &history);
    let group = &mut mesh.groups[0];
    let slave = group.slave();
    group.nodes[slave].kill();
    group.nodes[slave].wipe();
    let work = Work::start(group);
    group.nodes[slave].start();
    let took = wait_caught_up(group, slave as u64 + 1, LOAD_MAX);
    println!("a wiped node has a backlog of {SMALL_BACKLOG} messages again after {took:?}");
    work.finish(&mesh);
    // What is delivered now was read from its disk.
    make_master(&mesh.groups[0], slave as u64 + 1);
    drain(&mesh, &history, SMALL_BACKLOG);
    mesh.groups[0].settle(START_MAX);
}

#[test]
fn a_new_node_joins_with_a_backlog_and_disk_is_given_back() {
    let mut mesh = MeshBuilder::new("backlog-join")
        .group("north", 3)
        .more(SMALL_STORE)
        .start();
    let history = Arc::new(History::default());
    fill(&mesh.groups[0], SMALL_BACKLOG, &history);
    let group = &mut mesh.groups[0];
    let filled: Vec<u64> = group
        .nodes
        .iter()
        .map(|node| bytes_below(&node.data().join("journal")))
        .collect();
    let backlog_bytes = SMALL_BACKLOG * MESSAGE_BYTES as u64;
    assert!(filled.iter().all(|bytes| *bytes > backlog_bytes), "{filled:?}");

    let work = Work::start(group);
    let (mut ports, dir) = (Ports::take(), mesh.dir().to_owned());
    let took = join(&mut mesh.groups[0], &mut ports, &dir, SMALL_STORE, &dir.join("north4"));
    // A node that votes has what it votes on.
    let joined_bytes = bytes_below(&mesh.groups[0].nodes[3].data().join("journal"));
    assert!(
        joined_bytes > backlog_bytes,
        "it votes with {joined_bytes} bytes on disk"
    );
    let more = wait_caught_up(&mesh.groups[0], 4, LOAD_MAX);
    println!("a new node has joined with a backlog of {SMALL_BACKLOG} messages after {took:?} + {more:?}");
    work.finish(&mesh);

    make_master(&mesh.groups[0], 4);
    drain(&mesh, &history, SMALL_BACKLOG);
    for node in &mesh.groups[0].nodes {
        let journal = node.data().join("journal");
        let took = wait_until(&format!("{} gives its disk back", node.name), LOAD_MAX, || {
            bytes_below(&journal) < backlog_bytes / 2
        });
        println!("{}: {} MiB after {took:?}", node.name, bytes_below(&journal) >> 20);
    }
    mesh.groups[0].settle(START_MAX);
}

#[test]
fn a_dead_master_is_replaced_in_time() {
    const FAIL_OVER_MAX: Duration = Duration::from_millis(400);
    const SILENCE_MAX: Duration = Duration::from_millis(1_500);
    const STEP_DOWN_MAX: Duration = Duration::from_millis(300);
    let (kills, pauses, step_downs) = if scale_is_wanted() { (20, 5, 5) } else { (3, 1, 3) };
    let mut mesh = Mesh::one_group("replaced", 3);
    let group = &mut mesh.groups[0];
    let mut prober = Prober::new(group);
    let mut fail_overs = Vec::new();
    for _ in 0..kills {
        prober.send_some();
        let killed = group.master();
        let begun = Instant::now();
        group.nodes[killed].kill();
        prober.send();
        fail_overs.push(begun.elapsed());
        group.nodes[killed].start();
        group.settle(START_MAX);
    }
    // Frozen, it holds its connections and its port: only the timers tell.
    let mut silences = Vec::new();
    for _ in 0..pauses {
        prober.send_some();
        let paused = group.master();
        let begun = Instant::now();
        group.nodes[paused].pause();
        // As a client does that has been told of nothing: it is the group that is measured.
        prober.leave(paused);
        prober.send();
        silences.push(begun.elapsed());
        group.nodes[paused].go_on();
        group.settle(START_MAX);
    }
    let mut hand_overs = Vec::new();
    for _ in 0..step_downs {
        prober.send_some();
        let admin = group.nodes[group.master()].ports.admin;
        let begun = Instant::now();
        let (status, answer) = http::post(admin, "/api/step-down", "").expect("the master answers");
        assert_eq!(status, 200, "{answer}");
        prober.send();
        hand_overs.push(begun.elapsed());
        group.settle(START_MAX);
    }
    println!(
        "from kill -9 to the first acknowledged send: {fail_overs:?}, median {:?}",
        median(&fail_overs)
    );
    println!(
        "from the freezing of the master to the first acknowledged send: {silences:?}, median {:?}",
        median(&silences)
    );
    println!(
        "from step-down to the first acknowledged send: {hand_overs:?}, median {:?}",
        median(&hand_overs)
    );
    assert!(median(&fail_overs) < FAIL_OVER_MAX);
    assert!(median(&silences) < SILENCE_MAX);
    assert!(median(&hand_overs) < STEP_DOWN_MAX);
    assert_eq!(group.messages("queue://PROBE"), prober.sent, "P2, P5");
}

/// One million messages of 1 KiB. Limits are for release builds.
#[test]
fn a_backlog_of_a_million_messages_costs_disk_and_not_memory() {
    const TEST: &str = "a_backlog_of_a_million_messages_costs_disk_and_not_memory";
    const MESSAGES: u64 = 1_000_000;
    const RESIDENT_MIB_MAX: u64 = 400;
    const WRITTEN_PER_PAYLOAD_MAX: f64 = 1.15;
    const RESTART_MAX: Duration = Duration::from_secs(5);
    const DISK_MB: u64 = 4096;
    if !scale_is_wanted() {
        return skip::left_out(TEST, "set FERRYMQ_SCALE=1");
    }
    if let Some(why) = PowerDisk::missing() {
        return skip::skipped(TEST, &why);
    }
    let optimised = env::var_os("FERRYMQ_BIN").is_some() || !cfg!(debug_assertions);
    assert!(optimised, "set FERRYMQ_BIN to a release build, or run with --release");

    let scratch = Scratch::new("million");
    let names = ["north1", "north2", "north3", "north4"];
    let disks = names.map(|name| PowerDisk::new(scratch.path(), name, DISK_MB));
    // As operators get it: the default store. (The harness adds one of its own unless there is a section.)
    let store = "\n[store]\nsync = \"quorum_disk\"\n[log]\nlevel = \"warn\"\n";
    let mut mesh = MeshBuilder::new("million")
        .group("north", 3)
        .more(store)
        .data(scratch.path())
        .start();
    let group = &mut mesh.groups[0];

    sync();
    let before = disks.each_ref().map(PowerDisk::bytes_written);
    let begun = Instant::now();
    let count = MESSAGES.to_string();
    let size = MESSAGE_BYTES.to_string();
    let uri = group.uri();
    run(&[
        "produce",
        "--url",
        &uri,
        "-d",
        "queue://BACKLOG",
        "--count",
        &count,
        "--size",
        &size,
    ]);
    let took = begun.elapsed();
    println!(
        "sent in {took:?}: {:.0} messages/s",
        MESSAGES as f64 / took.as_secs_f64()
    );
    assert_eq!(group.messages("queue://BACKLOG"), MESSAGES);
    group.settle(LOAD_MAX);
    sync();
    // All figures are wanted, also when one is too large.
    let mut broken = Vec::new();
    let payload = (MESSAGES * MESSAGE_BYTES as u64) as f64;
    for (at, node) in group.nodes.iter().enumerate() {
        let written = (disks[at].bytes_written() - before[at]) as f64 / payload;
        let (resident, peak) = memory_mib(node);
        let status = node.status().expect("a running node tells its status");
        let journal = status["group"]["journal"]["bytes_written"].as_f64().unwrap_or_default() / payload;
        println!(
            "{}: {written:.3} × payload written ({journal:.3} by the journal), {resident} MiB resident, {peak} MiB at \
             most",
            node.name
        );
        if written >= WRITTEN_PER_PAYLOAD_MAX {
            broken.push(format!("{} has written {written:.3} × payload", node.name));
        }
        if resident >= RESIDENT_MIB_MAX {
            broken.push(format!("{} occupies {resident} MiB", node.name));
        }
    }

    for node in &mut group.nodes {
        node.kill();
    }
    let begun = Instant::now();
    group.start();
    Prober::new(group).send();
    let took = begun.elapsed();
    println!("all three killed and started: the first acknowledged send after {took:?}");
    if took >= RESTART_MAX {
        broken.push(format!("a restart takes {took:?}"));
    }
    assert_eq!(group.messages("queue://BACKLOG"), MESSAGES);
    group.settle(LOAD_MAX);

    let (mut ports, dir) = (Ports::take(), mesh.dir().to_owned());
    let took = join(&mut mesh.groups[0], &mut ports, &dir, store, disks[3].path());
    wait_caught_up(&mesh.groups[0], 4, LOAD_MAX);
    println!("a new node has joined after {took:?}");
    for node in &mesh.groups[0].nodes {
        let (resident, peak) = memory_mib(node);
        println!("{}: {resident} MiB resident, {peak} MiB at most", node.name);
        if resident >= RESIDENT_MIB_MAX {
            broken.push(format!("{} occupies {resident} MiB after the join", node.name));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

fn scale_is_wanted() -> bool {
    env::var("FERRYMQ_SCALE").is_ok_and(|value| value == "1")
}

/// Sends so many messages to [`BACKLOG`] over all nodes.
#[track_caller]
fn fill(group: &GroupOfNodes, count: u64, history: &Arc<History>) {
    const PRODUCERS: u64 = 4;
    let producers: Vec<Load> = (0..PRODUCERS)
        .map(|n| {
            let mut addresses = group.addresses();
            addresses.rotate_left(n as usize % group.nodes.len());
            let sending = Sending {
                producer: format!("fill{n}"),
                destination: BACKLOG.into(),
                count: count / PRODUCERS,
                size: MESSAGE_BYTES,
            };
            load::produce(addresses, sending, history.clone())
        })
        .collect();
    for producer in producers {
        producer.finish("the backlog is sent", LOAD_MAX);
    }
    assert_eq!(group.messages("queue://BACKLOG"), count);
}

/// Consumes all that [`fill`] has sent, and judges.
#[track_caller]
fn drain(mesh: &Mesh, history: &Arc<History>, count: u64) {
    let consumers = (0..4).map(|_| load::consume(mesh.groups[0].addresses(), BACKLOG, history.clone()));
    let consumers: Vec<Load> = consumers.collect();
    mesh.drain(history, count as usize, &["queue://BACKLOG"], LOAD_MAX);
    drop(consumers);
    let report = history.report();
    println!("{report}");
    report.assert_kept();
}

/// Clients that send and consume while something else goes on.
struct Work {
    producer: Load,
    consumer: Load,
    history: Arc<History>,
}

impl Work {
    const COUNT: u64 = 5_000;

    fn start(group: &GroupOfNodes) -> Self {
        let history = Arc::new(History::default());
        let sending = Sending {
            producer: "work".into(),
            destination: "/queue/WORK".into(),
            count: Self::COUNT,
            size: MESSAGE_BYTES,
        };
        let producer = load::produce(group.addresses(), sending, history.clone());
        let consumer = load::consume(group.addresses(), "/queue/WORK", history.clone());
        wait_until("clients are at work", LOAD_MAX, || history.received() > 100);
        Self {
            producer,
            consumer,
            history,
        }
    }

    #[track_caller]
    fn finish(self, mesh: &Mesh) {
        self.producer.finish("the work is sent", LOAD_MAX);
        mesh.drain(&self.history, Self::COUNT as usize, &["queue://WORK"], LOAD_MAX);
        self.consumer.stop();
        let report = self.history.report();
        println!("work: {report}");
        report.assert_kept_in_order();
    }
}

/// Waits until the master says that a node votes and lacks nothing, and the node has applied what the master had.
#[track_caller]
fn wait_caught_up(group: &GroupOfNodes, number: u64, deadline: Duration) -> Duration {
    wait_until(&format!("node {number} has caught up and votes"), deadline, || {
        let status = group.status();
        let members = status["group"]["members"].as_array().cloned().unwrap_or_default();
        let Some(member) = members.iter().find(|member| member["node"] == number) else {
            return false;
        };
        let applied = group.nodes[number as usize - 1]
            .status()
            .and_then(|status| status["group"]["applied_index"].as_u64());
        // Under load the lag is that of a moment.
        member["is_voter"] == true
            && member["lag_entries"].as_u64().is_some_and(|lag| lag <= LAG_ENTRIES_MAX)
            && applied >= status["group"]["applied_index"].as_u64()
    })
}

/// Hands mastership to this node.
#[track_caller]
fn make_master(group: &GroupOfNodes, number: u64) {
    wait_until(&format!("node {number} is the master"), START_MAX, || {
        let master = group.master();
        // It is refused as long as the master does not know the node to be up to date.
        let asked = http::post(
            group.nodes[master].ports.admin,
            "/api/step-down",
            &format!("{{\"to\":{number}}}"),
        );
        asked.is_ok() && group.master() as u64 + 1 == number || master as u64 + 1 == number
    });
}

/// Entries that may be on their way to a slave that keeps up.
const LAG_ENTRIES_MAX: u64 = 8;

/// Starts node 4 and makes it a member, as an operator does; returns how long that took. It is `group.nodes[3]` then.
#[track_caller]
fn join(group: &mut GroupOfNodes, ports: &mut Ports, dir: &Path, more: &str, data: &Path) -> Duration {
    let mut nodes: Vec<_> = group.nodes.iter().map(|node| node.ports).collect();
    nodes.extend(GroupOfNodes::ports(ports, 1));
    let config = GroupConfig {
        name: group.name.clone(),
        nodes,
        more: more.to_owned(),
        ..GroupConfig::default()
    };
    let new = config.nodes[3];
    let mut node = NodeProcess::new("north4", dir, data, new, &config.text(4, data));
    node.start();
    let admin = format!("http://127.0.0.1:{}", group.nodes[group.slave()].ports.admin);
    group.nodes.push(node);
    let at = |port: u16| format!("127.0.0.1:{port}");
    let (peer, stomp, own_admin) = (at(new.peer), at(new.stomp), at(new.admin));
    let begun = Instant::now();
    run(&[
        "member",
        "add",
        "4",
        "--peer",
        &peer,
        "--stomp",
        &stomp,
        "--admin-address",
        &own_admin,
        "--admin",
        &admin,
    ]);
    begun.elapsed()
}

/// Runs the program, which must succeed.
#[track_caller]
fn run(arguments: &[&str]) {
    let output = Command::new(binary::ferrymq())
        .args(arguments)
        .output()
        .expect("the program can be started");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "ferrymq {arguments:?}: {}\n{stdout}{stderr}",
        output.status
    );
}

fn sync() {
    let synced = Command::new("sync").status().expect("there is a sync command");
    assert!(synced.success());
}

/// Size of all files of a directory; those that vanish meanwhile count nothing.
fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("the journal's directory is there").flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Memory that a running node occupies, now and at most so far, in MiB (`VmRSS` and `VmHWM` of proc(5)).
fn memory_mib(node: &NodeProcess) -> (u64, u64) {
    let pid = node.pid().expect("the node runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process has a status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("proc(5) has this field");
        let kib: u64 = line
            .trim_end_matches("kB")
            .trim()
            .parse()
            .expect("the field is a number of kB");
        kib / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

/// Sends one message at a time and goes to the next address when that fails, with the same number (P5).
struct Prober {
    addresses: Vec<String>,
    at: usize,
    connection: Option<Stomp>,
    sent: u64,
}

impl Prober {
    fn new(group: &GroupOfNodes) -> Self {
        Self {
            addresses: group.addresses(),
            at: 0,
            connection: None,
            sent: 0,
        }
    }

    /// Light load.
    fn send_some(&mut self) {
        for _ in 0..50 {
            self.send();
        }
    }

    /// Returns when the next message is acknowledged.
    #[track_caller]
    fn send(&mut self) {
        wait_until("a send is acknowledged", START_MAX, || {
            let done = self.try_send().is_ok();
            if !done {
                self.connection = None;
                self.at = (self.at + 1) % self.addresses.len();
            }
            done
        });
        self.sent += 1;
    }

    /// Goes to the next node but that one, since a connection to a frozen node, or by way of it, tells nothing.
    fn leave(&mut self, node: usize) {
        self.connection = None;
        self.at = (node + 1) % self.addresses.len();
    }

    fn try_send(&mut self) -> anyhow::Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(Stomp::connect(&self.addresses[self.at])?),
        };
        let frame = Frame::message("/queue/PROBE", [b'x'; MESSAGE_BYTES])
            .with("producer-id", "prober")
            .with("producer-sequence", self.sent + 1);
        connection.request(frame)
    }
}
