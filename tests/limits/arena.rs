//! One node with small limits, a healthy client, and what both looked like before and during an attack.

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    time::{Duration, Instant},
};

use ferrymq_tests::{Mesh, MeshBuilder, NodeProcess};
use serde_json::Value;

use crate::{
    memory,
    pulse::{Pulse, Rounds},
};

/// `memory` of the nodes under attack, in bytes.
pub(crate) const MEMORY_BYTES: u64 = 64 << 20;
/// Their `cache`.
const CACHE_BYTES: u64 = 16 << 20;
/// What a node may take beside them: batches under way, the runtime, what the allocator keeps. Stated in
/// docs/RELIABILITY.md.
const FIXED_BYTES: u64 = 96 << 20;
/// What one connection may take beside what the accounts count.
const CONNECTION_BYTES: u64 = 96 << 10;
/// A healthy client's worst round under any attack: in full size, which is for a release build on a machine of its own,
/// and among other tests.
const WORST_MAX: Duration = Duration::from_secs(3);
const WORST_MAX_BESIDE_OTHERS: Duration = Duration::from_secs(10);
/// Rounds of the healthy client before the attack, and at least so many while it lasts.
const ROUNDS_BEFORE: usize = 60;
const ROUNDS_DURING: usize = 30;

/// Whether attacks have their full size.
pub(crate) fn is_full_size() -> bool {
    env::var_os("FERRYMQ_SCALE").is_some_and(|scale| scale != "0")
}

/// The short or the full size of something.
pub(crate) fn size<T>(short: T, full: T) -> T {
    if is_full_size() { full } else { short }
}

/// See the module.
pub(crate) struct Arena {
    /// Ends before its node does.
    pulse: Option<Pulse>,
    mesh: Mesh,
    attack: &'static str,
    before: Rounds,
    resident_before: u64,
}

impl Arena {
    /// A running node; `limits` are lines of its section.
    pub(crate) fn new(attack: &'static str, limits: &str) -> Self {
        let mut mesh = prepare(attack, limits, "");
        mesh.groups[0].start();
        Self::around(attack, mesh)
    }

    /// A running node with lines under `[store]`, too.
    pub(crate) fn with_store(attack: &'static str, limits: &str, store: &str) -> Self {
        let mut mesh = prepare(attack, limits, store);
        mesh.groups[0].start();
        Self::around(attack, mesh)
    }

    /// A node with so many file descriptors.
    pub(crate) fn with_open_files(attack: &'static str, limits: &str, open_files_max: u64) -> Self {
        let mut mesh = prepare(attack, limits, "limit = \"64MiB\"");
        mesh.groups[0].nodes[0].set_open_files_max(open_files_max);
        mesh.groups[0].start();
        Self::around(attack, mesh)
    }

    fn around(attack: &'static str, mesh: Mesh) -> Self {
        let mut arena = Self {
            pulse: None,
            mesh,
            attack,
            before: Rounds::default(),
            resident_before: 0,
        };
        let pulse = Pulse::start(&arena.address());
        arena.before = pulse.take(ROUNDS_BEFORE);
        arena.pulse = Some(pulse);
        arena.resident_before = memory::resident(arena.pid());
        memory::begin_peak(arena.pid());
        arena
    }

    pub(crate) fn node(&self) -> &NodeProcess {
        &self.mesh.groups[0].nodes[0]
    }

    pub(crate) fn address(&self) -> String {
        self.node().address()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.node().pid().unwrap()
    }

    /// The node's status.
    pub(crate) fn status(&self) -> Value {
        self.node().status().expect("the admin port answers")
    }

    /// A counter of status.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.status()["clients"][name]
            .as_u64()
            .unwrap_or_else(|| panic!("status has no clients.{name}"))
    }

    /// How many were turned away at a port for this reason.
    pub(crate) fn turned_away(&self, port: &str, reason: &str) -> u64 {
        self.status()["turned_away"][port][reason]
            .as_u64()
            .unwrap_or_else(|| panic!("status has no turned_away.{port}.{reason}"))
    }

    /// Waits until status counts something.
    #[track_caller]
    pub(crate) fn wait_count(&self, name: &str, at_least: u64) {
        ferrymq_tests::wait_until(&format!("{name} of {at_least}"), Duration::from_secs(60), || {
            self.count(name) >= at_least
        });
    }

    /// For attacks that last: true until the time is over.
    pub(crate) fn lasts(short_s: u64, full_s: u64) -> impl Fn() -> bool + Clone {
        let end = Instant::now() + Duration::from_secs(size(short_s, full_s));
        move || Instant::now() < end
    }

    /// The healthy client is served all the while, memory stays within its bound, and the row is written.
    #[track_caller]
    pub(crate) fn judge(&self, size: &str, connections: u64, more_bytes: u64, shown: &[&str]) {
        self.judge_memory(size, connections, more_bytes, shown, true);
    }

    /// As [`Arena::judge`] where the healthy client is to be held back, too (the store is full for everybody).
    #[track_caller]
    pub(crate) fn judge_memory(&self, size: &str, connections: u64, more_bytes: u64, shown: &[&str], served: bool) {
        let during = if served {
            self.pulse.as_ref().unwrap().take(ROUNDS_DURING)
        } else {
            Rounds::default()
        };
        let peak = memory::peak(self.pid());
        let status = self.status()["clients"].clone();
        let counts: Vec<String> = shown.iter().map(|name| format!("{name} {}", status[*name])).collect();
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
        let rounds = |r: &Rounds| format!("{} / {} / {}", ms(r.p50), ms(r.p99), ms(r.worst));
        let row = format!(
            "| {} | {size} | {} → {} MiB | {} | {} | {} |",
            self.attack,
            self.resident_before >> 20,
            peak >> 20,
            rounds(&self.before),
            if served { rounds(&during) } else { "held back".into() },
            counts.join(", "),
        );
        println!("{row}");
        if let Some(path) = env::var_os("FERRYMQ_TABLE") {
            let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "{row}").unwrap();
        }
        let bound = self.resident_before
            + MEMORY_BYTES
            + CACHE_BYTES
            + FIXED_BYTES
            + connections * CONNECTION_BYTES
            + more_bytes;
        assert!(
            peak <= bound,
            "{} MiB of memory, and {} are the bound: {row}",
            peak >> 20,
            bound >> 20
        );
        let worst_max = self::size(WORST_MAX_BESIDE_OTHERS, WORST_MAX);
        let is_served = !served || during.worst <= worst_max;
        assert!(
            is_served,
            "not within {worst_max:?}: each round of a healthy client; {row}"
        );
        self.node().assert_alive();
    }

    /// Ends the healthy client, for attacks that hold it back for good.
    pub(crate) fn rest(&mut self) {
        self.pulse = None;
    }
}

fn prepare(attack: &str, limits: &str, store: &str) -> Mesh {
    // Memory past its bound is not.
    ferrymq_tests::late::only_lateness_is_tried_again();
    let (memory, cache) = (MEMORY_BYTES >> 20, CACHE_BYTES >> 20);
    let name: String = attack
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    MeshBuilder::new(&format!("limits-{name}"))
        .group("north", 1)
        // So that it has a port for other groups, too.
        .secret()
        .more(&format!(
            "\n[store]\nsegment = \"4MiB\"\nreserve = \"16MiB\"\ncache = \"{cache}MiB\"\n{store}\n\n[limits]\nmemory = \
             \"{memory}MiB\"\n{limits}\n\n[log]\nlevel = \"info\"\n"
        ))
        .prepare()
}
