//! A client that we did not write, through the death of a slave and of masters: unmodified stomp.py sends with receipts and acknowledges
//! each message by itself, and what it tells is judged by the same history as everything else (P2, P3, P5, P6).

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use ferrymq_tests::{History, Mesh, binary, python, skip, wait_until};

/// How long the load may take on a busy machine.
const LOAD_MAX: Duration = Duration::from_secs(120);
/// How long all nodes may take to follow one master again.
const START_MAX: Duration = Duration::from_secs(60);
const MESSAGES: u64 = 3_000;

/// A process of `tests/clients/python/load.py`, whose lines go to a history. Dropped, it is killed.
struct Foreign {
    child: Child,
    notes: Option<JoinHandle<bool>>,
}

impl Foreign {
    fn start(python: &Path, args: &[&str], history: &Arc<History>) -> Self {
        let mut child = Command::new(python)
            .arg(binary::workspace().join("tests/clients/python/load.py"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // stomp.py tells of each connection that is lost, with a stack.
            .stderr(Stdio::null())
            .spawn()
            .expect("python can be started");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (history, producer) = (history.clone(), args[1].to_owned());
        let notes = thread::spawn(move || {
            let mut lines = lines.map_while(Result::ok);
            lines.any(|line| note(&history, &producer, &line))
        });
        Self {
            child,
            notes: Some(notes),
        }
    }

    /// Tells it that nothing more comes, and waits until it has left in good order.
    fn finish(mut self, what: &str) {
        drop(self.child.stdin.take());
        let notes = self.notes.take().expect("it is taken once");
        wait_until(what, LOAD_MAX, || notes.is_finished());
        assert!(notes.join().expect("each line is understood"), "{what}: it has died");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Notes a line; true for the last one.
fn note(history: &History, producer: &str, line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |word: &str| word.parse::<u64>().expect("a number");
    match words[..] {
        ["attempt", n] => history.attempt(producer, number(n)),
        ["receipt", n] => history.receipt(producer, number(n)),
        ["delivery", p, n, redelivered] => history.delivery(p, number(n), redelivered == "true"),
        ["garbled", p, n] => history.garbled(p, number(n)),
        ["acknowledging", p, n] => history.acknowledging(p, number(n)),
        ["confirmed", p, n] => history.confirmed(p, number(n)),
        ["left"] => return true,
        _ => panic!("not understood: {line}"),
    }
    false
}

#[test]
fn stomp_py_loses_and_doubles_nothing_when_nodes_die() {
    const TEST: &str = "stomp_py_loses_and_doubles_nothing_when_nodes_die";
    let python = match python::interpreter() {
        Ok(python) => python,
        Err(why) => return skip::skipped(TEST, &why),
    };
    let mut mesh = Mesh::one_group("python-faults", 3);
    let history = Arc::new(History::default());
    let addresses = mesh.groups[0].addresses();
    // Carried by a slave, which dies first: the master lives on, and takes back what the consumer had.
    let slave = mesh.groups[0].slave();
    let mut doors = addresses.clone();
    doors.rotate_left(slave);
    let args = ["consume", "/queue/PY.FAULTS", &doors.join(",")];
    let consumer = Foreign::start(&python, &args, &history);
    wait_until("a slave carries the consumer", LOAD_MAX, || {
        let carried = mesh.groups[0].nodes[slave].status();
        let queue = mesh.groups[0].queue("queue://PY.FAULTS");
        carried.is_some_and(|status| status["clients"]["connections"] == 1)
            && queue.is_some_and(|queue| queue["consumers"] == 1)
    });
    let producers: Vec<Foreign> = (0..2)
        .map(|n| {
            let mut addresses = addresses.clone();
            addresses.rotate_left(n);
            let (name, count) = (format!("py{n}"), (MESSAGES / 2).to_string());
            let args = ["produce", &name, "/queue/PY.FAULTS", &count, &addresses.join(",")];
            Foreign::start(&python, &args, &history)
        })
        .collect();
    for round in 1..=3 {
        let goal = round * MESSAGES as usize / 5;
        wait_until("the load goes on", LOAD_MAX, || {
            history.receipted() >= goal && history.received() >= goal / 2
        });
        let group = &mut mesh.groups[0];
        let killed = match round {
            1 => {
                group.nodes[slave].kill();
                slave
            }
            _ => group.kill_master(),
        };
        group.master();
        group.nodes[killed].start();
    }
    for producer in producers {
        producer.finish("everything is sent");
    }
    mesh.drain(&history, MESSAGES as usize, &["queue://PY.FAULTS"], LOAD_MAX);
    consumer.finish("the consumer leaves");
    let report = history.report();
    println!("{report}");
    report.assert_kept_in_order();
    assert_eq!(report.receipted, MESSAGES);
    mesh.groups[0].settle(START_MAX);
}
