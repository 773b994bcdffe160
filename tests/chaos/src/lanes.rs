//! The load: which messages go from where to where, as a table.

use std::{sync::Arc, time::Duration};

use ferrymq_tests::{
    History, Mesh,
    history::{Older, Report, Way},
};

use crate::{
    EAST, NORTH, SOUTH,
    stream::{Sending, Stream, Wanting},
};

/// One kind of load. To add one, add a row to [`LANES`].
#[derive(Debug)]
pub struct Lane {
    /// Its producer's name, too; of several, with the group's number behind.
    pub name: &'static str,
    /// Such as `/queue/ORDERS`.
    pub destination: &'static str,
    /// The groups that its producers are connected to, one each.
    pub from: &'static [usize],
    /// The groups that its consumers are connected to, one each. A queue with one consumer promises order (P6).
    pub to: &'static [usize],
    /// Messages, or transactions, in a second.
    pub per_second: u32,
    /// What its messages have to go through.
    pub kind: Kind,
    /// How long its messages live, by the wall clock of the node that is master then; for ever where none is given.
    pub lives: Option<Duration>,
}

/// Wall clocks jump by an hour; nothing that lives for a day may expire by that.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a lane's messages have to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sent, delivered, acknowledged.
    Flowing,
    /// Nobody consumes until the faults are over.
    Resting,
    /// Several are committed together.
    Transactions,
    /// Published to durable subscriptions.
    Topic,
}

/// The load of every scenario.
pub const LANES: &[Lane] = &[
    Lane {
        name: "crossing",
        destination: "/queue/CROSSING",
        from: &[NORTH],
        to: &[SOUTH],
        per_second: 60,
        kind: Kind::Flowing,
        lives: None,
    },
    Lane {
        name: "north",
        destination: "/queue/NORTH",
        from: &[NORTH],
        to: &[NORTH],
        per_second: 60,
        kind: Kind::Flowing,
        lives: None,
    },
    Lane {
        name: "resting",
        destination: "/queue/RESTING",
        from: &[NORTH],
        to: &[NORTH],
        per_second: 30,
        kind: Kind::Resting,
        lives: Some(A_DAY),
    },
    Lane {
        name: "lasting",
        destination: "/queue/LASTING",
        from: &[SOUTH],
        to: &[SOUTH],
        per_second: 20,
        kind: Kind::Resting,
        lives: Some(A_DAY),
    },
    Lane {
        name: "south",
        destination: "/queue/SOUTH",
        from: &[SOUTH],
        to: &[SOUTH],
        per_second: 60,
        kind: Kind::Flowing,
        lives: None,
    },
    Lane {
        name: "shared",
        destination: "/queue/SHARED",
        from: &[SOUTH],
        to: &[NORTH, SOUTH],
        per_second: 30,
        kind: Kind::Flowing,
        lives: None,
    },
    Lane {
        name: "ledger",
        destination: "/queue/LEDGER",
        from: &[NORTH],
        to: &[SOUTH],
        per_second: 10,
        kind: Kind::Transactions,
        lives: None,
    },
    Lane {
        name: "news",
        destination: "/topic/NEWS",
        from: &[NORTH],
        to: &[NORTH, SOUTH],
        per_second: 20,
        kind: Kind::Topic,
        lives: Some(A_DAY),
    },
    // By way of south, which has no consumers of its own for it.
    Lane {
        name: "far",
        destination: "/queue/FAR",
        from: &[NORTH],
        to: &[EAST],
        per_second: 20,
        kind: Kind::Flowing,
        lives: None,
    },
    Lane {
        name: "back",
        destination: "/queue/BACK",
        from: &[EAST],
        to: &[NORTH],
        per_second: 20,
        kind: Kind::Flowing,
        lives: None,
    },
    Lane {
        name: "home",
        destination: "/queue/HOME",
        from: &[EAST],
        to: &[EAST],
        per_second: 20,
        kind: Kind::Flowing,
        lives: None,
    },
    Lane {
        name: "bulletin",
        destination: "/topic/BULLETIN",
        from: &[NORTH, SOUTH],
        to: &[EAST],
        per_second: 10,
        kind: Kind::Topic,
        lives: Some(A_DAY),
    },
];

/// Bytes of each body.
const BODY_BYTES: usize = 600;

/// A lane under way.
#[derive(Debug)]
pub struct Flow {
    /// What it is.
    pub lane: &'static Lane,
    /// One for a queue, one for each subscription of a topic.
    pub histories: Vec<Arc<History>>,
    producers: Vec<Stream>,
    consumers: Vec<Stream>,
    wantings: Vec<(usize, Wanting)>,
}

/// All lanes under way.
#[derive(Debug)]
pub struct Load {
    /// In the order of [`LANES`].
    pub flows: Vec<Flow>,
}

impl Load {
    /// Connects consumers and producers, which are paused.
    pub fn start(mesh: &Mesh) -> Self {
        // Some producers begin at a master, some at slaves.
        let flows = LANES
            .iter()
            .enumerate()
            .map(|(at, lane)| Flow::start(lane, at, mesh))
            .collect();
        Self { flows }
    }

    /// Whether all consumers that shall be there are.
    pub fn is_connected(&self) -> bool {
        let mut consumers = self.flows.iter().flat_map(|flow| &flow.consumers);
        consumers.all(Stream::is_connected)
    }

    /// New messages from here on.
    pub fn go_on(&self) {
        self.producers().for_each(Stream::go_on);
    }

    /// No new messages.
    pub fn pause(&self) {
        self.producers().for_each(Stream::pause);
    }

