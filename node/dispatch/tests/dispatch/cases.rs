//! Single cases, each the rule in its name.

use ferrymq_broker::{Accept, Carried, Command, Release};
use ferrymq_dispatch::{Action, Bridge, Consumer, Target};
use ferrymq_message::{Destination, Message, Value};

use crate::world::{World, got, wants};

fn q() -> Destination {
    Destination::queue("Q")
}

#[test]
fn nothing_is_dispatched_before_the_log_knows_of_consumers_p3() {
    let mut world = World::new();
    let queue = world.open("Q");
    world.send(&q(), &["a"]);
    world.settle();
    let consumer = world.add(Consumer::new(1, queue, 10));
    let actions = world.dispatch();
    assert!(
        matches!(actions[..], [Action::Propose(Command::Consuming(_))]),
        "{actions:?}"
    );
    assert_eq!(world.dispatch(), vec![], "proposed once");
    let delivered = world.settle();
    assert_eq!(got(&delivered, consumer), ["a"]);
    assert!(!delivered[0].redelivered);
}

#[test]
fn a_consumer_that_comes_while_its_queue_is_given_up_waits_p3() {
    let mut world = World::new();
    let queue = world.open("Q");
    let first = world.add(Consumer::new(1, queue, 10));
    world.settle();
    world.remove(first);
    world.send(&q(), &["a"]);
    world.settle();
    let tick = |world: &mut World| world.dispatcher.tick(&world.broker, world.now_ms);
    assert_eq!(tick(&mut world), vec![]);
    world.now_ms += 10_000;
    let commands = tick(&mut world);
    assert_eq!(commands.len(), 1);
    world.proposed.extend(commands);

    let second = world.add(Consumer::new(2, queue, 10));
    assert!(world.broker.queues().get(queue).unwrap().consuming, "not committed yet");
    assert_eq!(
        {
            let actions = world.dispatch();
            world.deliveries(&actions)
        },
        vec![]
    );
    world.commit(1);
    world.tell();
    assert_eq!(got(&world.settle(), second), ["a"]);
    assert!(world.broker.queues().get(queue).unwrap().consuming);
}

#[test]
fn consumers_take_turns_within_their_credit() {
    let mut world = World::new();
    let queue = world.open("Q");
    let (one, two) = (
        world.add(Consumer::new(1, queue, 2)),
        world.add(Consumer::new(2, queue, 1)),
    );
    world.send(&q(), &["a", "b", "c", "d"]);
    let delivered = world.settle();
    assert_eq!(
        (got(&delivered, one), got(&delivered, two)),
        (vec!["a", "c"], vec!["b"])
    );
    world.acknowledge(one, Target::UpTo(1));
    assert_eq!(got(&world.settle(), one), ["d"]);
    world.acknowledge(one, Target::One(7));
    assert_eq!(world.dispatcher.counts(queue), (2, 3));
}

#[test]
fn a_higher_priority_comes_first() {
    let mut world = World::new();
    let queue = world.open("Q");
    let low = world.add(Consumer::new(1, queue, 10));
    let mut consumer = Consumer::new(2, queue, 2);
    consumer.priority = 5;
    let high = world.add(consumer);
    world.send(&q(), &["a", "b", "c"]);
    let delivered = world.settle();
    assert_eq!(
        (got(&delivered, high), got(&delivered, low)),
        (vec!["a", "b"], vec!["c"])
    );
}

#[test]
fn one_exclusive_consumer_is_served_and_what_it_did_not_want_is_not_forgotten() {
    let mut world = World::new();
    let queue = world.open("Q");
    let other = world.add(Consumer::new(1, queue, 10));
    let mut exclusive = Consumer::new(2, queue, 10);
    exclusive.exclusive = true;
    wants(&mut exclusive, "x > 1");
    let first = world.add(exclusive.clone());
    let second = world.add(exclusive);
    world.send(&q(), &["a", "bb", "c", "dd"]);
    let delivered = world.settle();
    assert_eq!(got(&delivered, first), ["bb", "dd"]);
    assert_eq!(delivered.len(), 2);
    world.remove(first);
    assert_eq!(got(&world.settle(), second), ["bb", "dd"]);
    world.remove(second);
    assert_eq!(got(&world.settle(), other), ["a", "bb", "c", "dd"]);
}

