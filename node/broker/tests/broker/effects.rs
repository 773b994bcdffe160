//! What each command brings about: outcomes, effects and what the state holds afterwards.

use ferrymq_broker::{
    Acknowledge, Broker, Command, Consuming, DeadLetter, DeleteDestination, DemandVersion, Effect, Enqueue, Expire,
    Forget, ForgetGroup, GroupId, LiveChange, NoteTime, NoteWants, Offer, Outcome, Owner, Pass, PutBack, Reclaim,
    Refused, Release, Renew, Return, Settings, Subscribe, TakeBack, Unsubscribe, epoch_of, first_transfer,
    incarnation_of, term_of,
};
use ferrymq_message::{Destination, DestinationKind, Message, Producer};

use crate::group::Group;

const NORTH: GroupId = 1;
const SOUTH: GroupId = 2;

fn message(destination: &Destination, id: &str) -> Message {
    Message::new(id, destination.clone(), id.to_owned())
}

fn enqueue(message: &Message) -> Command {
    Command::Enqueue(Enqueue {
        message: message.encode(),
    })
}

fn produced(destination: &Destination, id: &str, sequence: u64) -> Command {
    let mut message = message(destination, id);
    message.producer = Some(Producer {
        id: "p".into(),
        sequence,
    });
    enqueue(&message)
}

fn send(destination: &Destination, id: &str) -> Command {
    enqueue(&message(destination, id))
}

fn acknowledge(queue: u32, seqs: &[u64]) -> Command {
    Command::Acknowledge(Acknowledge {
        queue,
        seqs: seqs.to_vec(),
    })
}

fn give_back(queue: u32, seqs: &[u64], redeliveries_max: u16) -> Command {
    Command::Return(Return {
        queue,
        seqs: seqs.to_vec(),
        counted: true,
        redeliveries_max,
        dead_letter: Some(Destination::queue("DLQ")),
        reason: "too often".into(),
    })
}

fn offer(queue: u32, seqs: &[u64]) -> Command {
    Command::Offer(Offer {
        queue,
        seqs: seqs.to_vec(),
        group: SOUTH,
        group_name: "south".into(),
    })
}

fn release(transfer: u64, refused: &[u32]) -> Command {
    let refused = refused
        .iter()
        .map(|&position| Refused { position, reason: 1 })
        .collect();
    Command::Release(Release {
        group: SOUTH,
        transfer,
        refused,
    })
}

fn durable(name: &str, topic: &Destination, selector: &str) -> Command {
    Command::Subscribe(Subscribe {
        topic: topic.clone(),
        owner: client(name),
        selector: selector.into(),
    })
}

fn client(name: &str) -> Owner {
    Owner::Client {
        client_id: "c".into(),
        name: name.into(),
    }
}

fn available(queue: u32, seq: u64, returned: bool) -> Effect {
    Effect::Available { queue, seq, returned }
}

/// A group with these messages on queue Q, which has number 1.
fn with_queue(ids: &[&str]) -> (Group, Destination) {
    let mut group = Group::new(NORTH);
    let q = Destination::queue("Q");
    for id in ids {
        group.apply(&send(&q, id));
    }
    (group, q)
}

#[test]
fn a_send_makes_its_queue_and_pins_its_bytes() {
    let mut group = Group::new(NORTH);
    let q = Destination::queue("Q");
    let applied = group.batch(&[send(&q, "a"), send(&q, "b")]);
    assert_eq!(applied.outcomes, vec![Outcome::Done, Outcome::Done]);
    let created = Effect::QueueCreated { queue: 1 };
    assert_eq!(
        applied.effects,
        vec![created, available(1, 0, false), available(1, 1, false)]
    );
    let places: Vec<_> = group
        .broker
        .queues()
        .get(1)
        .unwrap()
        .iter_from(0)
        .map(|(_, slot)| slot.place)
        .collect();
    let bytes = i64::from(places[0].len + places[1].len);
    assert_eq!(
        applied.live,
        vec![LiveChange {
            index: group.index,
            references: 2,
            bytes
        }]
    );
    assert_eq!(group.broker.live_places(group.index, group.index), places);
    assert_eq!(group.broker.live_places(0, group.index - 1), vec![]);
    assert_eq!(group.ids(1), ["a", "b"]);
}

