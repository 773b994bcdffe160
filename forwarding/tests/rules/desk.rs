//! A mesh, and its peer played by hand.

pub(super) use bytes::Bytes;
pub(super) use ferrymq_broker::{
    Accept, Carried, Command, Forget, GroupId, Life, Outcome, Refused, Release, TakeBack, first_transfer,
};
pub(super) use ferrymq_forwarding::{
    Action, Config, Event, Failed, Input, LinkId, LinkState, Mesh, Output, Pace, PeerCandidate, Refusal, RemoteDemand,
    Room,
    frame::{Demand, Frame, Held, Hello, LINK_VERSION, Transfer},
    row::{Key, Row},
};
pub(super) use ferrymq_message::{Destination, Message, StoredMessage};

pub(super) const US: GroupId = 50;

pub(super) struct Desk {
    pub(super) mesh: Mesh,
    pub(super) now_ms: u64,
}

pub(super) fn config() -> Config {
    Config {
        demand_debounce_ms: 0,
        ..Config::new("us", US, 1, 5)
    }
}

pub(super) fn desk(config: Config) -> Desk {
    Desk {
        mesh: Mesh::new(config, 1, 0),
        now_ms: 0,
    }
}

pub(super) fn queue() -> Destination {
    Destination::queue("Q")
}

pub(super) fn row(path: &[GroupId], credit: u32) -> Row {
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

pub(super) fn snapshot(rows: Vec<Row>) -> Frame {
    Frame::Demand(Demand {
        snapshot: true,
        last: true,
        rows,
        gone: Vec::new(),
    })
}

pub(super) fn carried(text: &str) -> Carried {
    let message = Message::new(text, queue(), text.to_owned()).encode();
    Carried {
        redeliveries: 0,
        redelivered: false,
        hops: 1,
        dead_letter: None,
        message,
    }
}

pub(super) fn offered(transfer: u64, messages: Vec<Carried>) -> Input {
    Input::Offered {
        queue: 1,
        group: 9,
        transfer,
        destination: queue(),
        target: None,
        messages,
    }
}

pub(super) fn transfer(number: u64, floor: u64, messages: Vec<Carried>) -> Frame {
    Frame::Transfer(Transfer {
        transfer: number,
        floor,
        destination: queue(),
        target: None,
        time_ms: 0,
        messages,
    })
}

pub(super) fn accepted(transfer: u64, refused: Vec<Refused>) -> Frame {
    Frame::Accepted {
        transfer,
        refused,
        demand: Demand::default(),
    }
}

pub(super) fn proposals(actions: &[Action]) -> Vec<(u64, Command)> {
    let propose = |action: &Action| match action {
        Action::Output(Output::Propose { token, command }) => Some((*token, command.clone())),
        _ => None,
    };
    actions.iter().filter_map(propose).collect()
}

pub(super) fn sent(actions: &[Action]) -> Vec<Frame> {
    let send = |action: &Action| match action {
        Action::Send { frame, .. } => Some(frame.clone()),
        _ => None,
    };
    actions.iter().filter_map(send).collect()
}

pub(super) fn transfers(actions: &[Action]) -> Vec<u64> {
    let number = |frame: Frame| match frame {
        Frame::Transfer(transfer) => Some(transfer.transfer),
        _ => None,
    };
    sent(actions).into_iter().filter_map(number).collect()
}

pub(super) fn closed(actions: &[Action]) -> Vec<(LinkId, String)> {
    let close = |action: &Action| match action {
        Action::Close { link, reason } => Some((*link, reason.clone())),
        _ => None,
    };
    actions.iter().filter_map(close).collect()
}

/// The last picture of demand for the queue.
pub(super) fn demand(actions: &[Action]) -> Option<Vec<RemoteDemand>> {
    let rows = |action: &Action| match action {
        Action::Output(Output::Demand { rows, .. }) => Some(rows.clone()),
        _ => None,
    };
    actions.iter().rev().find_map(rows)
}

impl Desk {
    pub(super) fn input(&mut self, input: Input) -> Vec<Action> {
        self.mesh.input(self.now_ms, input)
    }

    pub(super) fn frame(&mut self, link: LinkId, frame: Frame) -> Vec<Action> {
        self.mesh.event(self.now_ms, Event::Frame { link, frame })
    }

    /// Ticks as a driver would until this time.
    pub(super) fn wait_until(&mut self, end_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        while self.mesh.wake_at_ms() <= end_ms {
            self.now_ms = self.mesh.wake_at_ms().max(self.now_ms + 1);
            actions.extend(self.mesh.input(self.now_ms, Input::Tick));
        }
        self.now_ms = end_ms;
        actions
    }

    pub(super) fn accept(&mut self, link: LinkId, group: &str, id: GroupId, epoch: u64) -> Vec<Action> {
        let event = Event::Connected {
            link,
            dial: None,
            group: group.to_owned(),
            node: epoch,
        };
        let mut actions = self.mesh.event(self.now_ms, event);
        actions.extend(self.frame(link, hello(group, id, epoch)));
        if closed(&actions).iter().all(|(closed, _)| *closed != link) {
            actions.extend(self.frame(link, Frame::Held(Held::default())));
        }
        actions
    }

    /// The mesh dials `endpoint`, which it knows of, and is connected.
    pub(super) fn dialled(&mut self, link: LinkId, group: &str, epoch: u64) {
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

    /// Earlier terms have left nothing.
    pub(super) fn settled(&mut self) -> Vec<Action> {
        self.input(Input::Settled {
            next: Vec::new(),
            pending: Vec::new(),
            arrived: Vec::new(),
        })
    }

    pub(super) fn linked(&mut self, id: GroupId, rows: Vec<Row>) -> Vec<Action> {
        self.accept(id, &format!("g{id}"), id, 1);
        self.frame(id, snapshot(rows))
    }

    pub(super) fn answer(&mut self, token: u64, outcome: Outcome) -> Vec<Action> {
        self.input(Input::Proposed {
            token,
            result: Ok(outcome),
        })
    }
}

pub(super) fn hello(group: &str, group_id: GroupId, epoch: u64) -> Frame {
    Frame::Hello(Hello {
        version: LINK_VERSION,
        group: group.to_owned(),
        group_id,
        epoch,
        lineage: 0,
        node: epoch,
    })
}
