//! One mesh and a peer played by hand: which link stays, what is told to whom, and what an answer means.

#![allow(clippy::unwrap_used, reason = "what is unwrapped here holds, or the test has failed")]

use bytes::Bytes;
use ferrymq_broker::{Accept, Carried, Command, Forget, GroupId, Outcome, Refused, Release};
use ferrymq_forwarding::{
    Action, Config, Event, Failed, Input, LinkId, LinkState, Mesh, Output, PeerCandidate, Refusal, RemoteDemand,
    frame::{Demand, Frame, Hello, LINK_VERSION, Transfer},
    row::{Key, Row},
};
use ferrymq_message::{Destination, Message};

const US: GroupId = 50;

struct Desk {
    mesh: Mesh,
    now_ms: u64,
}

fn config() -> Config {
    Config {
        demand_debounce_ms: 0,
        ..Config::new("us", US, 1, 5)
    }
}

fn desk(config: Config) -> Desk {
    Desk {
        mesh: Mesh::new(config, 1, 0),
        now_ms: 0,
    }
}

fn queue() -> Destination {
    Destination::queue("Q")
}

fn row(path: &[GroupId], credit: u32) -> Row {
    let origin = *path.last().unwrap();
    let key = Key::of(&queue(), origin);
    Row {
        key,
        path: path.to_vec(),
        consumers: 1,
        credit,
        selectors: vec![None],
        ..Row::presence(origin, "")
    }
}

fn snapshot(rows: Vec<Row>) -> Frame {
    Frame::Demand(Demand {
        snapshot: true,
        last: true,
        rows,
        gone: Vec::new(),
    })
}

fn carried(text: &str) -> Carried {
    let message = Message::new(text, queue(), text.to_owned()).encode();
    Carried {
        redeliveries: 0,
        redelivered: false,
        hops: 1,
        dead_letter: None,
        message,
    }
}

fn offered(transfer: u64, messages: Vec<Carried>) -> Input {
    Input::Offered {
        queue: 1,
        group: 9,
        transfer,
        destination: queue(),
        target: None,
        messages,
    }
}

fn transfer(number: u64, floor: u64, messages: Vec<Carried>) -> Frame {
    Frame::Transfer(Transfer {
        transfer: number,
        floor,
        destination: queue(),
        target: None,
        messages,
    })
}

fn accepted(transfer: u64, refused: Vec<Refused>) -> Frame {
    Frame::Accepted {
        transfer,
        refused,
        demand: Demand::default(),
    }
}

fn proposals(actions: &[Action]) -> Vec<(u64, Command)> {
    let propose = |action: &Action| match action {
        Action::Output(Output::Propose { token, command }) => Some((*token, command.clone())),
        _ => None,
    };
    actions.iter().filter_map(propose).collect()
}

fn sent(actions: &[Action]) -> Vec<Frame> {
    let send = |action: &Action| match action {
        Action::Send { frame, .. } => Some(frame.clone()),
        _ => None,
    };
    actions.iter().filter_map(send).collect()
}

fn transfers(actions: &[Action]) -> Vec<u64> {
    let number = |frame: Frame| match frame {
        Frame::Transfer(transfer) => Some(transfer.transfer),
        _ => None,
    };
    sent(actions).into_iter().filter_map(number).collect()
}

fn closed(actions: &[Action]) -> Vec<(LinkId, String)> {
    let close = |action: &Action| match action {
        Action::Close { link, reason } => Some((*link, reason.clone())),
        _ => None,
    };
    actions.iter().filter_map(close).collect()
}

/// The last picture of demand for the queue.
fn demand(actions: &[Action]) -> Option<Vec<RemoteDemand>> {
    let rows = |action: &Action| match action {
        Action::Output(Output::Demand { rows, .. }) => Some(rows.clone()),
        _ => None,
    };
    actions.iter().rev().find_map(rows)
}

impl Desk {
    fn input(&mut self, input: Input) -> Vec<Action> {
        self.mesh.input(self.now_ms, input)
    }

    fn frame(&mut self, link: LinkId, frame: Frame) -> Vec<Action> {
        self.mesh.event(self.now_ms, Event::Frame { link, frame })
    }

    /// Ticks as a driver would until this time.
    fn wait_until(&mut self, end_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        while self.mesh.wake_at_ms() <= end_ms {
            self.now_ms = self.mesh.wake_at_ms().max(self.now_ms + 1);
            actions.extend(self.mesh.input(self.now_ms, Input::Tick));
        }
        self.now_ms = end_ms;
        actions
    }

    fn accept(&mut self, link: LinkId, group: &str, id: GroupId, epoch: u64) -> Vec<Action> {
        let event = Event::Connected {
            link,
            dial: None,
            group: group.to_owned(),
            node: epoch,
        };
        let mut actions = self.mesh.event(self.now_ms, event);
        actions.extend(self.frame(link, hello(group, id, epoch)));
        actions
    }

    /// The mesh dials `endpoint`, which it knows of, and is connected.
    fn dialled(&mut self, link: LinkId, group: &str, epoch: u64) {
        let peer = PeerCandidate {
            group: None,
            group_id: None,
            endpoints: vec!["there:1".to_owned()],
        };
        let actions = self.input(Input::Peers(vec![peer]));
        let dial = |action: &Action| match action {
            Action::Dial { dial, endpoint, .. } if endpoint == "there:1" => Some(*dial),
            _ => None,
        };
        let dial = actions.iter().find_map(dial);
        assert!(dial.is_some());
        self.mesh.event(
            self.now_ms,
            Event::Connected {
                link,
                dial,
                group: group.to_owned(),
                node: epoch,
            },
        );
    }

    fn linked(&mut self, id: GroupId, rows: Vec<Row>) -> Vec<Action> {
        self.accept(id, &format!("g{id}"), id, 1);
        self.frame(id, snapshot(rows))
    }

    fn answer(&mut self, token: u64, outcome: Outcome) -> Vec<Action> {
        self.input(Input::Proposed {
            token,
            result: Ok(outcome),
        })
    }
}

fn hello(group: &str, group_id: GroupId, epoch: u64) -> Frame {
    Frame::Hello(Hello {
        version: LINK_VERSION,
        group: group.to_owned(),
        group_id,
        epoch,
        node: epoch,
    })
}

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
fn what_contradicts_itself_stays_in_doubt_and_is_shown() {
    for frame in [
        Frame::Settled { transfer: 0 },
        accepted(0, vec![Refused { position: 1, reason: 1 }]),
    ] {
        let mut desk = desk(config());
        desk.input(Input::Settled {
            next: Vec::new(),
            pending: Vec::new(),
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
        },
    );
    assert_eq!(sent(&actions), [Frame::Resync]);
    assert_eq!(desk.mesh.status()[0].resyncs, 1);
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