#[test]
fn a_resend_is_stored_once_p5() {
    let mut group = Group::new(NORTH);
    let q = Destination::queue("Q");
    let command = |id: &str, sequence| produced(&q, id, sequence);
    assert_eq!(group.outcome(&command("a", 1)), Outcome::Done);
    let again = group.batch(&[command("a", 1), command("b", 2), command("b", 2)]);
    assert_eq!(
        again.outcomes,
        vec![Outcome::Duplicate, Outcome::Done, Outcome::Duplicate]
    );
    assert_eq!(again.effects, vec![available(1, 1, false)]);
    assert_eq!(group.ids(1), ["a", "b"]);
}

#[test]
fn a_transaction_that_commits_late_is_no_resend_p5() {
    let mut group = Group::new(NORTH);
    let q = Destination::queue("Q");
    let command = |id: &str, sequence| produced(&q, id, sequence);
    group.apply(&command("outside", 3));
    let transaction = Command::Transaction(vec![command("a", 1), command("b", 2)]);
    assert_eq!(
        group.outcome(&transaction),
        Outcome::Many(vec![Outcome::Done, Outcome::Done])
    );
    let again = Outcome::Many(vec![Outcome::Duplicate, Outcome::Duplicate]);
    assert_eq!(group.outcome(&transaction), again, "committed again after a fail-over");
    assert_eq!(group.ids(1), ["outside", "a", "b"]);
}

#[test]
fn acknowledging_twice_does_no_harm() {
    let (mut group, _) = with_queue(&["a", "b", "c"]);
    let applied = group.apply(&acknowledge(1, &[0, 2]));
    let removed = |seq| Effect::Removed { queue: 1, seq };
    assert_eq!(applied.effects, vec![removed(0), removed(2)]);
    assert_eq!(
        applied.live.iter().map(|change| change.references).collect::<Vec<_>>(),
        vec![-1, -1]
    );
    let again = group.apply(&acknowledge(1, &[0, 2, 77]));
    assert_eq!(
        (again.outcomes, again.effects, again.live),
        (vec![Outcome::Done], vec![], vec![])
    );
    assert_eq!(group.outcome(&acknowledge(9, &[0])), Outcome::NotFound);
    assert_eq!(group.ids(1), ["b"]);
}

#[test]
fn what_comes_back_is_counted_and_at_last_a_dead_letter() {
    let (mut group, q) = with_queue(&["a"]);
    for count in 1..=2 {
        assert_eq!(group.apply(&give_back(1, &[0], 2)).effects, vec![available(1, 0, true)]);
        let queue = group.broker.queues().get(1).unwrap();
        let slot = queue.get(0).unwrap();
        assert_eq!((slot.redeliveries, queue.redelivered(0, slot)), (count, true));
    }
    let effects = group.apply(&give_back(1, &[0], 2)).effects;
    let removed = Effect::Removed { queue: 1, seq: 0 };
    assert_eq!(
        effects,
        vec![Effect::QueueCreated { queue: 2 }, removed, available(2, 0, false)]
    );
    let letter = group.broker.queues().get(2).unwrap().dead_letter(0).unwrap();
    assert_eq!((&letter.original, letter.reason.as_str()), (&q, "too often"));
    assert_eq!((group.ids(1), group.ids(2)), (vec![], vec!["a".to_owned()]));

    let rejected_again = group.apply(&give_back(2, &[0], 0)).effects;
    assert_eq!(
        rejected_again,
        vec![available(2, 0, true)],
        "a dead letter has nowhere else to go"
    );
}

#[test]
fn what_surely_never_reached_a_consumer_is_not_counted() {
    let (mut group, _) = with_queue(&["a"]);
    let back = Return {
        queue: 1,
        seqs: vec![0],
        counted: false,
        redeliveries_max: 0,
        dead_letter: Some(Destination::queue("DLQ")),
        reason: String::new(),
    };
    assert_eq!(group.apply(&Command::Return(back)).effects, vec![available(1, 0, true)]);
    let queue = group.broker.queues().get(1).unwrap();
    assert!(!queue.redelivered(0, queue.get(0).unwrap()));
}

