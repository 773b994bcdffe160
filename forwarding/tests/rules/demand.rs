//! What a mesh tells its peers of demand, and what it believes of theirs.

use super::desk::*;

#[test]
fn excluded_destinations_are_neither_told_nor_used() {
    let mut desk = desk(Config {
        excluded: vec!["queue://Q".to_owned()],
        ..config()
    });
    assert_eq!(demand(&desk.linked(9, vec![row(&[9], 10)])), None);
    let demand = Input::LocalDemand {
        destination: queue(),
        consumers: 1,
        credit: 1,
        selectors: vec![None],
        durable: false,
        pace: Pace::default(),
    };
    assert!(desk.input(demand).is_empty());
}

#[test]
fn a_peer_that_tells_too_much_is_cut_off() {
    let mut desk = desk(Config {
        rows_per_link_max: 10,
        ..config()
    });
    let rows = (0..11).map(|n| row(&[9, 100 + n], 1)).collect();
    let actions = desk.linked(9, rows);
    assert_eq!(
        closed(&actions),
        [(9, "more rows of demand than are taken from one group".to_owned())]
    );
}

#[test]
fn rows_through_us_or_with_loops_are_not_used_and_another_hash_asks_for_all_anew() {
    let mut desk = desk(config());
    let rows = vec![row(&[9, US, 20], 5), row(&[8, 21], 5), row(&[9, 22], 5)];
    let used = demand(&desk.linked(9, rows)).unwrap();
    assert_eq!(used.iter().map(|row| row.origin).collect::<Vec<_>>(), [22]);
    let actions = desk.frame(
        9,
        Frame::Pulse {
            rows: 3,
            hash: 1,
            floor: 0,
            time_ms: 0,
        },
    );
    assert_eq!(sent(&actions), [Frame::Resync]);
    assert_eq!(desk.mesh.status()[0].resyncs, 1);
}

#[test]
fn a_neighbour_with_a_way_of_its_own_hears_of_ours_but_not_of_each_change_of_credit() {
    let mut desk = desk(config());
    let credit_told_to_9 = |actions: &[Action]| {
        let credit = |action: &Action| match action {
            Action::Send {
                link: 9,
                frame: Frame::Demand(demand),
            } => demand
                .rows
                .iter()
                .find(|row| row.key.origin == 20)
                .map(|row| row.credit),
            _ => None,
        };
        actions.iter().find_map(credit)
    };
    let change = |rows: Vec<Row>, gone: Vec<Key>| {
        Frame::Demand(Demand {
            rows,
            gone,
            ..Demand::default()
        })
    };
    desk.linked(9, Vec::new());
    assert_eq!(
        credit_told_to_9(&desk.linked(8, vec![row(&[8, 20], 5)])),
        Some(5),
        "9 has no other way"
    );
    assert_eq!(
        credit_told_to_9(&desk.frame(9, change(vec![row(&[9, 20], 5)], Vec::new()))),
        Some(0)
    );
    assert_eq!(
        credit_told_to_9(&desk.frame(8, change(vec![row(&[8, 20], 4)], Vec::new()))),
        None
    );
    let gone = vec![Key::of(&queue(), 20)];
    assert_eq!(
        credit_told_to_9(&desk.frame(9, change(Vec::new(), gone))),
        Some(4),
        "9 has lost its own way"
    );
}

#[test]
fn who_is_linked_with_the_origin_hears_of_its_demand_from_nobody_else() {
    let mut desk = desk(config());
    let told_to_9 = |actions: &[Action]| {
        let demand = actions.iter().find_map(|action| match action {
            Action::Send {
                link: 9,
                frame: Frame::Demand(demand),
            } => Some(demand.clone()),
            _ => None,
        });
        let demand = demand.unwrap_or_default();
        let of_20 = |key: &Key| key.origin == 20 && key.destination.is_some();
        let rows = demand.rows.into_iter().filter(|row| of_20(&row.key));
        let rows: Vec<_> = rows.map(|row| (row.consumers, row.credit, row.durable)).collect();
        (rows, demand.gone.iter().any(of_20))
    };
    let change = |rows: Vec<Row>, gone: Vec<Key>| {
        Frame::Demand(Demand {
            rows,
            gone,
            ..Demand::default()
        })
    };
    let presence = |path: &[GroupId]| Row {
        path: path.to_vec(),
        ..Row::presence(20, "twenty")
    };
    let nothing = (Vec::new(), false);
    desk.linked(9, Vec::new());
    let first = row(&[8, 20], 5);
    let (consumers, credit) = (first.consumers, first.credit);
    assert_eq!(
        told_to_9(&desk.linked(8, vec![presence(&[8, 20]), first])),
        (vec![(consumers, credit, false)], false),
        "9 has no link with 20"
    );
    let linked = desk.frame(9, change(vec![presence(&[9, 20])], Vec::new()));
    assert_eq!(told_to_9(&linked), (Vec::new(), true), "9 is linked now");
    let gone = vec![Key::of(&queue(), 20)];
    assert_eq!(told_to_9(&desk.frame(8, change(Vec::new(), gone))), nothing);
    let more = row(&[8, 20], 4);
    assert_eq!(
        told_to_9(&desk.frame(8, change(vec![more.clone()], Vec::new()))),
        nothing
    );
    let durable = Row {
        durable: true,
        ..more.clone()
    };
    assert_eq!(
        told_to_9(&desk.frame(8, change(vec![durable], Vec::new()))),
        (vec![(0, 0, true)], false),
        "durable demand is known without a gap"
    );
    desk.frame(8, change(vec![more], Vec::new()));
    let lost = desk.frame(9, change(Vec::new(), vec![Key::presence(20)]));
    assert_eq!(
        told_to_9(&lost),
        (vec![(consumers, 4, false)], false),
        "9 has lost its link with 20"
    );
}
