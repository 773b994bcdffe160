//! What an answer means, and what is sent or proposed again without one.

use super::desk::*;

#[test]
fn what_contradicts_itself_stays_in_doubt_and_is_shown() {
    for frame in [
        Frame::Settled { transfer: 0 },
        accepted(0, vec![Refused { position: 1, reason: 1 }]),
    ] {
        let mut desk = desk(config());
        desk.input(Input::Settled {
            next: Vec::new(),
            pending: Vec::new(),
            arrived: Vec::new(),
        });
        desk.linked(9, vec![row(&[9], 10)]);
        desk.input(offered(0, vec![carried("a")]));
        let actions = desk.frame(9, frame);
        assert!(proposals(&actions).is_empty(), "releasing could lose it");
        let status = &desk.mesh.status()[0];
        assert_eq!(status.transfers_in_doubt, 1);
        assert!(
            status
                .last_error
                .as_ref()
                .unwrap()
                .starts_with("transfer 0 stays in doubt")
        );
        // The bridge goes on, and what is in doubt is never sent again.
        assert_eq!(transfers(&desk.input(offered(1, vec![carried("b")]))), [1]);
        desk.mesh.event(
            0,
            Event::Closed {
                link: 9,
                reason: "cut".to_owned(),
            },
        );
        assert_eq!(transfers(&desk.accept(10, "g9", 9, 1)), [1]);
        // The operator takes it back.
        desk.input(Input::Reclaimed { group: 9, below: 2 });
        assert_eq!(desk.mesh.status()[0].transfers_in_doubt, 0);
    }
}

#[test]
fn a_transfer_without_an_answer_is_sent_again_with_all_after_it() {
    let mut desk = desk(Config {
        silence_deadline_ms: 60_000,
        ..config()
    });
    desk.input(Input::Settled {
        next: vec![(9, 4)],
        pending: Vec::new(),
        arrived: Vec::new(),
    });
    desk.linked(9, vec![row(&[9], 10)]);
    desk.input(offered(4, vec![carried("a")]));
    desk.now_ms = 8_000;
    desk.input(offered(5, vec![carried("b")]));
    assert!(transfers(&desk.wait_until(14_900)).is_empty());
    assert_eq!(transfers(&desk.wait_until(17_000)), [4, 5]);
}

#[test]
fn an_answer_comes_after_the_commit_and_only_then() {
    let mut desk = desk(config());
    desk.linked(9, Vec::new());
    let bad = Carried {
        message: Bytes::from_static(b"?"),
        ..carried("x")
    };
    let tired = Carried {
        hops: 101,
        ..carried("y")
    };
    let good = carried("a");
    let actions = desk.frame(9, transfer(3, 2, vec![bad, good.clone(), tired]));
    let refused = vec![
        Refused {
            position: 0,
            reason: Refusal::Unreadable as u8,
        },
        Refused {
            position: 2,
            reason: Refusal::TooManyHops as u8,
        },
    ];
    let accept = Command::Accept(Accept {
        origin: 9,
        transfer: 3,
        destination: queue(),
        target: None,
        messages: vec![good],
        refused: refused.clone(),
    });
    let forget = Command::Forget(Forget { origin: 9, floor: 2 });
    let proposed = proposals(&actions);
    assert_eq!(
        proposed.iter().map(|(_, command)| command.clone()).collect::<Vec<_>>(),
        [accept.clone(), forget]
    );
    assert!(sent(&actions).is_empty());
    // The same again, as after a change of the owner's master: it is pending, so nothing is proposed twice.
    assert!(desk.frame(9, transfer(3, 2, vec![carried("a")])).is_empty());
    // No outcome: again, under another token; the old token means nothing any more.
    let token = proposed[0].0;
    desk.input(Input::Proposed {
        token,
        result: Err(Failed::Retry),
    });
    let again = proposals(&desk.wait_until(60));
    assert_eq!(again[0].1, accept);
    assert!(desk.answer(token, Outcome::Settled).is_empty());
    let actions = desk.answer(
        again[0].0,
        Outcome::Accepted {
            refused: refused.clone(),
        },
    );
    assert_eq!(sent(&actions), [accepted(3, refused)]);
    // Below the floor that its owner has told, nothing is even proposed.
    let actions = desk.frame(9, transfer(1, 2, vec![carried("a")]));
    assert_eq!(
        (sent(&actions), proposals(&actions)),
        (vec![Frame::Settled { transfer: 1 }], Vec::new())
    );
}

