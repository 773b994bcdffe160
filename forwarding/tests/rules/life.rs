//! What a neighbour holds of a group tells it that its log went back (P4).

use super::desk::*;

fn held(epoch: u64, floor: u64, next: u64) -> Frame {
    Frame::Held(Held { epoch, floor, next })
}

/// In term 5 of incarnation 0, with transfers below 10 and one of them pending.
fn with_ten_transfers(pending: Vec<u64>) -> Desk {
    let mut desk = desk(config());
    desk.input(Input::Settled {
        next: vec![(9, 10)],
        pending: pending.iter().map(|transfer| (9, *transfer)).collect(),
        arrived: vec![(9, 3, 7)],
    });
    for transfer in pending {
        desk.input(offered(transfer, vec![carried("old")]));
    }
    desk
}

fn connect(desk: &mut Desk, link: LinkId) -> Vec<Action> {
    let event = Event::Connected {
        link,
        dial: None,
        group: "g9".to_owned(),
        node: 1,
    };
    let mut actions = desk.mesh.event(desk.now_ms, event);
    actions.extend(desk.frame(link, hello("g9", 9, 1)));
    actions
}

fn renewal(actions: &[Action]) -> Option<(u64, u64)> {
    let renewal = |(token, command)| match command {
        Command::Renew(renew) => Some((token, renew.incarnation)),
        _ => None,
    };
    proposals(actions).into_iter().find_map(renewal)
}

#[test]
fn nothing_is_handed_over_before_it_is_known_what_the_neighbour_holds() {
    let mut desk = with_ten_transfers(vec![9]);
    let told = sent(&connect(&mut desk, 1));
    assert_eq!(told[1..], [held(1, 3, 7)], "what is held of it, and nothing else");
    let before = desk.frame(1, snapshot(vec![row(&[9], 10)]));
    assert_eq!((sent(&before), demand(&before)), (Vec::new(), None));
    let actions = desk.frame(1, held(5, 9, 10));
    assert_eq!(transfers(&actions), [9]);
    assert!(sent(&actions).contains(&Frame::Resync), "for what was not listened to");
    assert!(renewal(&actions).is_none());
}

#[test]
fn a_neighbour_that_holds_more_makes_a_group_begin_a_new_life() {
    for (what, beyond, incarnation) in [
        ("a later term", held(6, 0, 0), 1),
        ("a transfer that is not known here", held(5, 9, 11), 1),
        ("a floor above what is pending", held(5, 10, 10), 1),
        ("a later incarnation", held(3 << 40 | 1, 0, 0), 4),
        (
            "a transfer of a later incarnation",
            held(5, 9, first_transfer(2) + 1),
            3,
        ),
    ] {
        let mut desk = with_ten_transfers(vec![9]);
        connect(&mut desk, 1);
        let actions = desk.frame(1, beyond);
        let (token, proposed) = renewal(&actions).unwrap_or_else(|| panic!("{what}"));
        assert_eq!(proposed, incarnation, "{what}");
        assert!(transfers(&actions).is_empty(), "{what}");
        let lineage = 77;
        let actions = desk.answer(token, Outcome::Renewed { incarnation, lineage });
        assert_eq!(closed(&actions).len(), 1, "{what}");
        // From here on it is known as what it is, and old marks are no proof of anything.
        let said = sent(&connect(&mut desk, 2));
        assert!(
            matches!(&said[0], Frame::Hello(hello) if hello.epoch == incarnation << 40 | 5 && hello.lineage == lineage),
            "{what}: {said:?}"
        );
        let actions = desk.frame(2, held(6, 10, 20));
        assert_eq!((renewal(&actions), transfers(&actions)), (None, vec![9]), "{what}");
    }
}

#[test]
fn as_much_as_is_known_here_is_no_reason() {
    for fits in [held(0, 0, 0), held(5, 9, 10), held(4, 2, 3), held(5, 0, 10)] {
        let mut desk = with_ten_transfers(vec![9]);
        connect(&mut desk, 1);
        let actions = desk.frame(1, fits.clone());
        assert_eq!((renewal(&actions), transfers(&actions)), (None, vec![9]), "{fits:?}");
    }
}

#[test]
fn what_an_earlier_life_offered_is_released_or_taken_back_but_never_in_doubt() {
    let mut desk = Desk {
        mesh: Mesh::new(
            Config {
                life: Life {
                    incarnation: 1,
                    lineage: 2,
                },
                ..config()
            },
            1,
            0,
        ),
        now_ms: 0,
    };
    let fresh = first_transfer(1);
    desk.input(Input::Settled {
        next: vec![(9, 10)],
        pending: vec![(9, 7), (9, 8)],
        arrived: Vec::new(),
    });
    desk.input(offered(7, vec![carried("a")]));
    desk.input(offered(8, vec![carried("b")]));
    assert_eq!(transfers(&desk.accept(1, "g9", 9, 1)), [7, 8]);
    assert_eq!(transfers(&desk.input(offered(fresh, vec![carried("c")]))), [fresh]);
    let actions = desk.frame(1, Frame::Settled { transfer: 7 });
    let back = Command::TakeBack(TakeBack { group: 9, transfer: 7 });
    let (token, command) = proposals(&actions)[0].clone();
    assert_eq!(command, back);
    desk.answer(token, Outcome::Done);
    let actions = desk.frame(1, accepted(8, Vec::new()));
    let (token, command) = proposals(&actions)[0].clone();
    assert!(matches!(command, Command::Release(release) if release.transfer == 8));
    desk.answer(token, Outcome::Done);
    assert_eq!(desk.mesh.status()[0].transfers_in_doubt, 1);
    // Of this life it is a contradiction still.
    let actions = desk.frame(1, Frame::Settled { transfer: fresh });
    assert!(proposals(&actions).is_empty());
}

#[test]
fn the_operator_says_so() {
    let mut desk = with_ten_transfers(Vec::new());
    let (token, incarnation) = renewal(&desk.input(Input::Renew)).unwrap();
    assert_eq!(incarnation, 1);
    // Meanwhile a neighbour finds out too; once is enough.
    connect(&mut desk, 1);
    assert!(renewal(&desk.frame(1, held(6, 0, 0))).is_none());
    // Without an outcome it is tried again.
    desk.input(Input::Proposed {
        token,
        result: Err(Failed::Retry),
    });
    let (token, incarnation) = renewal(&desk.wait_until(100)).unwrap();
    let actions = desk.answer(
        token,
        Outcome::Renewed {
            incarnation,
            lineage: 3,
        },
    );
    assert_eq!(closed(&actions).len(), 1);
}

#[test]
fn of_two_living_groups_with_one_id_the_second_is_turned_away() {
    let mut desk = desk(config());
    desk.settled();
    desk.linked(9, Vec::new());
    let copy = Frame::Hello(Hello {
        version: LINK_VERSION,
        group: "g9".to_owned(),
        group_id: 9,
        epoch: 1 << 40 | 7,
        lineage: 5,
        node: 2,
    });
    let meet = |desk: &mut Desk, link: LinkId| {
        let event = Event::Connected {
            link,
            dial: None,
            group: "g9".to_owned(),
            node: 2,
        };
        desk.mesh.event(desk.now_ms, event);
        desk.frame(link, copy.clone())
    };
    let refused = closed(&meet(&mut desk, 2));
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].1.contains("two copies of one group are running"),
        "{refused:?}"
    );
    // Once the first one is silent it is not in the way.
    desk.now_ms += 2_500;
    assert_eq!(
        closed(&meet(&mut desk, 3)),
        [(9, "another link takes its place".to_owned())]
    );
}