#[test]
fn expired_messages_are_dropped_or_become_dead_letters() {
    let mut group = Group::new(NORTH);
    let q = Destination::queue("Q");
    let mut kept = message(&q, "kept");
    kept.expires_ms = 5;
    let mut dropped = kept.clone();
    dropped.persistent = false;
    group.batch(&[enqueue(&kept), enqueue(&dropped), enqueue(&kept)]);
    let dead_letter = Some(Destination::queue("DLQ"));
    group.apply(&Command::Expire(Expire {
        queue: 1,
        seqs: vec![0, 1],
        dead_letter: dead_letter.clone(),
    }));
    assert_eq!((group.ids(1).len(), group.ids(2)), (1, vec!["kept".to_owned()]));
    let dead = group.broker.queues().get(2).unwrap();
    assert_eq!(dead.get(0).unwrap().expires_ms, 0, "a dead letter does not expire");
    assert_eq!(dead.dead_letter(0).unwrap().reason, "expired");
    group.apply(&Command::Expire(Expire {
        queue: 1,
        seqs: vec![2],
        dead_letter: None,
    }));
    assert_eq!((group.ids(1).len(), group.ids(2).len()), (0, 1));

    let mut sent_there = message(&Destination::queue("DLQ"), "sent there");
    sent_there.expires_ms = 5;
    group.apply(&enqueue(&sent_there));
    let effects = group
        .apply(&Command::Expire(Expire {
            queue: 2,
            seqs: vec![1],
            dead_letter,
        }))
        .effects;
    assert_eq!(
        effects,
        vec![Effect::Removed { queue: 2, seq: 1 }],
        "else it would expire there for ever"
    );
}

#[test]
fn what_an_earlier_master_may_have_delivered_is_marked_p3() {
    let (mut group, q) = with_queue(&["a", "b"]);
    let consuming = |begins| Command::Consuming(Consuming { queue: 1, begins });
    let marks = |group: &Group| {
        let queue = group.broker.queues().get(1).unwrap();
        queue
            .iter_from(0)
            .map(|(seq, slot)| queue.redelivered(seq, slot))
            .collect::<Vec<_>>()
    };
    group.apply(&Command::BeginTerm);
    assert_eq!(marks(&group), [false, false], "nobody consumed");
    assert_eq!(
        group.apply(&consuming(true)).effects,
        vec![Effect::ConsumingBegan { queue: 1 }]
    );
    group.apply(&Command::BeginTerm);
    group.apply(&send(&q, "c"));
    assert_eq!(marks(&group), [true, true, false]);
    group.apply(&consuming(true));
    assert_eq!(group.apply(&consuming(false)).effects, vec![]);
    group.apply(&Command::BeginTerm);
    assert_eq!(marks(&group), [true, true, false], "nothing was in flight any more");

    group.apply(&Command::Expire(Expire {
        queue: 1,
        seqs: vec![0],
        dead_letter: Some(Destination::queue("DLQ")),
    }));
    let dead = group.broker.queues().get(2).unwrap();
    assert!(
        dead.redelivered(0, dead.get(0).unwrap()),
        "the mark goes with the message"
    );
}

#[test]
fn a_durable_subscription_keeps_what_is_published_while_its_client_is_away() {
    let mut group = Group::new(NORTH);
    let topic = Destination::topic("news.de");
    let pattern = Destination::topic("news.*");
    assert_eq!(group.outcome(&durable("exact", &topic, "")), Outcome::Queue(1));
    assert_eq!(group.outcome(&durable("wide", &pattern, "")), Outcome::Queue(2));
    assert_eq!(
        group.outcome(&durable("exact", &topic, "")),
        Outcome::Queue(1),
        "taken up again"
    );
    let applied = group.apply(&send(&topic, "a"));
    let place = group.broker.queues().get(1).unwrap().get(0).unwrap().place;
    let published = Effect::Published {
        topic: topic.clone(),
        place,
    };
    assert_eq!(
        applied.effects,
        vec![available(1, 0, false), available(2, 0, false), published]
    );
    assert_eq!(applied.live[0].references, 2, "one message, two references");

    assert_eq!(
        group.outcome(&durable("exact", &topic, "x = 1")),
        Outcome::Queue(3),
        "another selector begins anew"
    );
    assert!(group.broker.queues().get(1).is_none());
    let unsubscribe = Command::Unsubscribe(Unsubscribe { owner: client("wide") });
    assert_eq!(
        group.apply(&unsubscribe).effects,
        vec![Effect::QueueDeleted { queue: 2 }]
    );
    assert_eq!(group.outcome(&unsubscribe), Outcome::NotFound);
    assert_eq!(group.apply(&send(&topic, "b")).effects[0], available(3, 0, false));
    assert_eq!(group.broker.subscriptions().matching("news.en"), Vec::<u32>::new());
}

