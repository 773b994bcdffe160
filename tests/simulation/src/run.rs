//! One seed, from the calm before the storm to the last message.

use crate::{
    client::{Ack, Client, Consumer, Job, Producer, Restarter, Transactor},
    history::Violation,
    invariants::{self, p6_order::ORDERED},
    profile::Profile,
    sabotage::Sabotage,
    world::{MS, World},
};

/// What a run was told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A deliberate fault.
    pub sabotage: Option<Sabotage>,
    /// Prints the event log.
    pub trace: bool,
}

/// What a run has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The first broken promise, and what was seen with it.
    pub violations: Vec<Violation>,
    /// Over the whole event log.
    pub hash: u64,
    /// Events of the world.
    pub events: u64,
    /// Messages written to clients.
    pub deliveries: u64,
    /// Messages that were sent.
    pub sent: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Simulated time.
    pub simulated_ms: u64,
}

const START_US: u64 = 20_000 * MS;
const HEAL_US: u64 = 30_000 * MS;
const DRAIN_US: u64 = 90_000 * MS;

/// How long messages live that do: longer than a world, and shorter than clocks are wrong by.
const LIVES_MS: i64 = 20 * 60 * 1_000;

const WORK: &str = "/queue/WORK";
const WHOLE: &str = "/queue/WHOLE";
const NEWS: &str = "/topic/NEWS";
const DEAD: &str = "/queue/ActiveMQ.DLQ";

/// Runs one seed.
pub fn run(seed: u64, options: Options) -> Report {
    let profile = Profile::of(seed);
    if options.trace {
        println!("seed {seed}: {profile:?}");
    }
    let mut world = World::new(seed, profile, options.sabotage, options.trace);
    live(&mut world);
    Report {
        violations: world.history.violations.clone(),
        hash: world.hash,
        events: world.events,
        deliveries: world.history.deliveries,
        sent: world.history.sent.len() as u64,
        faults: world.storm.struck.len() as u64,
        simulated_ms: world.now_us / MS,
    }
}

fn live(world: &mut World) {
    populate(world);
    let started = world.run_until(START_US, |world| is_settled(world));
    if !started {
        return stuck(world, "the world did not come to rest before the storm");
    }
    // Demand for the topic reaches the other groups.
    world.run(1_500 * MS);
    world.begin_storm();
    world.run(world.profile.storm_ms * MS);
    world.heal();
    world.say(|| "the storm is over".into());
    let healed = world.run_until(HEAL_US, |world| {
        is_settled(world) && world.clients.iter().all(Client::is_done)
    });
    if !healed {
        return stuck(world, "after the storm not all came back or were answered");
    }
    if !world.history.violations.is_empty() {
        return;
    }
    world.has_load = true;
    invariants::p10_doors::knock(world);
    world.has_load = false;
    invariants::p12_demand::converges(world);
    drain(world);
    if !world.history.violations.is_empty() {
        return;
    }
    invariants::p2_nothing_lost::at_the_end(world);
    invariants::p4_transfer::audit(world);
    invariants::p5_once::at_the_end(world);
    invariants::transactions::at_the_end(world);
}

/// Something that must come about has not.
fn stuck(world: &mut World, what: &str) {
    if world.history.violations.is_empty() {
        let state = describe(world);
        world.history.break_promise(2, format!("{what}: {state}"));
    }
}

fn describe(world: &World) -> String {
    let masters: Vec<Option<usize>> = (0..world.groups.len()).map(|group| world.master_of(group)).collect();
    let down: Vec<usize> = (0..world.nodes.len())
        .filter(|node| world.nodes[*node].process.is_none())
        .collect();
    let waiting: Vec<String> = world
        .clients
        .iter()
        .filter(|client| !client.gone && (!client.is_done() || !matches!(client.link, crate::client::Link::Open(_))))
        .map(|client| format!("{} {:?}", client.name, client.link))
        .collect();
    let messages: Vec<u64> = world.oracles.iter().map(crate::oracle::Oracle::messages).collect();
    let in_doubt = invariants::p4_transfer::in_doubt(world);
    let links = world.links.open.len();
    format!(
        "masters {masters:?}, down {down:?}, waiting {waiting:?}, messages {messages:?}, in doubt {in_doubt}, links {links}"
    )
}