#[test]
fn a_deposed_master_says_no_more() {
    let mut desk = desk(config());
    desk.linked(9, vec![row(&[9], 10)]);
    let token = proposals(&desk.frame(9, transfer(0, 0, vec![carried("a")])))[0].0;
    let actions = desk.input(Input::Proposed {
        token,
        result: Err(Failed::NotMaster),
    });
    assert_eq!(
        actions,
        [Action::Close {
            link: 9,
            reason: "this node is no longer the master".to_owned()
        }]
    );
    assert!(desk.mesh.is_deposed());
    assert!(desk.input(offered(0, vec![carried("a")])).is_empty());
}

#[test]
fn a_new_terms_floor_waits_for_what_is_pending_from_before() {
    let pulse = |actions: &[Action]| {
        let floor = |frame: Frame| match frame {
            Frame::Pulse { floor, .. } => Some(floor),
            _ => None,
        };
        sent(actions).into_iter().find_map(floor)
    };
    for settled_first in [true, false] {
        let mut desk = desk(config());
        assert_eq!(pulse(&desk.accept(9, "g9", 9, 1)), Some(0), "nothing is known yet");
        desk.frame(9, snapshot(Vec::new()));
        let settled = Input::Settled {
            next: vec![(9, 8)],
            pending: vec![(9, 5), (9, 7)],
            arrived: Vec::new(),
        };
        if settled_first {
            desk.input(settled.clone());
            assert_eq!(
                pulse(&desk.wait_until(1_100)),
                Some(5),
                "pending, though not offered yet"
            );
        }
        assert_eq!(transfers(&desk.input(offered(5, vec![carried("a")]))), [5]);
        assert_eq!(transfers(&desk.input(offered(7, vec![carried("b")]))), [7]);
        if !settled_first {
            assert_eq!(
                pulse(&desk.wait_until(1_100)),
                Some(0),
                "more may be pending than was offered so far"
            );
            desk.input(settled);
        }
        assert!(
            desk.input(offered(6, vec![carried("c")])).is_empty(),
            "settled long ago"
        );
        for (number, floor) in [(5, 7), (7, 8)] {
            let token = proposals(&desk.frame(9, accepted(number, Vec::new())))[0].0;
            desk.answer(token, Outcome::Done);
            let now_ms = desk.now_ms;
            assert_eq!(pulse(&desk.wait_until(now_ms + 1_100)), Some(floor));
        }
    }
}