#[test]
fn a_full_outbox_pauses_its_consumer_only() {
    let mut world = World::new();
    let queue = world.open("Q");
    let (one, two) = (
        world.add(Consumer::new(1, queue, 10)),
        world.add(Consumer::new(2, queue, 1)),
    );
    world.settle();
    world.full.insert(1);
    world.send(&q(), &["a", "b"]);
    assert_eq!(got(&world.settle(), two), ["a"]);
    world.full.clear();
    world.dispatcher.poke(1);
    assert_eq!(got(&world.settle(), one), ["b"]);
}

#[test]
fn what_a_selector_leaves_waits_for_another_consumer() {
    let mut world = World::new();
    let queue = world.open("Q");
    let mut consumer = Consumer::new(1, queue, 10);
    wants(&mut consumer, "x = 2");
    let selective = world.add(consumer);
    world.send(&q(), &["a", "bb", "c"]);
    assert_eq!(got(&world.settle(), selective), ["bb"]);
    let any = world.add(Consumer::new(2, queue, 10));
    assert_eq!(got(&world.settle(), any), ["a", "c"]);
}

#[test]
fn a_subscription_drops_what_its_selector_does_not_match() {
    let mut world = World::new();
    let queue = world.subscribe("T");
    world.send(&Destination::topic("T"), &["a", "bb"]);
    world.settle();
    assert_eq!(
        world.broker.queues().get(queue).unwrap().len(),
        2,
        "while the client is away nothing is decided"
    );
    let mut consumer = Consumer::new(1, queue, 10);
    wants(&mut consumer, "x = 2");
    let id = world.add(consumer);
    assert_eq!(got(&world.settle(), id), ["bb"]);
    assert_eq!(world.broker.queues().get(queue).unwrap().len(), 1);
}

#[test]
fn what_a_consumer_leaves_comes_back_counted_and_is_never_buried_for_that() {
    let mut world = World::new();
    let queue = world.open("Q");
    world.send(&q(), &["a"]);
    for count in 0..6 {
        let consumer = world.add(Consumer::new(count, queue, 10));
        let delivered = world.settle();
        assert_eq!(
            (delivered[0].redeliveries, delivered[0].redelivered),
            (count as u16, count > 0)
        );
        world.remove(consumer);
    }
}

