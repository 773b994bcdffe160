//! How much may be under way: credit that is charged, told and given back.

use super::desk::*;

#[test]
fn what_was_sent_takes_up_credit_until_the_answer_tells_it_anew() {
    let mut desk = desk(config());
    let rows = demand(&desk.linked(9, vec![row(&[9], 10)])).unwrap();
    assert_eq!((rows[0].available, rows[0].distance, rows[0].origin), (10, 1, 9));
    let actions = desk.input(offered(0, vec![carried("a"), carried("b"), carried("c")]));
    assert_eq!(demand(&actions).unwrap()[0].available, 7);
    let told = Demand {
        rows: vec![row(&[9], 7)],
        ..Demand::default()
    };
    let actions = desk.frame(
        9,
        Frame::Accepted {
            transfer: 0,
            refused: Vec::new(),
            demand: told,
        },
    );
    assert_eq!(demand(&actions), None, "seven before and after");
    let release = Command::Release(Release {
        group: 9,
        transfer: 0,
        refused: Vec::new(),
    });
    assert_eq!(proposals(&actions)[0].1, release);
}

/// The node counts down what it was told; it stood still for good once more consumers came than may be under way.
#[test]
fn credit_above_the_bound_is_told_again_after_each_offer() {
    let config = Config {
        transfers_in_flight_max: 2,
        transfer_messages_max: 4,
        ..config()
    };
    let mut desk = desk(config);
    assert_eq!(demand(&desk.linked(9, vec![row(&[9], 1_000)])).unwrap()[0].available, 8);
    let actions = desk.input(offered(0, vec![carried("a"), carried("b"), carried("c")]));
    assert_eq!(demand(&actions).unwrap()[0].available, 8);
}

#[test]
fn a_queues_credit_behind_one_hop_is_charged_once_and_the_nearest_first() {
    let mut desk = desk(config());
    desk.linked(9, vec![row(&[9], 2), row(&[9, 20], 5)]);
    let actions = desk.input(offered(0, vec![carried("a"), carried("b"), carried("c")]));
    let available: Vec<_> = demand(&actions)
        .unwrap()
        .iter()
        .map(|row| (row.origin, row.available))
        .collect();
    assert_eq!(available, [(9, 0), (20, 4)]);
}

#[test]
fn no_more_is_held_than_may_be_and_the_way_opens_again() {
    let config = Config {
        transfers_in_flight_max: 1,
        transfer_messages_max: 4,
        ..config()
    };
    let mut desk = desk(config);
    desk.input(Input::Settled {
        next: Vec::new(),
        pending: Vec::new(),
        arrived: Vec::new(),
    });
    desk.linked(9, vec![row(&[9], 1_000)]);
    let mut actions = Vec::new();
    for number in 0..8 {
        actions.extend(desk.input(offered(number, vec![carried("x")])));
    }
    assert_eq!(transfers(&actions), [0, 1, 2, 3], "four messages are in flight");
    assert_eq!(demand(&actions).unwrap()[0].available, 0, "eight are held");
    let mut tokens = Vec::new();
    for number in 0..4 {
        let actions = desk.frame(9, accepted(number, Vec::new()));
        assert_eq!(transfers(&actions), [number + 4]);
        tokens.push(proposals(&actions)[0].0);
    }
    let told: Vec<_> = tokens
        .into_iter()
        .map(|token| demand(&desk.answer(token, Outcome::Done)))
        .collect();
    assert!(
        told.iter().all(Option::is_none),
        "still as much held as may be in flight: {told:?}"
    );
    let actions = desk.frame(9, accepted(4, Vec::new()));
    let token = proposals(&actions)[0].0;
    assert_eq!(
        demand(&desk.answer(token, Outcome::Done)).unwrap()[0].available,
        4,
        "at most what may be in flight"
    );
}

#[test]
fn arrivals_take_up_credit_before_the_node_has_counted_them() {
    let mut desk = desk(config());
    desk.linked(9, Vec::new());
    let wants = |credit| Input::LocalDemand {
        destination: queue(),
        consumers: 1,
        credit,
        selectors: vec![None],
        durable: false,
        pace: Pace::default(),
    };
    assert_eq!(told(&desk.input(wants(10))), Some(10));
    let token = proposals(&desk.frame(9, transfer(0, 0, vec![carried("a"), carried("b")])))[0].0;
    assert_eq!(
        told(&desk.answer(token, Outcome::Accepted { refused: Vec::new() })),
        Some(8)
    );
    assert_eq!(told(&desk.input(wants(8))), None, "counted now, so it is the same");
    assert_eq!(told(&desk.input(wants(10))), Some(10));
}

