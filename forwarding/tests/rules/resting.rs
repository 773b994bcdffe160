//! Which addresses are dialled while their group is linked, and which as soon as it is not.

use super::desk::*;

/// A group that answers at its nodes' addresses for as long as it is played.
struct Neighbour {
    name: &'static str,
    id: GroupId,
    nodes: &'static [&'static str],
    /// Its master, whom its slaves name; it may be dead, and they not know it yet.
    master: &'static str,
    /// The term of its master.
    epoch: u64,
    /// Who takes no connection, as if there was no host.
    dead: &'static [&'static str],
}

/// A mesh among neighbours.
struct Neighbourhood {
    desk: Desk,
    neighbours: Vec<Neighbour>,
    next_link: LinkId,
    /// What was dialled, and when.
    dialled: Vec<(u64, String)>,
    closed: Vec<String>,
}

const THEM: [&str; 3] = ["them:1", "them:2", "them:3"];
const OURS: [&str; 3] = ["us:1", "us:2", "us:3"];

fn them() -> Neighbour {
    Neighbour {
        name: "them",
        id: 9,
        nodes: &THEM,
        master: "them:2",
        epoch: 3,
        dead: &[],
    }
}

fn ourselves() -> Neighbour {
    Neighbour {
        name: "us",
        id: US,
        nodes: &OURS,
        master: "us:1",
        epoch: 3,
        dead: &[],
    }
}

/// One candidate for each address, as a plain static list gives them.
fn plain(endpoints: &[&str]) -> Vec<PeerCandidate> {
    endpoints.iter().flat_map(|endpoint| together(&[endpoint])).collect()
}

/// One candidate for all of them, as `masterslave:(…)` gives it.
fn together(endpoints: &[&str]) -> Vec<PeerCandidate> {
    vec![PeerCandidate {
        group: None,
        group_id: None,
        endpoints: endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect(),
    }]
}

impl Neighbourhood {
    fn new(neighbours: Vec<Neighbour>) -> Self {
        Self {
            desk: desk(config()),
            neighbours,
            next_link: 1,
            dialled: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn know(&mut self, peers: Vec<PeerCandidate>) {
        let actions = self.desk.input(Input::Peers(peers));
        self.play(actions);
    }

    /// The neighbour's master dials us.
    fn is_dialled_by_them(&mut self) {
        let link = self.next_link;
        self.next_link += 1;
        self.desk.accept(link, "them", 9, 3);
        let actions = self.desk.frame(link, snapshot(Vec::new()));
        self.play(actions);
    }

    /// Its links break, all at once.
    fn lose_links(&mut self) {
        for link in 1..self.next_link {
            let reason = "cut".to_owned();
            let actions = self.desk.mesh.event(self.desk.now_ms, Event::Closed { link, reason });
            self.play(actions);
        }
    }

    fn event(&mut self, event: Event) {
        let actions = self.desk.mesh.event(self.desk.now_ms, event);
        self.play(actions);
    }

    /// Whether a link is the one in use: another one with the same group would not be taken.
    fn is_in_use(&mut self, link: LinkId) -> bool {
        let resync = self.desk.frame(link, Frame::Resync);
        !sent(&resync).is_empty()
    }

    /// All neighbours answer at once.
    fn play(&mut self, actions: Vec<Action>) {
        let mut actions = std::collections::VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Dial { dial, endpoint, .. } => {
                    self.dialled.push((self.desk.now_ms, endpoint.clone()));
                    actions.extend(self.answer(dial, &endpoint));
                }
                Action::Close { reason, .. } => self.closed.push(reason),
                _ => {}
            }
        }
    }

    fn answer(&mut self, dial: u64, endpoint: &str) -> Vec<Action> {
        let mut neighbours = self.neighbours.iter();
        let Some(owner) = neighbours.find(|n| n.nodes.contains(&endpoint) && !n.dead.contains(&endpoint)) else {
            return Vec::new();
        };
        let link = self.next_link;
        self.next_link += 1;
        let connected = Event::Connected {
            link,
            dial: Some(dial),
            group: owner.name.to_owned(),
            node: owner.epoch,
        };
        let word = if endpoint == owner.master {
            hello(owner.name, owner.id, owner.epoch)
        } else {
            Frame::Redirect {
                endpoints: vec![owner.master.to_owned()],
            }
        };
        let mut actions = self.desk.mesh.event(self.desk.now_ms, connected);
        actions.extend(self.desk.frame(link, word));
        actions.extend(self.desk.frame(link, Frame::Held(Held::default())));
        actions.extend(self.desk.frame(link, snapshot(Vec::new())));
        actions
    }

    /// What is linked is heard all the time.
    fn run_until(&mut self, end_ms: u64) {
        while self.desk.now_ms < end_ms {
            for link in 1..self.next_link {
                let pulse = Frame::Pulse {
                    rows: 0,
                    hash: 0,
                    floor: 0,
                    time_ms: 0,
                };
                let actions = self.desk.frame(link, pulse);
                self.play(actions);
            }
            let next_ms = self
                .desk
                .mesh
                .wake_at_ms()
                .clamp(self.desk.now_ms + 1, self.desk.now_ms + 500);
            self.desk.now_ms = next_ms.min(end_ms);
            let actions = self.desk.input(Input::Tick);
            self.play(actions);
        }
    }

    fn up(&self) -> Vec<String> {
        let links = self.desk.mesh.status().into_iter();
        links.filter(|l| l.state == LinkState::Up).map(|l| l.peer).collect()
    }

    fn dialled_since(&self, at_ms: u64) -> Vec<&str> {
        let since = self.dialled.iter().filter(|(when, _)| *when >= at_ms);
        since.map(|(_, endpoint)| &**endpoint).collect()
    }
}