#[test]
fn a_rejected_message_is_a_dead_letter_at_once() {
    let mut world = World::new();
    let queue = world.open("Q");
    let consumer = world.add(Consumer::new(1, queue, 10));
    world.send(&q(), &["a"]);
    world.settle();
    world.reject(consumer, Target::One(1));
    world.settle();
    let dlq = world.queue("DLQ");
    let reader = world.add(Consumer::new(1, dlq, 10));
    let actions = {
        world.dispatch();
        world.commit(usize::MAX);
        world.tell();
        world.dispatch()
    };
    let [
        Action::Deliver {
            consumer,
            dead_letter: Some(letter),
            ..
        },
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!((*consumer, &letter.original), (reader, &q()));
}

#[test]
fn an_aborted_transaction_brings_its_messages_back_until_it_was_too_often() {
    let mut world = World::new();
    let queue = world.open("Q");
    let consumer = world.add(Consumer::new(1, queue, 10));
    world.send(&q(), &["a"]);
    for tag in 1..=4 {
        assert_eq!(got(&world.settle(), consumer), ["a"]);
        // Held back: the command that takes it away is dropped with the transaction.
        assert!(
            world
                .dispatcher
                .acknowledge(consumer, Target::One(tag), false)
                .command
                .is_some()
        );
        let back = world.dispatcher.give_back(queue, vec![0]);
        world.proposed.push_back(back);
    }
    assert_eq!(world.settle(), vec![]);
    assert_eq!(world.broker.queues().get(world.queue("DLQ")).unwrap().len(), 1);
}

#[test]
fn a_browser_sees_what_is_there_once_and_takes_nothing() {
    let mut world = World::new();
    let queue = world.open("Q");
    world.send(&q(), &["a", "b"]);
    world.settle();
    let mut browser = Consumer::new(1, queue, 1);
    browser.browser = true;
    let id = world.add(browser);
    let actions = world.dispatch();
    assert_eq!(got(&world.deliveries(&actions), id), ["a", "b"]);
    assert!(matches!(actions.last(), Some(Action::Browsed { .. })), "{actions:?}");
    assert!(
        !world.broker.queues().get(queue).unwrap().consuming,
        "looking is not consuming"
    );
    world.send(&q(), &["c"]);
    assert_eq!(world.settle(), vec![], "its end was told");
    let consumer = world.add(Consumer::new(2, queue, 10));
    assert_eq!(got(&world.settle(), consumer), ["a", "b", "c"]);
}

#[test]
fn what_nobody_asks_for_expires_all_the_same() {
    let mut world = World::new();
    let queue = world.open("Q");
    let mut message = Message::new("late", q(), "x");
    message.expires_ms = world.now_ms + 5;
    world.propose_send(&message);
    world.send(&q(), &["stays"]);
    world.settle();
    let tick = |world: &mut World| {
        let commands = world.dispatcher.tick(&world.broker, world.now_ms);
        world.proposed.extend(commands);
        world.settle();
        world.broker.queues().get(queue).unwrap().len()
    };
    assert_eq!(tick(&mut world), 2);
    world.now_ms += 5;
    assert_eq!((tick(&mut world), tick(&mut world)), (1, 1));
    let dlq = world.queue("DLQ");
    assert_eq!(world.broker.queues().get(dlq).unwrap().len(), 1);
}

#[test]
fn a_long_queue_is_searched_in_stretches_for_what_expires() {
    let mut world = World::new();
    let queue = world.open("Q");
    world.send(&q(), &["stays"; 5_000]);
    let mut message = Message::new("late", q(), "x");
    message.expires_ms = world.now_ms;
    world.propose_send(&message);
    world.settle();
    let ticks = (1..10).find(|_| {
        let commands = world.dispatcher.tick(&world.broker, world.now_ms);
        world.proposed.extend(commands);
        world.settle();
        world.broker.queues().get(queue).unwrap().len() == 5_000
    });
    assert_eq!(ticks, Some(3));
}

#[test]
fn what_is_past_its_time_is_not_delivered() {
    let mut world = World::new();
    let queue = world.open("Q");
    let mut message = Message::new("late", q(), "x");
    message.expires_ms = world.now_ms;
    world.propose_send(&message);
    world.send(&q(), &["fresh"]);
    let consumer = world.add(Consumer::new(1, queue, 10));
    assert_eq!(got(&world.settle(), consumer), ["fresh"]);
    assert_eq!(world.broker.queues().get(queue).unwrap().len(), 1);
}

#[test]
fn other_groups_come_after_local_consumers_the_most_room_first() {
    let mut world = World::new();
    let queue = world.open("Q");
    let local = world.add(Consumer::new(1, queue, 1));
    let mut small = Bridge::new(8, "small", 1, 1);
    small.selectors.clear();
    world
        .dispatcher
        .set_bridges(queue, vec![small, Bridge::new(9, "large", 2, 3)]);
    world.send(&q(), &["a", "b", "c", "d", "e"]);
    assert_eq!(got(&world.settle(), local), ["a"]);
    let pending = |world: &World, group| {
        world.broker.transfers().outgoing[&group]
            .pending
            .values()
            .map(|o| o.seqs.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(pending(&world, 9), vec![vec![1, 3]]);
    assert_eq!(pending(&world, 8), vec![vec![2]]);
    world.acknowledge(local, Target::One(1));
    assert_eq!(got(&world.settle(), local), ["e"], "nobody had room for it");
}

#[test]
fn what_another_group_refuses_comes_back() {
    let mut world = World::new();
    let queue = world.open("Q");
    world.dispatcher.set_bridges(queue, vec![Bridge::new(9, "south", 1, 1)]);
    world.send(&q(), &["a"]);
    world.settle();
    let refused = vec![ferrymq_broker::Refused { position: 0, reason: 1 }];
    world.proposed.push_back(Command::Release(Release {
        group: 9,
        transfer: 0,
        refused,
    }));
    world.dispatcher.set_bridges(queue, Vec::new());
    let consumer = world.add(Consumer::new(1, queue, 1));
    assert_eq!(got(&world.settle(), consumer), ["a"]);
}

#[test]
fn a_refusal_that_is_told_late_takes_nothing_from_a_consumer() {
    let mut world = World::new();
    let queue = world.open("Q");
    world.dispatcher.set_bridges(queue, vec![Bridge::new(9, "south", 1, 1)]);
    world.send(&q(), &["a"]);
    world.settle();
    let one = world.add(Consumer::new(1, queue, 1));
    world.settle();
    let refused = vec![ferrymq_broker::Refused { position: 0, reason: 1 }];
    world.proposed.push_back(Command::Release(Release {
        group: 9,
        transfer: 0,
        refused,
    }));
    world.commit(1);
    world.dispatcher.set_bridges(queue, Vec::new());
    let early = world.dispatch();
    world.tell();
    let two = world.add(Consumer::new(2, queue, 1));
    let late = world.settle();
    let mut delivered = world.deliveries(&early);
    delivered.extend(late);
    assert_eq!(delivered.len(), 1, "{delivered:?}");
    assert!(delivered[0].consumer == one || delivered[0].consumer == two);
}

#[test]
fn what_is_gone_while_it_waited_does_not_hide_what_waits_behind_it_p6() {
    let mut world = World::new();
    let queue = world.open("Q");
    let mut consumer = Consumer::new(1, queue, 1);
    wants(&mut consumer, "x < 9");
    let busy = world.add(consumer.clone());
    wants(&mut consumer, "x > 9");
    world.add(consumer);
    world.send(&q(), &["z"]);
    let mut message = Message::new("late", q(), "x");
    message.properties.push(("x".into(), Value::Int(4)));
    message.expires_ms = world.now_ms + 5;
    world.propose_send(&message);
    world.send(&q(), &["b"]);
    assert_eq!(got(&world.settle(), busy), ["z"]);

    world.now_ms += 5;
    let commands = world.dispatcher.tick(&world.broker, world.now_ms);
    world.proposed.extend(commands);
    world.send(&q(), &["c"]);
    world.commit(usize::MAX);
    world.acknowledge(busy, Target::One(1));
    let actions = world.dispatch();
    assert_eq!(got(&world.deliveries(&actions), busy), ["b"], "not c");
}

#[test]
fn what_was_offered_does_not_take_later_room() {
    let mut world = World::new();
    let queue = world.open("Q");
    world.dispatcher.set_bridges(queue, vec![Bridge::new(9, "south", 1, 1)]);
    world.send(&q(), &["a", "b"]);
    world.settle();
    let pending = |world: &World| world.broker.transfers().outgoing[&9].pending.len();
    assert_eq!(pending(&world), 1);
    world.dispatcher.set_bridges(queue, vec![Bridge::new(9, "south", 1, 1)]);
    world.settle();
    assert_eq!(pending(&world), 2);
}

#[test]
fn what_came_from_another_group_goes_on_only_where_nobody_wants_it_here() {
    let mut world = World::new();
    let queue = world.open("Q");
    let message = Message::new("a", q(), "x");
    world.proposed.push_back(Command::Accept(Accept {
        origin: 8,
        transfer: 0,
        destination: q(),
        target: None,
        messages: vec![Carried {
            redeliveries: 0,
            redelivered: false,
            hops: 1,
            dead_letter: None,
            message: message.encode(),
        }],
        refused: Vec::new(),
    }));
    let busy = world.add(Consumer::new(1, queue, 1));
    world.full.insert(1);
    world.dispatcher.set_bridges(queue, vec![Bridge::new(9, "south", 5, 1)]);
    world.settle();
    assert!(
        world.broker.transfers().outgoing.is_empty(),
        "else it would go to and fro"
    );
    world.remove(busy);
    world.settle();
    assert_eq!(world.broker.transfers().outgoing[&9].pending.len(), 1);
}

#[test]
fn what_was_refused_three_times_is_not_offered_again() {
    let mut world = World::new();
    let queue = world.open("Q");
    world
        .dispatcher
        .set_bridges(queue, vec![Bridge::new(9, "south", 100, 1)]);
    world.send(&q(), &["a"]);
    for transfer in 0..3 {
        world.settle();
        let refused = vec![ferrymq_broker::Refused { position: 0, reason: 1 }];
        world.proposed.push_back(Command::Release(Release {
            group: 9,
            transfer,
            refused,
        }));
    }
    world.settle();
    assert_eq!(world.broker.transfers().outgoing[&9].next, 3);
    assert!(world.broker.transfers().outgoing[&9].pending.is_empty());
}

#[test]
fn a_crowd_that_waits_for_one_consumer_does_not_hide_what_came_back_for_another() {
    let mut world = World::new();
    let queue = world.open("Q");
    let (mut for_one, mut for_two) = (Consumer::new(1, queue, 1), Consumer::new(2, queue, 1));
    wants(&mut for_one, "x = 1");
    wants(&mut for_two, "x = 2");
    let (_, two) = (world.add(for_one), world.add(for_two));
    world.send(&q(), &["a", "b", "cc"]);
    world.send(&q(), &["d"; 5_000]);
    assert_eq!(got(&world.settle(), two), ["cc"]);
    let settled = world.dispatcher.acknowledge(two, Target::One(1), false);
    assert!(settled.command.is_some());
    let back = world.dispatcher.give_back(queue, vec![2]);
    world.proposed.push_back(back);
    assert_eq!(got(&world.settle(), two), ["cc"]);
}

#[test]
fn a_deleted_queue_leaves_nothing_behind() {
    let mut world = World::new();
    let queue = world.open("Q");
    let consumer = world.add(Consumer::new(1, queue, 10));
    world.send(&q(), &["a", "b"]);
    world.settle();
    let delete = ferrymq_broker::DeleteDestination {
        destination: q(),
        if_empty: false,
    };
    world.proposed.push_back(Command::DeleteDestination(delete));
    world.settle();
    world.acknowledge(consumer, Target::One(1));
    world.remove(consumer);
    assert_eq!(world.proposed.len(), 0, "there is nothing to say about it");
    assert_eq!(world.dispatcher.counts(queue), (0, 0));
}

#[test]
fn demand_is_told_when_it_changes() {
    let mut world = World::new();
    let queue = world.open("Q");
    world.settle();
    world.dispatcher.changed_demand(&world.broker, world.now_ms);
    let consumer = world.add(Consumer::new(1, queue, 10));
    world.send(&q(), &["a", "b"]);
    world.settle();
    let changed = world.dispatcher.changed_demand(&world.broker, world.now_ms);
    assert_eq!(changed.len(), 1);
    let (destination, demand) = &changed[0];
    assert_eq!((destination, demand.consumers, demand.credit), (&q(), 1, 8));
    assert_eq!(demand.selectors, vec![None]);
    assert_eq!(world.dispatcher.changed_demand(&world.broker, world.now_ms), vec![]);
    world.remove(consumer);
    let changed = world.dispatcher.changed_demand(&world.broker, world.now_ms);
    assert_eq!((changed.len(), changed[0].1.consumers), (1, 0));
}

/// What another group may send ahead follows from how fast consumers are while they have something to do.
#[test]
fn demand_tells_how_fast_consumers_are_while_they_are_at_work() {
    let mut world = World::new();
    let queue = world.open("Q");
    let consumer = world.add(Consumer::new(1, queue, 1));
    world.settle();
    let demand = |world: &mut World| {
        let changed = world.dispatcher.changed_demand(&world.broker, world.now_ms);
        changed.into_iter().next().map(|(_, demand)| demand)
    };
    assert_eq!(demand(&mut world).map(|d| (d.credit, d.busy)), Some((1, 0)));
    for n in 1..=20 {
        world.send(&q(), &["a"]);
        world.settle();
        let at_work = demand(&mut world).unwrap();
        assert_eq!((at_work.credit, at_work.in_hand, at_work.busy), (0, 1, 1));
        // It takes 20 ms for each, and waits 30 ms for the next one.
        world.now_ms += 20;
        world.acknowledge(consumer, Target::One(n));
        world.settle();
        assert!(demand(&mut world).is_some());
        world.now_ms += 30;
    }
    world.send(&q(), &["a", "b", "c"]);
    world.settle();
    let at_work = demand(&mut world).unwrap();
    assert_eq!((at_work.credit, at_work.behind, at_work.busy), (0, 2, 1));
    assert!((45..=55).contains(&at_work.per_second), "{at_work:?}");
    world.remove(consumer);
    world.settle();
    assert_eq!(
        demand(&mut world).map(|d| (d.consumers, d.credit, d.busy)),
        Some((0, 0, 0))
    );
}