/// Consumers with a small prefetch starved while another group's messages were on their way.
#[test]
fn busy_consumers_are_told_what_they_finish_in_a_round_trip_and_it_returns() {
    let mut desk = desk(config());
    desk.linked(9, Vec::new());
    desk.mesh.event(
        0,
        Event::RoundTrip {
            link: 9,
            rtt_us: 50_000,
        },
    );
    let wants = |consumers, busy, per_second, behind| Input::LocalDemand {
        destination: queue(),
        consumers,
        credit: 0,
        selectors: vec![None],
        durable: false,
        pace: Pace {
            busy,
            per_second,
            behind,
            in_hand: busy,
        },
    };
    assert_eq!(
        told(&desk.input(wants(2, 0, 0, 0))),
        Some(0),
        "nobody is known to do anything"
    );
    assert_eq!(told(&desk.input(wants(2, 2, 0, 0))), Some(2), "one for each");
    assert_eq!(
        told(&desk.input(wants(2, 2, 100, 0))),
        Some(16),
        "ten with the hand-over itself, coarsely"
    );
    assert_eq!(
        told(&desk.input(wants(2, 2, 100, 7))),
        Some(9),
        "seven wait for them here"
    );
    assert_eq!(
        told(&desk.input(wants(2, 2, 100, 16))),
        Some(0),
        "they are a round trip behind"
    );
    let gone = sent(&desk.input(wants(0, 0, 0, 16)));
    let all_gone = |frame: &Frame| matches!(frame, Frame::Demand(demand) if demand.gone == [Key::of(&queue(), US)]);
    assert!(gone.iter().any(all_gone), "{gone:?}");
}

#[test]
fn a_full_group_tells_no_credit_and_takes_nothing_p8() {
    let mut desk = desk(config());
    desk.linked(9, Vec::new());
    desk.linked(20, vec![row(&[20], 500)]);
    let wants = |in_hand| Input::LocalDemand {
        destination: queue(),
        consumers: 1,
        credit: 1_000 - in_hand,
        selectors: vec![None],
        durable: false,
        pace: Pace {
            busy: 1,
            per_second: 100,
            in_hand,
            ..Pace::default()
        },
    };
    desk.input(wants(0));
    let zero = |actions: &[Action]| {
        let rows = sent(actions).into_iter().filter_map(|frame| match frame {
            Frame::Demand(demand) => Some(demand.rows),
            _ => None,
        });
        let credits: Vec<_> = rows.flatten().map(|row| row.credit).collect();
        !credits.is_empty() && credits.iter().all(|credit| *credit == 0)
    };
    let actions = desk.input(Input::Room(Room::None));
    assert!(zero(&actions), "its own and what it passes on: {actions:?}");
    assert!(proposals(&desk.frame(9, transfer(0, 0, vec![carried("a")]))).is_empty());
    assert!(proposals(&desk.frame(9, transfer(1, 0, vec![carried("b")]))).is_empty());
    assert!(proposals(&desk.frame(20, transfer(0, 0, vec![carried("c")]))).is_empty());
    assert!(proposals(&desk.wait_until(4_000)).is_empty());

    let actions = desk.input(Input::Room(Room::Little));
    assert_eq!(told(&actions), Some(4));
    let proposed = proposals(&actions);
    assert_eq!(proposed.len(), 2, "one at a time of each: {proposed:?}");
    let stored = desk.answer(proposed[0].0, Outcome::Accepted { refused: Vec::new() });
    assert_eq!(proposals(&stored).len(), 1, "the next one of the same");
    assert_eq!(told(&desk.input(wants(4))), Some(0), "its consumers have a little");
    let actions = desk.input(Input::Room(Room::Plenty));
    assert!(told(&actions).is_some_and(|credit| credit >= 996), "{actions:?}");
}

/// What found no room is proposed again in the order of arrival, also where the room comes back little by little.
#[test]
fn what_waits_for_room_keeps_its_order_p6() {
    let mut desk = desk(config());
    desk.linked(9, Vec::new());
    let mut tokens = Vec::new();
    for number in 0..3 {
        tokens.extend(proposals(&desk.frame(9, transfer(number, 0, vec![carried("x")]))));
    }
    desk.input(Input::Room(Room::None));
    for (token, _) in tokens {
        let result = Err(Failed::Retry);
        assert!(proposals(&desk.input(Input::Proposed { token, result })).is_empty());
    }
    assert!(proposals(&desk.wait_until(4_000)).is_empty());
    let mut accepted = Vec::new();
    let mut actions = desk.input(Input::Room(Room::Little));
    while let [(token, Command::Accept(accept))] = &proposals(&actions)[..] {
        accepted.push(accept.transfer);
        actions = desk.answer(*token, Outcome::Accepted { refused: Vec::new() });
    }
    assert_eq!(accepted, [0, 1, 2]);
}

/// The credit that somebody is told of the queue first.
fn told(actions: &[Action]) -> Option<u32> {
    let credit = |frame: Frame| match frame {
        Frame::Demand(demand) | Frame::Accepted { demand, .. } => demand.rows.first().map(|row| row.credit),
        _ => None,
    };
    sent(actions).into_iter().find_map(credit)
}
