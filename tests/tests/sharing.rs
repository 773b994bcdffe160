//! Consumers of one queue in two groups: what each gets of a backlog, and in which order it comes to one that moves.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use ferrymq_tests::{Frame, Mesh, MeshBuilder, Stomp, load, wait_until};

const NORTH: usize = 0;
const SOUTH: usize = 1;
const LOAD_MAX: Duration = Duration::from_secs(120);
/// How long one read waits before the thread looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);

fn at_master(mesh: &Mesh, group: usize) -> Stomp {
    let group = &mesh.groups[group];
    Stomp::connect(&group.nodes[group.master()].address()).unwrap()
}

fn fill(mesh: &Mesh, queue: &str, count: u64) {
    let mut producer = at_master(mesh, NORTH);
    for n in 1..count {
        producer.send(&Frame::message(queue, n.to_string())).unwrap();
    }
    producer.request(Frame::message(queue, count.to_string())).unwrap();
}

/// What was consumed, by whom.
#[derive(Default)]
struct Consumed {
    /// Each message once: after a lost connection one may come again.
    by_all: Mutex<HashSet<String>>,
    by_group: [AtomicU64; 2],
}

impl Consumed {
    fn count(&self) -> u64 {
        self.by_all.lock().unwrap().len() as u64
    }
}

/// Consumes with a prefetch of 1 until so many are consumed by all; `work` for each message.
fn consume(address: String, group: usize, work: Duration, consumed: Arc<Consumed>, count: u64) -> JoinHandle<()> {
    thread::spawn(move || {
        while consumed.count() < count {
            // Whatever ends a connection: the next one goes on.
            let _ = consume_over(&address, group, work, &consumed, count);
        }
    })
}

fn consume_over(
    address: &str,
    group: usize,
    work: Duration,
    consumed: &Consumed,
    count: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut stomp = Stomp::connect(address)?;
    let subscribe = Frame::subscribe("1", "/queue/A", "client-individual");
    stomp.request(subscribe.with("activemq.prefetchSize", 1))?;
    while consumed.count() < count {
        let Some(message) = stomp.next(LOOK)? else {
            continue;
        };
        let ack = message.get("ack").ok_or("no message")?.to_owned();
        // What the consumer does with it.
        load::work(work);
        stomp.send(&Frame::new("ACK").with("id", ack))?;
        if consumed.by_all.lock().unwrap().insert(message.text()) {
            consumed.by_group[group].fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// What the consumer here and the one in the other group get of a backlog here.
fn shares(name: &str, count: u64, work: Duration) -> (u64, u64) {
    let mesh = MeshBuilder::new(name)
        .group("north", 1)
        .group("south", 1)
        .link(NORTH, SOUTH)
        .start();
    fill(&mesh, "/queue/A", count);
    let consumed = Arc::new(Consumed::default());
    let consumers = [SOUTH, NORTH].map(|group| {
        let address = mesh.groups[group].nodes[0].address();
        consume(address, group, work, consumed.clone(), count)
    });
    wait_until("everything is consumed", LOAD_MAX, || consumed.count() >= count);
    for consumer in consumers {
        consumer.join().unwrap();
    }
    let [north, south] = [NORTH, SOUTH].map(|group| consumed.by_group[group].load(Ordering::Relaxed));
    println!("of {count} with {work:?} of work: {north} here, {south} in the other group");
    (north, south)
}

#[test]
fn a_consumer_in_another_group_gets_its_part_with_a_prefetch_of_one() {
    let (here, there) = shares("working", 1_000, Duration::from_millis(10));
    assert!(there * 100 >= here * 85, "{here} here, {there} in the other group");
}

#[test]
fn a_consumer_in_another_group_gets_its_part_though_its_work_takes_no_time() {
    let (here, there) = shares("idle", 10_000, Duration::ZERO);
    assert!(there * 4 >= here, "{here} here, {there} in the other group");
}

/// P6 as it is where a sole consumer moves: what had been handed over to the group that it leaves comes behind what had
/// not, and both parts keep their order.
#[test]
fn what_comes_back_from_another_group_follows_what_stayed_in_order_p6() {
    let mesh = MeshBuilder::new("moves")
        .group("north", 1)
        .group("south", 1)
        .link(NORTH, SOUTH)
        .start();
    let count = 3_000;
    fill(&mesh, "/queue/A", count);
    let take = |stomp: &mut Stomp| -> u64 {
        let message = stomp.expect_message();
        stomp
            .send(&Frame::new("ACK").with("id", message.get("ack").unwrap()))
            .unwrap();
        message.text().parse().unwrap()
    };
    let subscribe = Frame::subscribe("1", "/queue/A", "client-individual").with("activemq.prefetchSize", 500);
    let mut south = at_master(&mesh, SOUTH);
    south.request(subscribe.clone()).unwrap();
    for n in 1..=400 {
        assert_eq!(take(&mut south), n, "in order while it stays");
    }
    south.request(Frame::new("UNSUBSCRIBE").with("id", "1")).unwrap();
    south.request(Frame::new("DISCONNECT")).unwrap();
    let mut north = at_master(&mesh, NORTH);
    north.request(subscribe).unwrap();
    let rest: Vec<u64> = (401..=count).map(|_| take(&mut north)).collect();
    let first_stayed = rest[0];
    let (came_back, stayed): (Vec<u64>, Vec<u64>) = rest.iter().partition(|&&n| n < first_stayed);
    println!("{} stayed, {} came back", stayed.len(), came_back.len());
    assert_eq!(came_back, (401..first_stayed).collect::<Vec<_>>());
    assert_eq!(stayed, (first_stayed..=count).collect::<Vec<_>>());
    mesh.wait_nothing_in_doubt();
}