#[test]
fn a_group_gets_one_copy_of_a_topic_and_passes_none_on() {
    let mut north = Group::new(NORTH);
    let topic = Destination::topic("news.de");
    for name in ["news.de", "news.>"] {
        let owner = Owner::Group {
            group: SOUTH,
            topic: name.into(),
        };
        north.apply(&Command::Subscribe(Subscribe {
            topic: Destination::topic(name),
            owner,
            selector: String::new(),
        }));
    }
    north.apply(&send(&topic, "a"));
    assert_eq!(
        (north.ids(1).len(), north.ids(2).len()),
        (1, 0),
        "one copy under two patterns"
    );

    let mut south = Group::new(SOUTH);
    let owner = Owner::Group {
        group: NORTH,
        topic: "news.de".into(),
    };
    south.apply(&Command::Subscribe(Subscribe {
        topic: topic.clone(),
        owner,
        selector: String::new(),
    }));
    south.apply(&durable("s", &topic, ""));
    north.apply(&offer(1, &[0]));
    let accept = north.carry(SOUTH, 0, &[]).unwrap();
    assert_eq!(accept.target, Some(SOUTH));
    south.apply(&Command::Accept(accept));
    assert_eq!(
        (south.ids(1).len(), south.ids(2).len()),
        (0, 1),
        "it does not go back where it was published"
    );
}

#[test]
fn a_transaction_is_one_entry_and_is_not_nested() {
    let (mut group, q) = with_queue(&["a"]);
    let transaction = Command::Transaction(vec![acknowledge(1, &[0]), send(&q, "b")]);
    let applied = group.apply(&transaction);
    assert_eq!(
        applied.outcomes,
        vec![Outcome::Many(vec![Outcome::Done, Outcome::Done])]
    );
    assert_eq!(group.ids(1), ["b"]);
    let mut batch = ferrymq_broker::BatchBuilder::default();
    batch.push(&ferrymq_broker::encode_transaction(&[transaction.encode()]));
    let nested = group.broker.clone().apply(99, &batch.finish());
    assert_eq!(nested, Err(ferrymq_broker::ApplyError::Nested));
    let mut batch = ferrymq_broker::BatchBuilder::default();
    batch.push(&ferrymq_broker::encode_transaction(&[
        send(&q, "c").encode(),
        send(&q, "d").encode(),
    ]));
    group.broker.apply(group.index + 1, &batch.finish()).unwrap();
    assert_eq!(group.broker.queues().get(1).unwrap().len(), 3);
}

#[test]
fn what_a_master_had_handed_out_without_the_log_is_put_back_with_its_count() {
    let (mut group, q) = with_queue(&["a"]);
    let put_back = |queue: u32, dead_letter: Option<(Destination, DeadLetter)>| {
        let mut message = message(&q, "b");
        message.expires_ms = 5_000;
        Command::PutBack(PutBack {
            queue,
            redeliveries: 2,
            dead_letter,
            message: message.encode(),
        })
    };
    let applied = group.apply(&put_back(1, None));
    assert_eq!(applied.effects, vec![available(1, 1, false)]);
    assert_eq!(group.ids(1), ["a", "b"]);
    let queue = group.broker.queues().get(1).unwrap();
    let slot = queue.get(1).unwrap();
    assert_eq!(
        (slot.redeliveries, queue.redelivered(1, slot), slot.expires_ms),
        (2, true, 5_000)
    );
    assert_eq!(
        group.outcome(&put_back(9, None)),
        Outcome::NotFound,
        "deleted meanwhile"
    );

    let letter = DeadLetter {
        original: q.clone(),
        reason: "rejected".into(),
    };
    group.apply(&put_back(9, Some((Destination::queue("DLQ"), letter.clone()))));
    let dlq = group.broker.queues().get(2).unwrap();
    assert_eq!((dlq.dead_letter(0), dlq.get(0).unwrap().expires_ms), (Some(&letter), 0));
}

