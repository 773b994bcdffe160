//! Non-persistent messages that do not take the log: single cases, each the rule in its name.

use ferrymq_broker::{Command, Outcome, Passed};
use ferrymq_dispatch::{Action, Bridge, Consumer, ConsumerId, Limits, Target, Ways};
use ferrymq_message::{Destination, Message, Producer};

use crate::world::{Delivered, WAYS, World, digest_of, got, limits, wants};

fn q() -> Destination {
    Destination::queue("Q")
}

/// A queue with one consumer of this prefetch, of which the log knows.
fn consumed(prefetch: u32) -> (World, u32, ConsumerId) {
    let mut world = World::new();
    let queue = world.open("Q");
    let consumer = world.add(Consumer::new(1, queue, prefetch));
    world.settle();
    (world, queue, consumer)
}

fn ids(delivered: &[Delivered]) -> Vec<&str> {
    delivered.iter().map(|delivery| delivery.id.as_str()).collect()
}

fn numbered(id: &str, sequence: u64) -> Message {
    let mut message = Message::new(id, q(), "body");
    message.persistent = false;
    message.producer = Some(Producer {
        id: "p".into(),
        sequence,
    });
    message
}

#[test]
fn it_is_delivered_at_once_and_forgotten_without_the_log() {
    let (mut world, queue, consumer) = consumed(10);
    let entries = world.log.len();
    let delivered = world.send_direct(&q(), &["a", "b", "c"]);
    assert_eq!(ids(&delivered), ["a", "b", "c"]);
    assert_eq!(delivered.iter().map(|d| d.tag).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(!delivered[0].redelivered && world.unanswered.is_empty());
    assert_eq!(world.dispatcher.counts(queue), (1, 3));
    let counts = world.dispatcher.direct_counts(queue);
    assert_eq!((counts.messages, counts.enqueued, counts.dequeued), (3, 3, 0));
    assert!(counts.bytes > 0 && world.dispatcher.direct_bytes() > 0);

    world.acknowledge(consumer, Target::One(2));
    world.acknowledge(consumer, Target::UpTo(3));
    let counts = world.dispatcher.direct_counts(queue);
    assert_eq!((counts.messages, counts.bytes, counts.dequeued), (0, 0, 3));
    assert_eq!(world.dispatcher.direct_bytes(), 0);
    assert_eq!(
        (world.settle(), world.log.len()),
        (vec![], entries),
        "nothing was proposed"
    );
}

#[test]
fn without_credit_it_waits_a_moment_and_then_takes_the_log() {
    let (mut world, queue, consumer) = consumed(1);
    assert_eq!(ids(&world.send_direct(&q(), &["a", "b"])), ["a"]);
    assert_eq!(world.settle(), vec![]);
    assert_eq!(world.unanswered.len(), 1, "b is held");
    world.acknowledge(consumer, Target::One(1));
    assert_eq!(ids(&world.settle()), ["b"]);
    assert!(world.unanswered.is_empty());

    world.send_direct(&q(), &["c"]);
    world.now_ms += 100;
    world.tick();
    // It has just been in vain to wait.
    world.send_direct(&q(), &["d"]);
    assert_eq!((world.proposed.len(), world.settle()), (2, vec![]));
    assert_eq!(world.broker.queues().get(queue).unwrap().len(), 2);
    for (tag, id) in [(2, "c"), (3, "d")] {
        world.acknowledge(consumer, Target::One(tag));
        assert_eq!(ids(&world.settle()), [id]);
    }
    world.acknowledge(consumer, Target::One(4));
    assert_eq!(
        ids(&world.send_direct(&q(), &["e"])),
        ["e"],
        "the consumer has caught up"
    );
}

#[test]
fn a_stream_is_held_while_something_moves_but_no_message_for_long() {
    let (mut world, _, consumer) = consumed(1);
    let names: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(ids(&world.send_direct(&q(), &all)), ["0"]);
    let mut delivered = 1;
    let entries = world.log.len();
    for tag in 1..=12 {
        world.now_ms += 2;
        world.tick();
        world.acknowledge(consumer, Target::One(tag));
        delivered += world.settle().len();
    }
    assert_eq!((delivered, world.log.len()), (13, entries), "each round one has moved");
    assert_eq!(world.unanswered.len(), 17);
    world.now_ms += 2;
    world.tick();
    assert_eq!(world.proposed.len(), 17, "25 ms are over");
}

#[test]
fn it_overtakes_nothing_that_is_undelivered_or_on_its_way_through_the_log() {
    let (mut world, _, consumer) = consumed(10);
    world.full.insert(1);
    world.send(&q(), &["a"]);
    world.settle();
    world.full.clear();
    assert_eq!(world.send_direct(&q(), &["b"]), vec![]);
    world.dispatcher.poke(1);
    assert_eq!(ids(&world.settle()), ["a", "b"], "b was held behind the backlog");

    let log_only = Ways {
        direct: false,
        wait: true,
    };
    let message = |id: &str| {
        let mut message = numbered(id, 0);
        message.producer = None;
        message
    };
    let entries = world.log.len();
    world.arrive(&message("c"), log_only);
    assert_eq!(world.send_direct(&q(), &["d"]), vec![], "c is on its way");
    world.commit(usize::MAX);
    assert_eq!(
        world.send_direct(&q(), &["e"]),
        vec![],
        "c is there and nobody was told"
    );
    assert_eq!(ids(&world.settle()), ["c", "d", "e"]);
    assert_eq!(world.log.len(), entries + 1, "d and e did not take the log");
    assert_eq!(world.dispatcher.consumer(consumer).unwrap().unacknowledged(), 5);
}

#[test]
fn what_waits_behind_a_message_that_was_not_stored_is_dropped_p6() {
    let (mut world, queue, _) = consumed(10);
    world.dispatcher.logging(queue);
    world.send_direct(&q(), &["b", "c"]);
    let waiting: Vec<u64> = world.unanswered.keys().copied().collect();
    assert_eq!(waiting.len(), 2, "a is on its way through the log");
    assert_eq!(world.dispatcher.drop_held_of(9), [], "of another client");
    assert_eq!(world.dispatcher.drop_held_of(77), waiting);
    world.dispatcher.logged(queue);
    assert_eq!(world.settle(), vec![], "b and c come again behind a");
    world.now_ms += 1_000;
    world.tick();
    assert_eq!(world.proposed.len(), 0);
}

#[test]
fn what_a_consumer_leaves_comes_again_marked_and_in_its_place() {
    let (mut world, queue, first) = consumed(2);
    world.send_direct(&q(), &["a", "b", "c"]);
    world.now_ms += 100;
    world.tick();
    world.settle();
    assert_eq!(world.broker.queues().get(queue).unwrap().len(), 1, "c took the log");
    world.acknowledge(first, Target::One(1));
    assert_eq!(ids(&world.settle()), ["c"]);
    world.send(&q(), &["d"]);
    world.remove(first);
    assert_eq!(world.settle(), vec![]);

    let second = world.add(Consumer::new(2, queue, 10));
    let delivered = world.settle();
    assert_eq!(got(&delivered, second), ["b", "c", "d"]);
    let counts: Vec<_> = delivered.iter().map(|d| (d.redelivered, d.redeliveries)).collect();
    assert_eq!(counts, [(true, 1), (true, 1), (false, 0)], "d was with nobody");
}

#[test]
fn what_a_consumer_leaves_goes_into_the_log_where_nothing_lies_behind_it() {
    let (mut world, queue, first) = consumed(5);
    world.send_direct(&q(), &["a", "b"]);
    world.remove(first);
    world.settle();
    assert_eq!(world.broker.queues().get(queue).unwrap().len(), 2);
    let counts = world.dispatcher.direct_counts(queue);
    assert_eq!((counts.messages, counts.enqueued, counts.dequeued), (0, 0, 0));
    assert_eq!(world.dispatcher.direct_bytes(), 0);
    world.fail_over(0);
    world.add(Consumer::new(2, queue, 5));
    let delivered = world.settle();
    assert_eq!(ids(&delivered), ["a", "b"], "the next master has them");
    assert_eq!((delivered[0].redelivered, delivered[0].redeliveries), (true, 1));
}

#[test]
fn another_consumer_with_room_takes_what_comes_back_at_once() {
    let (mut world, queue, first) = consumed(5);
    let second = world.add(Consumer::new(2, queue, 5));
    world.settle();
    let delivered = world.send_direct(&q(), &["a", "b"]);
    assert_eq!(
        (got(&delivered, first), got(&delivered, second)),
        (vec!["a"], vec!["b"])
    );
    let entries = world.log.len();
    world.remove(first);
    let delivered = world.settle();
    assert_eq!((got(&delivered, second), delivered[0].redeliveries), (vec!["a"], 1));
    assert_eq!(world.log.len(), entries);
}

#[test]
fn selectors_exclusive_consumers_and_priorities_are_heeded() {
    let (mut world, queue, plain) = consumed(5);
    let mut exclusive = Consumer::new(2, queue, 5);
    exclusive.exclusive = true;
    wants(&mut exclusive, "x = 2");
    let exclusive = world.add(exclusive);
    world.settle();
    assert_eq!(got(&world.send_direct(&q(), &["aa"]), exclusive), ["aa"]);
    assert_eq!(
        world.send_direct(&q(), &["b"]),
        vec![],
        "not what the exclusive one wants"
    );
    assert_eq!(world.settle(), vec![]);
    assert_eq!(world.broker.queues().get(queue).unwrap().len(), 1, "b took the log");
    assert_eq!(got(&world.send_direct(&q(), &["cc"]), exclusive), ["cc"]);
    world.remove(exclusive);
    assert_eq!(got(&world.settle(), plain), ["aa", "b", "cc"]);

    let mut high = Consumer::new(3, queue, 5);
    high.priority = 3;
    let high = world.add(high);
    world.settle();
    assert_eq!(got(&world.send_direct(&q(), &["d", "e"]), high), ["d", "e"]);
}

#[test]
fn a_rejected_one_is_a_dead_letter_and_one_that_comes_back_too_often_too() {
    let (mut world, queue, consumer) = consumed(5);
    world.send_direct(&q(), &["a", "b"]);
    world.reject(consumer, Target::One(1));
    world.settle();
    let dlq = world.queue("DLQ");
    let dead = |world: &World| -> Vec<String> {
        let dlq = world.broker.queues().get(dlq).unwrap();
        let letters = dlq.iter_from(0).map(|(seq, _)| dlq.dead_letter(seq).unwrap());
        letters
            .map(|letter| format!("{} {}", letter.original, letter.reason))
            .collect()
    };
    assert_eq!(dead(&world), ["queue://Q rejected by a consumer"]);
    for tag in 2..=5 {
        let settled = world.dispatcher.acknowledge(consumer, Target::One(tag), false);
        assert_eq!((settled.command, settled.direct.len()), (None, 1), "{tag}");
        let letters = world.dispatcher.take_back(queue, settled.direct);
        world.proposed.extend(letters);
        let again = world.settle();
        assert_eq!(
            again.first().map(|d| d.redeliveries),
            (tag < 5).then_some(tag as u16 - 1)
        );
    }
    assert_eq!(dead(&world).len(), 2);
    assert_eq!(world.dispatcher.direct_bytes(), 0);
}

#[test]
fn beyond_the_limit_of_memory_messages_take_the_log() {
    let mut world = World::new();
    world.dispatcher = ferrymq_dispatch::Dispatcher::new(Limits {
        direct_bytes_max: 1_000,
        ..limits()
    });
    let queue = world.open("Q");
    let consumer = world.add(Consumer::new(1, queue, 100));
    world.settle();
    let delivered = world.send_direct(&q(), &["a", "b", "c", "d", "e"]);
    assert_eq!(ids(&delivered), ["a", "b", "c"]);
    assert!(world.dispatcher.direct_bytes() <= 1_000);
    assert_eq!(ids(&world.settle()), ["d", "e"]);
    world.acknowledge(consumer, Target::UpTo(5));
    world.settle();
    assert_eq!(ids(&world.send_direct(&q(), &["f"])), ["f"]);
}

#[test]
fn a_resend_is_recognised_whichever_way_it_takes_p5() {
    let (mut world, queue, consumer) = consumed(10);
    for sequence in 0..3 {
        let actions = world.arrive(&numbered(&format!("m{sequence}"), sequence), WAYS);
        assert_eq!(world.deliveries(&actions).len(), 1);
    }
    assert_eq!(world.arrive(&numbered("m1", 1), WAYS), vec![], "handed out before");
    let log_only = Ways {
        direct: false,
        wait: false,
    };
    world.arrive(&numbered("m2", 2), log_only);
    world.arrive(&numbered("m3", 3), log_only);
    let digest = |sequence| digest_of(&numbered(&format!("m{sequence}"), sequence));
    let passed = Passed {
        user: "u".into(),
        producer: "p".into(),
        numbers: vec![(0, 2)],
        digests: (0..3).map(|sequence| (sequence, digest(sequence))).collect(),
    };
    assert_eq!(
        world.proposed.front(),
        Some(&Command::Passed(passed)),
        "the log is told first"
    );
    assert_eq!(ids(&world.settle()), ["m3"]);
    assert_eq!(world.arrive(&numbered("m3", 3), WAYS), vec![], "stored before");
    assert!(world.unanswered.is_empty());
    assert_eq!(world.dispatcher.counts(queue), (1, 4));
    world.acknowledge(consumer, Target::UpTo(9));
    assert_eq!(world.settle(), vec![]);
}

#[test]
fn what_only_another_group_wants_takes_the_log() {
    let (mut world, queue, consumer) = consumed(1);
    world.dispatcher.set_bridges(queue, vec![Bridge::new(9, "g9", 10, 1)]);
    assert_eq!(ids(&world.send_direct(&q(), &["a", "b"])), ["a"], "local first");
    world.settle();
    assert_eq!(world.broker.transfers().outgoing[&9].pending.len(), 1, "b is offered");
    world.remove(consumer);
    world.settle();
    assert_eq!(world.broker.transfers().outgoing[&9].pending.len(), 2, "and a after it");
}

#[test]
fn a_deleted_queue_drops_what_came_back_and_lets_the_log_decide_on_what_is_held() {
    let (mut world, queue, consumer) = consumed(1);
    world.send_direct(&q(), &["a", "b"]);
    let delete = ferrymq_broker::DeleteDestination {
        destination: q(),
        if_empty: false,
    };
    world.proposed.push_back(Command::DeleteDestination(delete));
    world.settle();
    assert_eq!(
        world.dispatcher.consumer(consumer).map(Consumer::unacknowledged),
        Some(1)
    );
    world.remove(consumer);
    assert_eq!(world.dispatcher.direct_bytes(), 0);
    assert!(world.unanswered.is_empty());
    assert_ne!(world.queue("Q"), queue, "b made it anew");
    let actions: Vec<Action> = world.dispatch();
    assert_eq!(actions, vec![]);
}

#[test]
fn another_message_under_a_number_of_before_is_no_resend_p5() {
    let (mut world, _, consumer) = consumed(10);
    for (id, sequence) in [("m1", 1), ("m2", 2)] {
        let actions = world.arrive(&numbered(id, sequence), WAYS);
        assert_eq!(world.deliveries(&actions).len(), 1);
    }
    world.acknowledge(consumer, Target::UpTo(9));
    assert_eq!(world.arrive(&numbered("m1", 1), WAYS), vec![], "handed out before");
    assert_eq!(world.settle(), vec![]);
    world.arrive(&numbered("other", 1), WAYS);
    assert_eq!(world.settle(), vec![], "it is not delivered");
    assert!(
        matches!(world.outcomes.last(), Some(Outcome::Refused(_))),
        "and not confirmed"
    );
}
