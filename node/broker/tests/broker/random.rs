//! Random commands for the property tests: few names and small numbers, so that they meet each other often.

use ferrymq_broker::{
    Accept, Acknowledge, Carried, Command, Consuming, DeadLetter, DeleteDestination, DemandVersion, Enqueue,
    EnqueueOnce, Expire, Forget, ForgetGroup, NoteTime, NoteWants, Offer, Owner, Pass, Passed, PutBack, Reclaim,
    Refused, Release, Renew, Return, Skip, Subscribe, TakeBack, Unsubscribe,
};
use ferrymq_message::{Destination, DestinationKind, Message, Producer};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Any command; queues and messages are named blindly, and often are not there.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        10 => plain(),
        1 => vec(plain(), 0..4).prop_map(Command::Transaction),
    ]
}

fn plain() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => enqueue().prop_map(Command::Enqueue),
        8 => enqueue_once().prop_map(Command::EnqueueOnce),
        6 => (queue(), seqs()).prop_map(|(queue, seqs)| Command::Acknowledge(Acknowledge { queue, seqs })),
        4 => give_back().prop_map(Command::Return),
        2 => (queue(), seqs(), option::of(queue_name()))
            .prop_map(|(queue, seqs, dead_letter)| Command::Expire(Expire { queue, seqs, dead_letter })),
        2 => (topic(), owner(), select(vec!["", "x = 1"])).prop_map(|(topic, owner, selector)| {
            Command::Subscribe(Subscribe { topic, owner, selector: selector.into() })
        }),
        1 => owner().prop_map(|owner| Command::Unsubscribe(Unsubscribe { owner })),
        5 => (queue(), seqs(), 2..4u64).prop_map(|(queue, seqs, group)| {
            Command::Offer(Offer { queue, seqs, group, group_name: format!("g{group}") })
        }),
        4 => accept().prop_map(Command::Accept),
        4 => (2..4u64, 0..6u64, refused()).prop_map(|(group, transfer, refused)| {
            Command::Release(Release { group, transfer, refused })
        }),
        2 => (2..4u64, 0..8u64).prop_map(|(origin, floor)| Command::Forget(Forget { origin, floor })),
        1 => (2..4u64).prop_map(|group| Command::Reclaim(Reclaim { group })),
        1 => (2..4u64).prop_map(|group| Command::ForgetGroup(ForgetGroup { group })),
        1 => (0..3u64).prop_map(|incarnation| Command::Renew(Renew { incarnation, lineage: 7 })),
        1 => (2..4u64, 0..6u64).prop_map(|(group, transfer)| Command::TakeBack(TakeBack { group, transfer })),
        1 => (2..4u64, 0..3u64, any::<bool>()).prop_map(|(group, change, adds)| {
            let topics = vec!["T".to_owned(), "A.>".to_owned()];
            let (added, removed) = if adds { (topics, Vec::new()) } else { (Vec::new(), topics) };
            Command::NoteWants(NoteWants {
                group,
                name: "south".into(),
                version: DemandVersion { term: 1, change },
                path: vec![2, group],
                away_since_ms: adds.then_some(5),
                added,
                removed,
            })
        }),
        2 => (queue(), any::<bool>())
            .prop_map(|(queue, begins)| Command::Consuming(Consuming { queue, begins })),
        1 => Just(Command::BeginTerm),
        1 => (1..9u64).prop_map(|time_ms| Command::NoteTime(NoteTime { time_ms })),
        1 => Just(Command::Found(7)),
        1 => (queue_name(), any::<bool>()).prop_map(|(destination, if_empty)| {
            Command::DeleteDestination(DeleteDestination { destination, if_empty })
        }),
        1 => queue_name().prop_map(Command::OpenDestination),
        2 => put_back().prop_map(Command::PutBack),
        1 => (0..40u64, 0..9u64).prop_map(|(first, more)| {
            Command::Pass(Pass { producer: "p".into(), numbers: vec![(first, first + more)] })
        }),
        1 => (user(), 0..40u64, 0..9u64, 1..3u64).prop_map(|(user, first, more, digest)| {
            let (numbers, digests) = (vec![(first, first + more)], vec![(first + more, digest)]);
            Command::Passed(Passed { user, producer: "p".into(), numbers, digests })
        }),
        1 => (user(), 0..40u64, 0..9u64).prop_map(|(user, first, more)| {
            Command::Skip(Skip { user, producer: "p".into(), numbers: vec![(first, first + more)] })
        }),
    ]
}

fn queue() -> impl Strategy<Value = u32> {
    1..6u32
}

fn seqs() -> impl Strategy<Value = Vec<u64>> {
    vec(0..12u64, 0..6).prop_map(|mut seqs| {
        seqs.sort_unstable();
        seqs
    })
}