#[test]
fn the_other_addresses_of_a_linked_group_rest_whoever_dialled() {
    for they_dial in [false, true] {
        for peers in [plain(&THEM), together(&THEM)] {
            let mut here = Neighbourhood::new(vec![them()]);
            if they_dial {
                here.is_dialled_by_them();
            }
            here.know(peers.clone());
            here.run_until(60_000);
            assert_eq!(here.up(), ["them"], "{:?}", here.desk.mesh.status());
            let later = here.dialled_since(100);
            assert!(later.is_empty(), "they dial: {they_dial}, {peers:?}: {later:?}");
            let status = here.desk.mesh.status();
            assert_eq!(status.len(), 1, "what rests is no attempt: {status:?}");
        }
    }
}

#[test]
fn addresses_of_our_own_are_left_out() {
    let mut here = Neighbourhood::new(vec![them(), ourselves()]);
    here.know(plain(&[&OURS[..], &THEM[..]].concat()));
    here.run_until(60_000);
    assert_eq!(here.up(), ["them"]);
    let ours = here.dialled.iter().filter(|(_, endpoint)| endpoint.starts_with("us:"));
    assert_eq!(ours.count(), 3, "each once: {:?}", here.dialled);
    assert_eq!(here.desk.mesh.status().len(), 1, "{:?}", here.desk.mesh.status());
    // Not even where nobody else is linked.
    here.lose_links();
    here.run_until(120_000);
    let ours = here.dialled.iter().filter(|(_, endpoint)| endpoint.starts_with("us:"));
    assert_eq!(ours.count(), 3, "each once: {:?}", here.dialled);
}

#[test]
fn addresses_that_rested_are_dialled_as_soon_as_the_link_is_lost() {
    for they_dial in [false, true] {
        let mut here = Neighbourhood::new(vec![them()]);
        if they_dial {
            here.is_dialled_by_them();
        }
        here.know(plain(&THEM));
        here.run_until(10_000);
        here.neighbours[0].dead = &["them:2"];
        here.neighbours[0].master = "them:3";
        here.lose_links();
        here.run_until(10_001);
        assert_eq!(
            here.up(),
            ["them"],
            "they dial: {they_dial}: {:?}",
            here.dialled_since(10_000)
        );
    }
}

/// Slaves may name a master for a while that is no more. Nobody refuses at its address, as where its host is gone.
#[test]
fn a_dead_master_that_is_still_named_holds_nobody_up() {
    for peers in [plain(&THEM), together(&THEM)] {
        let mut here = Neighbourhood::new(vec![them()]);
        here.know(peers);
        here.run_until(10_000);
        here.neighbours[0].dead = &["them:2"];
        here.lose_links();
        here.run_until(10_300);
        assert_eq!(here.up(), Vec::<String>::new());
        here.neighbours[0].master = "them:3";
        here.run_until(11_000);
        assert_eq!(here.up(), ["them"], "{:?}", here.dialled_since(10_000));
    }
}

/// Both ends of a link with ourselves are ours: whichever hears first ends it for the other one, too.
#[test]
fn our_own_address_is_known_whichever_end_hears_first() {
    for accepted_hears in [false, true] {
        let mut desk = desk(config());
        desk.dialled(1, "us", 1);
        let accepted = Event::Connected {
            link: 2,
            dial: None,
            group: "us".to_owned(),
            node: 1,
        };
        desk.mesh.event(0, accepted);
        let (hears, is_told) = if accepted_hears { (2, 1) } else { (1, 2) };
        assert_eq!(closed(&desk.frame(hears, hello("us", US, 1))).len(), 1);
        let reason = "closed by the other side".to_owned();
        desk.mesh.event(0, Event::Closed { link: is_told, reason });
        let dials = desk.wait_until(60_000);
        assert!(
            !dials.iter().any(|action| matches!(action, Action::Dial { .. })),
            "{dials:?}"
        );
        assert!(desk.mesh.status().is_empty(), "{:?}", desk.mesh.status());
    }
}

/// Where nothing refuses, a dead host is only silent. The next master of a group that only listens is looked for before
/// the silence ends the link.
#[test]
fn the_other_nodes_of_a_silent_group_are_tried_at_once() {
    for they_dial in [false, true] {
        for peers in [plain(&THEM), together(&THEM)] {
            let mut here = Neighbourhood::new(vec![them()]);
            if they_dial {
                here.is_dialled_by_them();
            }
            here.know(peers);
            here.run_until(10_000);
            let link = (1..here.next_link).find(|&link| here.is_in_use(link)).unwrap();
            let is_silent = true;
            // It was only slow: what is tried meanwhile finds the same master, and the link that is heard again stays.
            here.neighbours[0].dead = &THEM;
            here.event(Event::Silence { link, is_silent });
            here.event(Event::Silence { link, is_silent: false });
            here.neighbours[0].dead = &[];
            here.run_until(20_000);
            assert!(here.is_in_use(link), "{:?}", here.closed);
            assert_eq!(here.up(), ["them"]);
            // Its master is gone, and another one elected.
            here.neighbours[0].dead = &["them:2"];
            here.neighbours[0].master = "them:3";
            here.neighbours[0].epoch = 4;
            let before = here.dialled.len();
            here.event(Event::Silence { link, is_silent });
            here.run_until(20_500);
            assert!(
                !here.is_in_use(link),
                "they dial: {they_dial}: {:?}",
                here.dialled[before..].to_vec()
            );
            assert_eq!(here.up(), ["them"]);
            let found = here.dialled.len();
            here.run_until(60_000);
            assert_eq!(
                here.dialled.len(),
                found,
                "and then all is quiet: {:?}",
                here.dialled[found..].to_vec()
            );
        }
    }
}