    /// No producer has anything under way.
    pub fn is_at_rest(&self) -> bool {
        self.producers().all(Stream::is_at_rest)
    }

    /// Consumers for what has rested.
    pub fn wake_resting(&mut self, mesh: &Mesh) {
        for flow in self.flows.iter_mut().filter(|flow| flow.lane.kind == Kind::Resting) {
            flow.connect(mesh);
        }
    }

    /// Everything has arrived: what rests has no consumers again, and order counts for everything that comes.
    pub fn settle(&mut self) {
        self.histories().for_each(|history| history.settled());
        for flow in self.flows.iter_mut().filter(|flow| flow.lane.kind == Kind::Resting) {
            flow.consumers.clear();
        }
    }

    /// What the broker has and no consumer has settled, by lane; empty where all is well.
    pub fn owed(&self) -> Vec<String> {
        let flows = self.flows.iter();
        let all = flows.flat_map(|flow| {
            flow.histories
                .iter()
                .map(move |history| (flow.lane.name, history.owed()))
        });
        all.filter(|(_, owed)| *owed > 0)
            .map(|(lane, owed)| format!("{owed} of {lane}"))
            .collect()
    }

    /// Messages with a receipt so far, those of each subscription counted.
    pub fn receipted(&self) -> usize {
        self.histories().map(|history| history.receipted()).sum()
    }

    /// The verdict on each lane and subscription.
    pub fn reports(&self) -> Vec<(&'static Lane, Report)> {
        let flows = self.flows.iter();
        let all = flows.flat_map(|flow| flow.histories.iter().map(|history| (flow.lane, history.report())));
        all.collect()
    }

    /// The names of all queues, as status tells them.
    pub fn queues() -> Vec<String> {
        let queues = LANES.iter().filter_map(|lane| lane.destination.strip_prefix("/queue/"));
        queues.map(|name| format!("queue://{name}")).collect()
    }

    /// A group of one, stopped just now, is copied.
    pub fn copied(&self, group: usize) {
        self.on_the_way(group).for_each(|(_, history)| history.copied());
    }

    /// That group, stopped just now, is put back.
    pub fn put_back(&self, group: usize, to: Older) {
        self.on_the_way(group)
            .for_each(|(way, history)| history.put_back(way, to));
    }

    /// What was kept for the subscribers of a group that is lost is forgotten by an operator's word.
    pub fn forgotten(&self, group: usize) {
        let topics = self.flows.iter().filter(|flow| flow.lane.kind == Kind::Topic);
        let its = topics
            .filter(|flow| flow.lane.to == [group])
            .flat_map(|flow| &flow.histories);
        its.for_each(|history| history.forgotten());
    }

    fn on_the_way(&self, group: usize) -> impl Iterator<Item = (Way, &Arc<History>)> {
        self.flows.iter().flat_map(move |flow| {
            let way = match flow.lane {
                lane if lane.from.contains(&group) => Some(Way::From),
                lane if lane.to.contains(&group) => Some(Way::To),
                _ => None,
            };
            flow.histories.iter().filter_map(move |history| Some((way?, history)))
        })
    }

    fn producers(&self) -> impl Iterator<Item = &Stream> {
        self.flows.iter().flat_map(|flow| &flow.producers)
    }

    fn histories(&self) -> impl Iterator<Item = &Arc<History>> {
        self.flows.iter().flat_map(|flow| &flow.histories)
    }
}

impl Lane {
    /// A queue with one consumer keeps each producer's order (P6).
    pub fn is_ordered(&self) -> bool {
        self.kind == Kind::Topic || self.to.len() == 1
    }
}

impl Flow {
    fn start(lane: &'static Lane, first: usize, mesh: &Mesh) -> Self {
        let count = if lane.kind == Kind::Topic { lane.to.len() } else { 1 };
        let histories: Vec<Arc<History>> = (0..count).map(|_| Arc::default()).collect();
        let sending = |producer: String| Sending {
            producer,
            destination: lane.destination.into(),
            every: Duration::from_secs(1) / lane.per_second,
            size: BODY_BYTES,
            transactions: lane.kind == Kind::Transactions,
            lives: lane.lives,
            histories: histories.clone(),
        };
        let wanting = |at: usize| Wanting {
            destination: lane.destination.into(),
            durable: (lane.kind == Kind::Topic).then(|| format!("{}-{at}", lane.name)),
            size: BODY_BYTES,
            history: histories[at.min(count - 1)].clone(),
        };
        let wantings = lane
            .to
            .iter()
            .enumerate()
            .map(|(at, group)| (*group, wanting(at)))
            .collect();
        let producers = lane.from.iter().map(|group| {
            let mut addresses = mesh.groups[*group].addresses();
            let first = first % addresses.len();
            addresses.rotate_left(first);
            let producer = match lane.from {
                [_] => lane.name.to_owned(),
                _ => format!("{}-{group}", lane.name),
            };
            Stream::produce(addresses, sending(producer))
        });
        let mut flow = Self {
            lane,
            producers: producers.collect(),
            histories,
            consumers: Vec::new(),
            wantings,
        };
        if lane.kind != Kind::Resting {
            flow.connect(mesh);
        }
        flow
    }

    fn connect(&mut self, mesh: &Mesh) {
        let wantings = self.wantings.iter();
        let consumers = wantings.map(|(group, wanting)| {
            let mut addresses = mesh.groups[*group].addresses();
            // Slaves are doors, too (P10).
            let first = self.lane.name.len() % addresses.len();
            addresses.rotate_left(first);
            Stream::consume(addresses, wanting.clone())
        });
        self.consumers = consumers.collect();
    }
}
