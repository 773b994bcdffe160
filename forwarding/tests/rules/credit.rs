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
    };
    let told = |actions: &[Action]| {
        let credit = |frame: Frame| match frame {
            Frame::Demand(demand) | Frame::Accepted { demand, .. } => demand.rows.first().map(|row| row.credit),
            _ => None,
        };
        sent(actions).into_iter().find_map(credit)
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