#[test]
fn a_number_that_did_without_the_log_is_no_gap_and_its_resend_is_recognised_p5() {
    let (mut group, q) = with_queue(&[]);
    group.apply(&produced(&q, "a", 0));
    let numbers = vec![(1, 4), (7, 7)];
    group.apply(&Command::Pass(Pass {
        producer: "p".into(),
        numbers,
    }));
    for (sequence, new) in [(5, true), (3, false), (7, false), (6, true), (8, true), (0, false)] {
        let outcome = group.outcome(&produced(&q, "m", sequence));
        assert_eq!(outcome == Outcome::Done, new, "{sequence}: {outcome:?}");
    }
}

#[test]
fn an_offered_message_is_nobody_elses_p4() {
    let (mut group, q) = with_queue(&["a", "b", "c"]);
    let applied = group.apply(&offer(1, &[0, 1, 9]));
    assert_eq!(
        applied.outcomes,
        vec![Outcome::Offered {
            transfer: 0,
            taken: vec![0, 1]
        }]
    );
    assert_eq!(
        applied.effects,
        vec![Effect::Offered {
            queue: 1,
            group: SOUTH,
            transfer: 0
        }]
    );
    assert_eq!(group.outcome(&offer(1, &[1])), Outcome::NotFound, "already under offer");
    assert_eq!(
        group.apply(&give_back(1, &[0], 0)).effects,
        vec![],
        "it cannot be buried"
    );
    let dead_letter = Some(Destination::queue("DLQ"));
    assert_eq!(
        group
            .apply(&Command::Expire(Expire {
                queue: 1,
                seqs: vec![0],
                dead_letter
            }))
            .effects,
        vec![]
    );
    let delete = DeleteDestination {
        destination: q,
        if_empty: false,
    };
    assert!(matches!(
        group.outcome(&Command::DeleteDestination(delete)),
        Outcome::Refused(_)
    ));
    assert_eq!(group.ids(1), ["a", "b", "c"]);
}

#[test]
fn a_release_forgets_what_was_taken_and_parks_what_is_refused_again_and_again() {
    let (mut group, _) = with_queue(&["a", "b"]);
    group.apply(&offer(1, &[0, 1]));
    let effects = group.apply(&release(0, &[1])).effects;
    assert_eq!(
        effects,
        vec![Effect::Removed { queue: 1, seq: 0 }, available(1, 1, true)]
    );
    assert_eq!(
        group.outcome(&release(0, &[])),
        Outcome::NotFound,
        "a repeat does no harm"
    );
    for transfer in 1..3 {
        assert!(!group.broker.queues().get(1).unwrap().get(1).unwrap().parked());
        group.apply(&offer(1, &[1]));
        group.apply(&release(transfer, &[0]));
    }
    assert!(group.broker.queues().get(1).unwrap().get(1).unwrap().parked());
    assert_eq!(group.ids(1), ["b"]);
}

#[test]
fn a_late_copy_of_a_transfer_stores_nothing_p4() {
    let (mut north, q) = with_queue(&["a"]);
    let mut south = Group::new(SOUTH);
    north.apply(&offer(1, &[0]));
    let accept = Command::Accept(north.carry(SOUTH, 0, &[]).unwrap());
    let taken = Outcome::Accepted { refused: vec![] };
    assert_eq!(south.outcome(&accept), taken);
    assert_eq!(south.outcome(&accept), taken, "answered the same, stored once");
    south.apply(&Command::Forget(Forget {
        origin: NORTH,
        floor: 1,
    }));
    assert_eq!(south.outcome(&accept), Outcome::Settled);
    south.apply(&Command::Forget(Forget {
        origin: NORTH,
        floor: 0,
    }));
    assert_eq!(south.outcome(&accept), Outcome::Settled, "a floor never sinks");
    let queue = south.queue(&q).unwrap();
    assert_eq!(south.ids(queue), ["a"]);
    assert_eq!(south.broker.queues().get(queue).unwrap().get(0).unwrap().hops, 1);
}

#[test]
fn what_is_reclaimed_is_marked_p3() {
    let (mut group, _) = with_queue(&["a", "b"]);
    group.apply(&offer(1, &[0]));
    assert_eq!(
        group.apply(&Command::Reclaim(Reclaim { group: SOUTH })).effects,
        vec![available(1, 0, true)]
    );
    let queue = group.broker.queues().get(1).unwrap();
    let marks: Vec<bool> = queue
        .iter_from(0)
        .map(|(seq, slot)| queue.redelivered(seq, slot))
        .collect();
    assert_eq!(marks, [true, false]);
    assert_eq!(
        group.outcome(&release(0, &[])),
        Outcome::NotFound,
        "an answer that comes after all"
    );
    assert_eq!(
        group.outcome(&Command::Reclaim(Reclaim { group: 9 })),
        Outcome::NotFound
    );
    assert_eq!(group.broker.transfers().outgoing[&SOUTH].floor(), 1);
}

