//! Which link stays, what ends it, and how it is dialled.

use super::desk::*;

#[test]
fn a_link_needs_a_hello_that_fits() {
    let cases = [
        (hello("us", US, 3), "that is ourselves"),
        (hello("us", 9, 3), "another group carries our name 'us'"),
        (hello("them", 9, 2), "the certificate is of them/3, the hello of them/2"),
        (
            hello("others", 9, 3),
            "the certificate is of them/3, the hello of others/3",
        ),
        (Frame::Resync, "a frame before the hello"),
    ];
    for (frame, reason) in cases {
        let mut desk = desk(config());
        let event = Event::Connected {
            link: 1,
            dial: None,
            group: "them".to_owned(),
            node: 3,
        };
        assert_eq!(sent(&desk.mesh.event(0, event)).len(), 1, "we say hello first");
        assert_eq!(closed(&desk.frame(1, frame)), [(1, reason.to_owned())]);
    }
}

#[test]
fn a_higher_epoch_takes_the_links_place_and_a_lower_one_never_comes_back() {
    let mut desk = desk(config());
    desk.accept(1, "them", 9, 3);
    let actions = desk.accept(2, "them", 9, 4);
    assert_eq!(closed(&actions), [(1, "another link takes its place".to_owned())]);
    let refused = closed(&desk.accept(3, "them", 9, 3));
    assert_eq!(
        refused,
        [(3, "epoch 3 of that group is over, epoch 4 was seen".to_owned())]
    );
    // Not even when the later master's link is gone.
    desk.mesh.event(
        0,
        Event::Closed {
            link: 2,
            reason: "cut".to_owned(),
        },
    );
    assert_eq!(closed(&desk.accept(4, "them", 9, 3)).len(), 1);
    assert!(closed(&desk.accept(5, "them", 9, 4)).is_empty());
}

#[test]
fn of_two_links_dialled_at_once_both_sides_keep_the_one_of_the_smaller_id() {
    for (their_id, ours_stays) in [(US + 1, true), (US - 1, false)] {
        for ours_first in [true, false] {
            let mut desk = desk(config());
            desk.dialled(1, "them", 3);
            let first = if ours_first {
                desk.frame(1, hello("them", their_id, 3))
            } else {
                Vec::new()
            };
            let mut actions = first;
            actions.extend(desk.accept(2, "them", their_id, 3));
            if !ours_first {
                actions.extend(desk.frame(1, hello("them", their_id, 3)));
            }
            let gone: Vec<LinkId> = closed(&actions).into_iter().map(|(link, _)| link).collect();
            assert_eq!(
                gone,
                [if ours_stays { 2 } else { 1 }],
                "id {their_id}, ours first: {ours_first}"
            );
        }
    }
}

#[test]
fn every_state_of_a_link_has_its_deadline() {
    let mut desk = desk(config());
    desk.mesh.event(
        0,
        Event::Connected {
            link: 1,
            dial: None,
            group: "them".to_owned(),
            node: 1,
        },
    );
    assert_eq!(closed(&desk.wait_until(3_000)), [(1, "no hello in time".to_owned())]);
    desk.accept(2, "them", 9, 1);
    assert_eq!(closed(&desk.wait_until(6_000)), [(2, "no demand in time".to_owned())]);
    desk.accept(3, "them", 9, 1);
    desk.frame(3, snapshot(Vec::new()));
    assert_eq!(desk.mesh.status()[0].state, LinkState::Up);
    assert!(closed(&desk.wait_until(10_900)).is_empty());
    desk.frame(
        3,
        Frame::Pulse {
            rows: 0,
            hash: 0,
            floor: 0,
        },
    );
    assert!(closed(&desk.wait_until(15_000)).is_empty());
    assert_eq!(
        closed(&desk.wait_until(16_000)),
        [(3, "nothing was heard in time".to_owned())]
    );
}

#[test]
fn dialling_is_given_up_in_time_and_repeated_more_and_more_slowly() {
    let mut desk = desk(config());
    let peer = PeerCandidate {
        group: Some("them".to_owned()),
        group_id: None,
        endpoints: vec!["a:1".to_owned()],
    };
    let mut actions = desk.input(Input::Peers(vec![peer]));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let Some(Action::Dial { dial, .. }) = actions.pop() else {
            panic!("not dialled")
        };
        let failed_ms = desk.now_ms;
        assert!(
            desk.mesh
                .event(
                    failed_ms,
                    Event::DialFailed {
                        dial,
                        error: "refused".to_owned()
                    }
                )
                .is_empty()
        );
        loop {
            actions = desk.wait_until(desk.now_ms + 10);
            actions.retain(|action| matches!(action, Action::Dial { .. }));
            if !actions.is_empty() {
                break;
            }
        }
        pauses.push(desk.now_ms - failed_ms);
    }
    assert!(
        pauses[0] <= 120 && pauses[7] >= 1_000 && pauses[7] <= 2_020,
        "{pauses:?}"
    );
    // Nobody answers at all.
    let status = |desk: &Desk| desk.mesh.status()[0].clone();
    assert_eq!(status(&desk).state, LinkState::Dialling);
    desk.wait_until(desk.now_ms + 3_000);
    assert_eq!(
        status(&desk).last_error.as_deref(),
        Some("no answer to the dialling in time")
    );
}

#[test]
fn a_redirection_is_followed_but_not_in_circles() {
    let mut desk = desk(config());
    desk.dialled(1, "them", 1);
    let mut actions = Vec::new();
    for link in 1..=5 {
        actions = desk.frame(
            link,
            Frame::Redirect {
                endpoints: vec![format!("other:{link}")],
            },
        );
        assert_eq!(closed(&actions), [(link, "redirected".to_owned())]);
        let dialled = |action: &Action| match action {
            Action::Dial { dial, endpoint, .. } => Some((*dial, endpoint.clone())),
            _ => None,
        };
        let Some((dial, endpoint)) = actions.iter().find_map(dialled) else {
            break;
        };
        assert_eq!(endpoint, format!("other:{link}"));
        let connected = Event::Connected {
            link: link + 1,
            dial: Some(dial),
            group: "them".to_owned(),
            node: 1,
        };
        desk.mesh.event(0, connected);
    }
    assert!(!actions.iter().any(|action| matches!(action, Action::Dial { .. })));
    assert_eq!(
        desk.mesh.status()[0].last_error.as_deref(),
        Some("redirected in circles")
    );
}