#[test]
fn what_failed_is_proposed_again_only_when_nothing_before_it_is_open() {
    let mut desk = desk(config());
    desk.linked(9, Vec::new());
    let first = proposals(&desk.frame(9, transfer(0, 0, vec![carried("a")])))[0].0;
    let second = proposals(&desk.frame(9, transfer(1, 0, vec![carried("b")])))[0].0;
    desk.input(Input::Proposed {
        token: second,
        result: Err(Failed::Retry),
    });
    // The first may fail yet, and then the second would have overtaken it (P6); nor does a third one overtake the two.
    assert!(proposals(&desk.wait_until(500)).is_empty());
    assert!(proposals(&desk.frame(9, transfer(2, 0, vec![carried("c")]))).is_empty());
    desk.input(Input::Proposed {
        token: first,
        result: Err(Failed::Retry),
    });
    let again = proposals(&desk.wait_until(600));
    let order = |(_, command): &(u64, Command)| match command {
        Command::Accept(accept) => accept.transfer,
        other => panic!("{other:?}"),
    };
    assert_eq!(again.iter().map(order).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn messages_cross_with_what_is_left_of_their_lives_when_they_are_sent() {
    let expiring = |expires_ms: i64| {
        let mut message = Message::new("a", queue(), "a");
        message.expires_ms = expires_ms;
        Carried {
            message: message.encode(),
            ..carried("a")
        }
    };
    // The owner tells how late it is for it, whenever it sends and however long that was after the offer.
    let mut desk = desk(config());
    desk.input(Input::Settled {
        next: Vec::new(),
        pending: Vec::new(),
        arrived: Vec::new(),
    });
    desk.input(Input::Time {
        time_ms: Some(5_000_000),
    });
    desk.input(offered(0, vec![expiring(5_600_000)]));
    desk.now_ms = 400_000;
    let actions = desk.accept(9, "g9", 9, 1);
    let told = sent(&actions).into_iter().find_map(|frame| match frame {
        Frame::Transfer(transfer) => Some(transfer.time_ms),
        _ => None,
    });
    assert_eq!(told, Some(5_400_000));

    // The receiver goes by its own time from there: 200 s are left.
    let mut there = desk_of_receiver();
    let arriving = Frame::Transfer(Transfer {
        transfer: 0,
        floor: 0,
        destination: queue(),
        target: None,
        time_ms: 5_400_000,
        messages: vec![expiring(5_600_000)],
    });
    let actions = there.frame(9, arriving);
    let Command::Accept(accept) = &proposals(&actions)[0].1 else {
        panic!("{actions:?}");
    };
    let stored = StoredMessage::new(accept.messages[0].message.clone()).unwrap();
    assert_eq!(stored.expires_ms(), 70_200_000);
}

/// Linked with 9; it is 70,000,000 there.
fn desk_of_receiver() -> Desk {
    let mut desk = desk(config());
    desk.input(Input::Time {
        time_ms: Some(69_999_000),
    });
    desk.linked(9, Vec::new());
    desk.now_ms = 1_000;
    desk
}

#[test]
fn another_groups_time_is_compared_with_the_own_one() {
    let mut desk = desk(config());
    desk.linked(9, Vec::new());
    let pulse = |time_ms| Frame::Pulse {
        rows: 0,
        hash: 0,
        floor: 0,
        time_ms,
    };
    desk.frame(9, pulse(7_000));
    assert_eq!(desk.mesh.status()[0].skew_ms, None, "the own time is not known");
    desk.input(Input::Time { time_ms: Some(5_000) });
    desk.mesh.event(
        0,
        Event::RoundTrip {
            link: 9,
            rtt_us: 80_000,
        },
    );
    desk.frame(9, pulse(7_000));
    assert_eq!(desk.mesh.status()[0].skew_ms, Some(2_040));
    desk.frame(9, pulse(0));
    assert_eq!(desk.mesh.status()[0].skew_ms, None);
}

#[test]
fn while_the_time_is_awaited_nothing_is_handed_over() {
    let mut desk = desk(config());
    desk.input(Input::Time { time_ms: None });
    desk.input(Input::Settled {
        next: Vec::new(),
        pending: Vec::new(),
        arrived: Vec::new(),
    });
    desk.linked(9, vec![row(&[9], 10)]);
    assert!(transfers(&desk.input(offered(0, vec![carried("a")]))).is_empty());
    let mut message = Message::new("b", queue(), "b");
    message.expires_ms = 9_600;
    let arriving = Frame::Transfer(Transfer {
        transfer: 0,
        floor: 0,
        destination: queue(),
        target: None,
        time_ms: 9_000,
        messages: vec![Carried {
            message: message.encode(),
            ..carried("b")
        }],
    });
    assert!(proposals(&desk.frame(9, arriving)).is_empty());
    desk.now_ms = 500;
    let actions = desk.input(Input::Time { time_ms: Some(70_500) });
    assert_eq!(transfers(&actions), [0]);
    let Command::Accept(accept) = &proposals(&actions)[0].1 else {
        panic!("{actions:?}");
    };
    let stored = StoredMessage::new(accept.messages[0].message.clone()).unwrap();
    assert_eq!(stored.expires_ms(), 70_600, "it has waited for the time here");
}