#[test]
fn a_new_life_numbers_its_transfers_anew_and_takes_back_only_older_ones_p4() {
    let (mut group, _) = with_queue(&["a", "b", "c"]);
    let take_back = |transfer| Command::TakeBack(TakeBack { group: SOUTH, transfer });
    let renew = |incarnation, lineage| Command::Renew(Renew { incarnation, lineage });
    group.apply(&offer(1, &[0]));
    assert_eq!(
        group.outcome(&take_back(0)),
        Outcome::NotFound,
        "it is of this life, so its receiver answers for it"
    );
    let renewed = |incarnation, lineage| Outcome::Renewed { incarnation, lineage };
    assert_eq!(group.outcome(&renew(2, 7)), renewed(2, 7));
    assert_eq!(group.outcome(&renew(1, 8)), renewed(2, 7), "one that comes late");
    assert_eq!(group.outcome(&renew(u64::MAX, 8)), renewed(2, 7), "one that cannot be");
    assert_eq!(group.broker.life().epoch(3), epoch_of(2, 3));
    let first = first_transfer(2);
    assert_eq!((incarnation_of(first), term_of(epoch_of(2, 3))), (2, 3));
    for (seq, transfer) in [(1, first), (2, first + 1)] {
        let taken = vec![seq];
        assert_eq!(group.outcome(&offer(1, &[seq])), Outcome::Offered { transfer, taken });
    }
    assert_eq!(
        group.broker.transfers().outgoing[&SOUTH].floor(),
        0,
        "the old one is in doubt"
    );
    assert_eq!(group.apply(&take_back(0)).effects, vec![available(1, 0, true)]);
    let queue = group.broker.queues().get(1).unwrap();
    assert!(queue.redelivered(0, queue.get(0).unwrap()), "nobody can tell (P3)");
    assert_eq!(group.outcome(&take_back(first)), Outcome::NotFound);
    assert_eq!(group.broker.transfers().outgoing[&SOUTH].floor(), first);
    let again = Broker::decode(&group.broker.encode(), Settings::default()).unwrap();
    assert_eq!(again, group.broker);
}

#[test]
fn destinations_are_opened_and_deleted() {
    let mut group = Group::new(NORTH);
    let q = Destination::queue("Q");
    let delete = |destination: &Destination, if_empty| {
        Command::DeleteDestination(DeleteDestination {
            destination: destination.clone(),
            if_empty,
        })
    };
    assert_eq!(group.outcome(&Command::OpenDestination(q.clone())), Outcome::Queue(1));
    assert_eq!(group.outcome(&Command::OpenDestination(q.clone())), Outcome::Queue(1));
    assert!(matches!(
        group.outcome(&Command::OpenDestination(Destination::topic("T"))),
        Outcome::Refused(_)
    ));
    group.apply(&send(&q, "a"));
    assert!(matches!(group.outcome(&delete(&q, true)), Outcome::Refused(_)));
    let applied = group.apply(&delete(&q, false));
    assert_eq!(applied.effects, vec![Effect::QueueDeleted { queue: 1 }]);
    assert_eq!(applied.live[0].references, -1);
    assert_eq!(group.outcome(&delete(&q, false)), Outcome::NotFound);
    assert_eq!(
        group.outcome(&Command::OpenDestination(q)),
        Outcome::Queue(2),
        "a number is not used again"
    );
}

