//! Batches of the log and snapshots of the state.

use bytes::Bytes;
use ferrymq_broker::{
    Accept, Acknowledge, BatchBuilder, Broker, Carried, Command, Consuming, DeadLetter, DeleteDestination,
    DemandVersion, Enqueue, EnqueueOnce, Expire, Forget, ForgetGroup, NoteTime, NoteWants, Offer, Owner, Passed,
    Reclaim, Refused, Release, Renew, Return, Settings, Skip, Subscribe, TakeBack, Unsubscribe,
};
use ferrymq_fuzz::Target;
use ferrymq_message::{Destination, DestinationKind, Message};

use crate::message::full;

/// Two of every command.
fn commands() -> Vec<Command> {
    let queue = Destination::queue("A");
    let topic = Destination::topic("T.a");
    let temporary = Destination::new(DestinationKind::TempQueue, "ID:x:1").unwrap();
    let owner = Owner::Client {
        client_id: "c".into(),
        name: "s".into(),
    };
    let mut sent = full();
    sent.destination = queue.clone();
    let enqueue = |message: &Message| {
        Command::Enqueue(Enqueue {
            message: message.encode(),
        })
    };
    let carried = Carried {
        redeliveries: 1,
        redelivered: true,
        hops: 2,
        dead_letter: Some(DeadLetter {
            original: topic.clone(),
            reason: "d".into(),
        }),
        message: sent.encode(),
    };
    let refused = vec![Refused { position: 1, reason: 2 }];
    vec![
        Command::Found(7),
        Command::BeginTerm,
        Command::OpenDestination(temporary.clone()),
        enqueue(&sent),
        enqueue(&Message::new("m", queue.clone(), "x")),
        enqueue(&Message::new("m", topic.clone(), "y")),
        Command::EnqueueOnce(EnqueueOnce {
            user: "u".into(),
            digest: 7,
            duplicate_id: Some("d".into()),
            message: sent.encode(),
        }),
        Command::Passed(Passed {
            user: "u".into(),
            producer: "p".into(),
            numbers: vec![(1, 3)],
            digests: vec![(2, 7)],
        }),
        Command::Skip(Skip {
            user: "u".into(),
            producer: "p".into(),
            numbers: vec![(4, 5)],
        }),
        Command::Subscribe(Subscribe {
            topic: Destination::topic("T.*"),
            owner: owner.clone(),
            selector: "a = 1".into(),
        }),
        Command::Subscribe(Subscribe {
            topic: topic.clone(),
            owner: Owner::Group {
                group: 3,
                topic: "T.a".into(),
            },
            selector: String::new(),
        }),
        Command::Consuming(Consuming { queue: 2, begins: true }),
        Command::Return(Return {
            queue: 2,
            seqs: vec![1, 2, 300],
            counted: true,
            redeliveries_max: 0,
            dead_letter: Some(Destination::queue("DLQ")),
            reason: "r".into(),
        }),
        Command::Offer(Offer {
            queue: 2,
            seqs: vec![1, 2],
            group: 3,
            group_name: "g".into(),
        }),
        Command::Release(Release {
            group: 3,
            transfer: 1,
            refused: refused.clone(),
        }),
        Command::Accept(Accept {
            origin: 3,
            transfer: 4,
            destination: queue.clone(),
            target: None,
            messages: vec![carried.clone(), carried.clone()],
            refused: refused.clone(),
        }),
        Command::Accept(Accept {
            origin: 4,
            transfer: 1,
            destination: topic,
            target: Some(3),
            messages: vec![carried],
            refused,
        }),
        Command::Forget(Forget { origin: 3, floor: 9 }),
        Command::Reclaim(Reclaim { group: 3 }),
        Command::ForgetGroup(ForgetGroup { group: 3 }),
        Command::Renew(Renew {
            incarnation: 2,
            lineage: 7,
        }),
        Command::TakeBack(TakeBack { group: 3, transfer: 1 }),
        Command::NoteTime(NoteTime { time_ms: 7 }),
        Command::NoteWants(NoteWants {
            group: 3,
            name: "south".into(),
            version: DemandVersion { term: 4, change: 5 },
            path: vec![2, 3],
            away_since_ms: Some(6),
            added: vec!["NEWS".into(), "A.>".into()],
            removed: vec!["OLD".into()],
        }),
        Command::Transaction(vec![
            enqueue(&sent),
            Command::Acknowledge(Acknowledge {
                queue: 2,
                seqs: vec![1],
            }),
        ]),
        Command::Expire(Expire {
            queue: 2,
            seqs: vec![2],
            dead_letter: Some(queue),
        }),
        Command::Unsubscribe(Unsubscribe { owner }),
        Command::DeleteDestination(DeleteDestination {
            destination: temporary,
            if_empty: true,
        }),
    ]
}

fn batch(commands: &[Command]) -> Bytes {
    let mut batch = BatchBuilder::default();
    commands.iter().for_each(|command| batch.push(&command.encode()));
    batch.finish()
}

fn settled() -> Broker {
    let mut broker = Broker::new(Settings::default());
    for (index, some) in commands().chunks(8).enumerate() {
        broker.apply(index as u64 + 1, &batch(some)).unwrap();
    }
    broker
}

#[test]
fn fuzz_batch() {
    let commands = commands();
    let before = settled();
    let each = commands.iter().map(|command| batch(std::slice::from_ref(command)));
    Target::new("batch")
        .seeds(each.chain(commands.chunks(4).map(batch)))
        .words([
            &b"\x07\x05\0\0\0\x01\0\0\0"[..],
            b"\x02\x09\0\0\0\x02\0\0\0\x01\0\0\0",
            b"\xff\xff\xff\xff",
        ])
        // The state is cloned, and what it holds of an input's producers and queues is larger than their names.
        .allocates(600, 512 << 10)
        .run(|input| {
            let mut broker = before.clone();
            match broker.apply(99, &Bytes::copy_from_slice(input)) {
                Ok(applied) => {
                    let decoded = Broker::decode(&broker.encode(), Settings::default()).unwrap();
                    assert!(decoded == broker, "a snapshot differs from its state");
                    // The numbers tell nothing new; what kinds of effects there are does.
                    let kind = |text: String| text.split([' ', '(']).next().unwrap_or("").to_owned();
                    let effects: Vec<String> = applied.effects.iter().take(6).map(|e| kind(format!("{e:?}"))).collect();
                    effects.join(" ")
                }
                Err(error) => error.to_string(),
            }
        });
}

#[test]
fn fuzz_snapshot() {
    let early: Vec<Vec<u8>> = (1..commands().len())
        .map(|count| {
            let mut broker = Broker::new(Settings::default());
            broker.apply(1, &batch(&commands()[..count])).unwrap();
            broker.encode()
        })
        .collect();
    let after = batch(&commands());
    Target::new("snapshot")
        .seeds(early)
        .words([&b"\xff\xff\xff\xff"[..], b"\x01\0\0\0", b"\x01\x01\0\0\0a"])
        .allocates(1_500, 512 << 10)
        .run(|input| match Broker::decode(input, Settings::default()) {
            Ok(mut broker) => {
                let again = Broker::decode(&broker.encode(), Settings::default()).unwrap();
                assert!(again == broker, "a snapshot differs from its state");
                broker.live_counts();
                broker
                    .apply(1_000, &after)
                    .map_or_else(|error| error.to_string(), |_| "goes on".into())
            }
            Err(error) => error.to_string(),
        });
}