fn queue_name() -> impl Strategy<Value = Destination> {
    select(vec![
        Destination::queue("A"),
        Destination::queue("B"),
        Destination::queue("DLQ"),
        Destination::new(DestinationKind::TempQueue, "A").unwrap(),
    ])
}

fn topic() -> impl Strategy<Value = Destination> {
    select(vec![
        Destination::topic("T.a"),
        Destination::topic("T.*"),
        Destination::topic(">"),
    ])
}

fn owner() -> impl Strategy<Value = Owner> {
    select(vec![
        Owner::Client {
            client_id: "c".into(),
            name: "s".into(),
        },
        Owner::Client {
            client_id: "c".into(),
            name: "t".into(),
        },
        Owner::Group {
            group: 2,
            topic: "T.a".into(),
        },
        Owner::Group {
            group: 3,
            topic: "T.*".into(),
        },
    ])
}

fn message(destination: Destination) -> impl Strategy<Value = Message> {
    (0..1000u32, 0..40usize, 0..2i64, any::<bool>(), 0..10u8).prop_map(
        move |(id, len, expires, persistent, priority)| {
            let mut message = Message::new(format!("m{id}"), destination.clone(), vec![7; len]);
            message.expires_ms = expires * 1_000;
            message.persistent = persistent;
            message.priority = priority;
            message
        },
    )
}

fn enqueue() -> impl Strategy<Value = Enqueue> {
    let destination = prop_oneof![3 => queue_name(), 1 => Just(Destination::topic("T.a"))];
    let producer = option::of((select(vec!["p".to_owned(), "q".to_owned()]), 0..40u64));
    (destination, producer).prop_flat_map(|(destination, producer)| {
        message(destination).prop_map(move |mut message| {
            message.producer = producer.clone().map(|(id, sequence)| Producer { id, sequence });
            Enqueue {
                message: message.encode(),
            }
        })
    })
}

fn enqueue_once() -> impl Strategy<Value = EnqueueOnce> {
    let duplicate_id = option::weighted(0.2, select(vec!["1".to_owned(), "2".to_owned()]));
    (enqueue(), user(), 1..3u64, duplicate_id).prop_map(|(enqueue, user, digest, duplicate_id)| EnqueueOnce {
        user,
        digest,
        duplicate_id,
        message: enqueue.message,
    })
}

fn user() -> impl Strategy<Value = String> {
    select(vec!["u".to_owned(), "v".to_owned()])
}

fn give_back() -> impl Strategy<Value = Return> {
    (queue(), seqs(), any::<bool>(), 0..3u16, option::of(queue_name())).prop_map(
        |(queue, seqs, counted, redeliveries_max, dead_letter)| Return {
            queue,
            seqs,
            counted,
            redeliveries_max,
            dead_letter,
            reason: "r".into(),
        },
    )
}

fn put_back() -> impl Strategy<Value = PutBack> {
    let letter = (queue_name(), queue_name()).prop_map(|(to, original)| {
        let reason = "r".into();
        (to, DeadLetter { original, reason })
    });
    let message = queue_name().prop_flat_map(message);
    (queue(), 1..4u16, option::of(letter), message).prop_map(|(queue, redeliveries, dead_letter, message)| PutBack {
        queue,
        redeliveries,
        dead_letter,
        message: message.encode(),
    })
}

fn refused() -> impl Strategy<Value = Vec<Refused>> {
    vec(
        (0..4u32, 0..2u8).prop_map(|(position, reason)| Refused { position, reason }),
        0..3,
    )
}

fn accept() -> impl Strategy<Value = Accept> {
    let destination = prop_oneof![3 => queue_name(), 1 => topic()];
    (destination, 2..4u64, 0..8u64, option::of(1..4u64), refused()).prop_flat_map(
        |(destination, origin, transfer, target, refused)| {
            vec(carried(destination.clone()), 0..4).prop_map(move |messages| Accept {
                origin,
                transfer,
                destination: destination.clone(),
                target,
                messages,
                refused: refused.clone(),
            })
        },
    )
}

fn carried(destination: Destination) -> impl Strategy<Value = Carried> {
    let sent_to = if destination.kind().is_topic() {
        Destination::topic("T.a")
    } else {
        destination
    };
    (message(sent_to.clone()), 0..3u16, any::<bool>(), 1..5u8, any::<bool>()).prop_map(
        move |(message, redeliveries, redelivered, hops, dead)| Carried {
            redeliveries,
            redelivered,
            hops,
            dead_letter: dead.then(|| DeadLetter {
                original: sent_to.clone(),
                reason: "d".into(),
            }),
            message: message.encode(),
        },
    )
}