#[test]
fn what_is_deleted_takes_its_offers_along() {
    let mut group = Group::new(NORTH);
    let reply = Destination::new(DestinationKind::TempQueue, "c:1").unwrap();
    group.apply(&send(&reply, "a"));
    group.apply(&offer(1, &[0]));
    let delete = |if_empty| {
        Command::DeleteDestination(DeleteDestination {
            destination: reply.clone(),
            if_empty,
        })
    };
    assert!(matches!(group.outcome(&delete(true)), Outcome::Refused(_)));
    assert_eq!(group.outcome(&delete(false)), Outcome::Done);
    assert_eq!(
        group.broker.transfers().outgoing[&SOUTH].floor(),
        1,
        "else the floor would never rise"
    );

    let topic = Destination::topic("T");
    let owner = Owner::Group {
        group: SOUTH,
        topic: "T".into(),
    };
    let subscribe = Subscribe {
        topic: topic.clone(),
        owner: owner.clone(),
        selector: String::new(),
    };
    group.apply(&Command::Subscribe(subscribe));
    group.apply(&send(&topic, "b"));
    group.apply(&offer(2, &[0]));
    assert_eq!(
        group.outcome(&Command::Unsubscribe(Unsubscribe { owner })),
        Outcome::Done
    );
    assert_eq!(group.broker.transfers().outgoing[&SOUTH].floor(), 2);
    assert_eq!(group.outcome(&release(1, &[])), Outcome::NotFound);
}

fn backlog(topic: &str) -> Command {
    Command::Subscribe(Subscribe {
        topic: Destination::topic(topic),
        owner: Owner::Group {
            group: SOUTH,
            topic: topic.into(),
        },
        selector: String::new(),
    })
}

fn wants(change: u64, added: &[&str], removed: &[&str]) -> Command {
    let texts = |topics: &[&str]| topics.iter().map(|&topic| topic.to_owned()).collect();
    Command::NoteWants(NoteWants {
        group: SOUTH,
        name: "south".into(),
        version: DemandVersion { term: 1, change },
        path: vec![SOUTH],
        away_since_ms: None,
        added: texts(added),
        removed: texts(removed),
    })
}

#[test]
fn what_a_group_wants_is_noted_by_its_changes() {
    let mut group = Group::new(NORTH);
    group.apply(&wants(1, &["A", "B"], &[]));
    group.apply(&wants(2, &["C"], &["A", "X"]));
    let wanted = group.broker.wants().get(SOUTH).unwrap();
    assert_eq!(wanted.topics.iter().collect::<Vec<_>>(), ["B", "C"]);
    assert_eq!((wanted.version.change, wanted.name.as_str()), (2, "south"));
}

#[test]
fn the_noted_time_never_goes_back() {
    let mut group = Group::new(NORTH);
    assert_eq!(group.broker.time_ms(), None, "nothing was noted yet, as in an old log");
    for (noted, time_ms) in [(5, 5), (9, 9), (7, 9)] {
        group.apply(&Command::NoteTime(NoteTime { time_ms: noted }));
        assert_eq!(group.broker.time_ms(), Some(time_ms));
    }
}

#[test]
fn a_group_that_is_forgotten_leaves_nothing_and_what_it_was_offered_comes_back_marked_p3() {
    let (mut group, _) = with_queue(&["a", "b"]);
    group.apply(&wants(1, &["T"], &[]));
    group.apply(&backlog("T"));
    for id in ["1", "2", "3"] {
        group.apply(&send(&Destination::topic("T"), id));
    }
    group.apply(&offer(1, &[0]));
    group.apply(&offer(2, &[0]));
    let Outcome::Forgotten(forgotten) = group.outcome(&Command::ForgetGroup(ForgetGroup { group: SOUTH })) else {
        panic!("it is forgotten");
    };
    let expected = (1, 3, 2, 1);
    let found = (
        forgotten.backlogs,
        forgotten.messages,
        forgotten.transfers,
        forgotten.returned,
    );
    assert_eq!(found, expected);
    assert!(forgotten.bytes > 0);
    let queue = group.broker.queues().get(1).unwrap();
    let marks: Vec<bool> = queue
        .iter_from(0)
        .map(|(seq, slot)| queue.redelivered(seq, slot))
        .collect();
    assert_eq!(marks, [true, false]);
    assert!(group.broker.queues().get(2).is_none());
    let wanted = group.broker.wants().get(SOUTH).unwrap();
    assert_eq!(
        (wanted.topics.len(), wanted.version.change),
        (0, 1),
        "its last word stays"
    );
    assert_eq!(
        group.broker.transfers().outgoing[&SOUTH].floor(),
        2,
        "numbers are not used again"
    );
}

#[test]
fn the_first_id_counts() {
    let mut group = Group::new(NORTH);
    assert_eq!(group.outcome(&Command::Found(77)), Outcome::Done);
    assert_eq!(group.broker.group(), NORTH);
}
