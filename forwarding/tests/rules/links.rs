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
    // It is told nothing but why, and ends if it does not come with a later one.
    desk.settled();
    let seen = Held {
        epoch: 4,
        ..Held::default()
    };
    let told = sent(&desk.accept(3, "them", 9, 3));
    assert_eq!(told[1..], [Frame::Held(seen)]);
    let over = "its epoch is over, and it has not begun a later one".to_owned();
    assert!(closed(&desk.wait_until(3_100)).contains(&(3, over)));
    // Not even when the later master's link is gone.
    desk.mesh.event(
        0,
        Event::Closed {
            link: 2,
            reason: "cut".to_owned(),
        },
    );
    assert_eq!(sent(&desk.accept(4, "them", 9, 3)).len(), 2);
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
            time_ms: 0,
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

fn announced(group: &str, id: GroupId, endpoint: &str) -> PeerCandidate {
    PeerCandidate {
        group: Some(group.to_owned()),
        group_id: Some(id),
        endpoints: vec![endpoint.to_owned()],
    }
}

/// Nobody ever answers, but for whoever `answers` names.
struct Silence {
    desk: Desk,
    /// Attempts under way, with the time at which they are given up.
    under_way: Vec<(String, u64)>,
    most_under_way: usize,
    /// When an endpoint was first dialled.
    dialled: std::collections::BTreeMap<String, u64>,
}

impl Silence {
    fn new(config: Config, peers: Vec<PeerCandidate>) -> Self {
        let mut silence = Self {
            desk: desk(config),
            under_way: Vec::new(),
            most_under_way: 0,
            dialled: std::collections::BTreeMap::new(),
        };
        silence.know(peers);
        silence
    }

    fn know(&mut self, peers: Vec<PeerCandidate>) {
        let actions = self.desk.input(Input::Peers(peers));
        self.note(actions);
    }

    fn note(&mut self, actions: Vec<Action>) {
        let now_ms = self.desk.now_ms;
        self.under_way.retain(|(_, until_ms)| *until_ms > now_ms);
        for action in actions {
            if let Action::Dial {
                endpoint, deadline_ms, ..
            } = action
            {
                self.dialled.entry(endpoint.clone()).or_insert(now_ms);
                self.under_way.push((endpoint, now_ms + deadline_ms));
            }
        }
        self.most_under_way = self.most_under_way.max(self.under_way.len());
    }

    fn wait_until(&mut self, end_ms: u64) {
        while self.desk.now_ms < end_ms {
            let actions = self.desk.wait_until(self.desk.now_ms + 1);
            self.note(actions);
        }
    }
}

#[test]
fn a_flood_of_announcements_is_dialled_a_few_at_a_time_and_starves_nobody() {
    let config = config();
    let dials_max = config.dials_max;
    let mut peers: Vec<PeerCandidate> = (0..1_000)
        .map(|n| announced(&format!("forged{n}"), 1_000 + n, &format!("silent:{n}")))
        .collect();
    // Last by name and by place.
    peers.push(announced("them", 9, "them:1"));
    let mut silence = Silence::new(config, peers.clone());
    silence.wait_until(10_000);
    assert_eq!(silence.most_under_way, dials_max);
    assert!(silence.dialled["them:1"] <= 9_000, "{}", silence.dialled["them:1"]);
    assert_eq!(silence.dialled.len(), 1_001, "nobody is left out");
    // All have failed by now: who comes anew does not wait for their next turn, nor does what an operator has written.
    peers.push(announced("new", 10, "new:1"));
    peers.push(PeerCandidate {
        group: None,
        group_id: None,
        endpoints: vec!["written:1".to_owned()],
    });
    silence.know(peers);
    silence.wait_until(11_000);
    assert!(silence.dialled.contains_key("new:1") && silence.dialled.contains_key("written:1"));
    assert_eq!(silence.most_under_way, dials_max);
    // As often as there is something to do, and no more.
    let mut ticks = 0;
    while silence.desk.mesh.wake_at_ms() <= 12_000 {
        silence.desk.now_ms = silence.desk.mesh.wake_at_ms().max(silence.desk.now_ms);
        silence.desk.input(Input::Tick);
        ticks += 1;
    }
    assert!(ticks < 200, "{ticks} in a second");
}

#[test]
fn whoever_was_linked_before_is_dialled_before_those_who_are_only_announced() {
    let mut peers = vec![announced("them", 9, "them:1")];
    let mut desk = desk(config());
    let actions = desk.input(Input::Peers(peers.clone()));
    let Some(Action::Dial { dial, .. }) = actions.first() else {
        panic!("{actions:?}")
    };
    let connected = Event::Connected {
        link: 1,
        dial: Some(*dial),
        group: "them".to_owned(),
        node: 3,
    };
    desk.mesh.event(0, connected);
    desk.frame(1, hello("them", 9, 3));
    // The id of a linked group is no secret: those who announce it under another name gain nothing.
    peers.extend((0..1_000).map(|n| announced(&format!("a{n}"), 9, &format!("silent:{n}"))));
    let mut silence = Silence {
        desk,
        under_way: Vec::new(),
        most_under_way: 0,
        dialled: std::collections::BTreeMap::new(),
    };
    silence.know(peers);
    silence.wait_until(1_000);
    assert!(silence.dialled.is_empty(), "the group is linked");
    let closed = Event::Closed {
        link: 1,
        reason: "cut".to_owned(),
    };
    let actions = silence.desk.mesh.event(1_000, closed);
    silence.note(actions);
    silence.wait_until(1_150);
    assert!(silence.dialled.contains_key("them:1"), "{:?}", silence.dialled);
}

#[test]
fn what_is_being_dialled_counts_as_a_link() {
    let mut config = config();
    config.links_max = 4;
    let peers = (0..20).map(|n| announced(&format!("g{n}"), 100 + n, &format!("silent:{n}")));
    let mut silence = Silence::new(config, Vec::new());
    for link in 1..=3 {
        silence.desk.accept(link, &format!("up{link}"), 10 + link, 1);
    }
    silence.know(peers.collect());
    silence.wait_until(2_000);
    assert_eq!(silence.most_under_way, 1);
    assert!(silence.dialled.len() > 4, "one after the other: {:?}", silence.dialled);
}

#[test]
fn a_name_that_somebody_else_announces_too_is_still_dialled() {
    let true_one = announced("them", 9, "them:1");
    let peers = vec![
        announced("them", 1, "before:1"),
        true_one,
        announced("them", 99, "after:1"),
    ];
    let silence = Silence::new(config(), peers);
    let dialled: Vec<&str> = silence.dialled.keys().map(String::as_str).collect();
    assert_eq!(dialled, ["after:1", "before:1", "them:1"]);
    let named = silence.desk.mesh.status();
    assert!(named.iter().all(|status| status.peer == "them"), "{named:?}");
}