fn populate(world: &mut World) {
    let groups = world.groups.len() as u64;
    let mut jobs: Vec<(String, usize, Job, bool)> = Vec::new();
    let profile = world.profile.clone();
    let pick = |world: &mut World| world.rng.below(groups) as usize;
    for nth in 0..profile.producers {
        let home = pick(world);
        let interval_us = world.rng.between(1, 40) * MS;
        let window = world.rng.between(1, 8) as usize;
        let mut producer = Producer::new(&format!("w{nth}"), WORK, profile.messages, window, interval_us);
        producer.expires_ms = Some(world.clients_wall_ms(home) + LIVES_MS);
        jobs.push((format!("w{nth}"), home, Job::Produce(producer), false));
    }
    let ordered_home = pick(world);
    let home = ordered_home;
    let window = world.rng.between(1, 6) as usize;
    let mut producer = Producer::new("o", ORDERED, profile.messages, window, 20 * MS);
    producer.expires_ms = Some(world.clients_wall_ms(home) + LIVES_MS);
    jobs.push(("o".into(), home, Job::Produce(producer), false));
    let home = pick(world);
    let mut producer = Producer::new("n", NEWS, profile.messages / 2, 3, 30 * MS);
    producer.expires_ms = Some(world.clients_wall_ms(home) + LIVES_MS);
    jobs.push(("n".into(), home, Job::Produce(producer), false));
    let home = pick(world);
    jobs.push((
        "t".into(),
        home,
        Job::Transact(Transactor::new("t", WHOLE, 0, profile.messages / 3)),
        false,
    ));

    if profile.restarts {
        let home = pick(world);
        let program = Restarter::new("r", WORK, profile.messages);
        jobs.push(("r".into(), home, Job::Restart(program), false));
    }
    for nth in 0..profile.consumers {
        let home = pick(world);
        let acks = [
            Ack::Individual,
            Ack::Individual,
            Ack::Cumulative,
            Ack::Transacted,
            Ack::Auto,
        ];
        let ack = acks[world.rng.below(5) as usize];
        let prefetch = world.rng.between(1, 6) as u32;
        let mut consumer = Consumer::new(WORK, ack, prefetch, world.rng.between(0, 80) * MS);
        consumer.rejects_one_in = [0, 10][world.rng.below(2) as usize];
        jobs.push((format!("c{nth}"), home, Job::Consume(consumer), true));
    }
    let home = pick(world);
    let work_us = world.rng.between(0, 30) * MS;
    jobs.push((
        "x".into(),
        home,
        Job::Consume(Consumer::new(WHOLE, Ack::Individual, 4, work_us)),
        true,
    ));
    let elsewhere = pick(world);
    // Where there are two ways to the consumer's group, messages on one may overtake those in doubt on the other
    // (docs/RELIABILITY.md, known limits): order is looked at where there is one way.
    let home = if groups > 2 { ordered_home } else { elsewhere };
    let prefetch = world.rng.between(1, 5) as u32;
    let consumer = Consumer::new(ORDERED, Ack::Individual, prefetch, 20 * MS);
    jobs.push(("sole".into(), home, Job::Consume(consumer), false));
    for nth in 0..2 {
        let home = pick(world);
        let mut consumer = Consumer::new(NEWS, Ack::Individual, 4, 20 * MS);
        consumer.durable = Some("sub".into());
        consumer.taker = Some(format!("{NEWS} for d{nth}"));
        jobs.push((format!("d{nth}"), home, Job::Consume(consumer), false));
    }
    for (name, home, job, wanders) in jobs {
        let mut client = Client::new(world.clients.len(), name, home, job);
        client.wanders = wanders;
        client.alone = client.name == "sole";
        world.add_client(client);
    }
    invariants::p11_bad_input::add(world);
}

/// Every group has a master, all links are up, and every client has a connection.
fn is_settled(world: &World) -> bool {
    let masters = (0..world.groups.len()).all(|group| world.master_of(group).is_some());
    let up = (0..world.nodes.len()).all(|node| world.nodes[node].process.is_some());
    let clients = world
        .clients
        .iter()
        .filter(|client| !client.gone)
        .all(|client| match &client.job {
            Job::Garbage => true,
            Job::Consume(consumer) => consumer.subscribed,
            _ => matches!(client.link, crate::client::Link::Open(_)),
        });
    masters && up && clients && world.all_linked()
}

/// Consumers stay in every group until nothing is left.
fn drain(world: &mut World) {
    if !world.history.violations.is_empty() {
        return;
    }
    for client in &mut world.clients {
        if let Job::Consume(consumer) = &mut client.job {
            consumer.rejects_one_in = 0;
            consumer.work_us = consumer.work_us.min(5 * MS);
        }
    }
    for group in 0..world.groups.len() {
        for destination in [WORK, WHOLE, DEAD] {
            let id = world.clients.len();
            let mut consumer = Consumer::new(destination, Ack::Individual, 8, 2 * MS);
            if destination == DEAD {
                // It is the same message, wherever it was moved.
                consumer.taker = None;
            }
            let name = format!("drain-{group}-{}", destination.rsplit('/').next().unwrap_or_default());
            world.add_client(Client::new(id, name, group, Job::Consume(consumer)));
        }
    }
    let drained = world.run_until(DRAIN_US, |world| {
        let empty = world.oracles.iter().all(|oracle| oracle.messages() == 0);
        let idle = world.clients.iter().all(|client| match &client.job {
            Job::Consume(consumer) => consumer.is_idle(),
            _ => true,
        });
        empty && idle && invariants::p4_transfer::in_doubt(world) == 0
    });
    if !drained {
        stuck(world, "not everything was delivered and acknowledged at the end");
    }
}
