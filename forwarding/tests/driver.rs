//! Drivers over real links on loopback: two groups find each other through a slave, move messages with an exchange of
//! masters in between, and one group does not link with itself.

#![allow(clippy::unwrap_used, reason = "what is unwrapped here holds, or the test has failed")]

#[path = "sim/model.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod model;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrymq_broker::{Carried, GroupId};
use ferrymq_forwarding::{
    Config, Driver, Input, LinkState, LinkStatus, Output, Pace, PeerCandidate, RemoteDemand, frame::PART_BYTES,
};
use ferrymq_message::{Destination, Message};
use ferrymq_transport::{Identity, LinkEndpoint, MeshSecret, PeerName};
use model::{Model, id_of, message};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

const SECRET: &str = "a secret of the whole mesh";
const PATIENCE: Duration = Duration::from_secs(20);

fn endpoint(group: &str, node: u64) -> Arc<LinkEndpoint> {
    let secret = MeshSecret::new(SECRET).unwrap();
    let identity = Identity::from_secret(PeerName::new(group, node).unwrap(), &secret).unwrap();
    Arc::new(LinkEndpoint::bind("127.0.0.1:0".parse().unwrap(), &identity).unwrap())
}

fn address(endpoint: &LinkEndpoint) -> String {
    endpoint.local_addr().unwrap().to_string()
}

/// A master with its group's state: commits what is proposed at once.
struct Master {
    driver: Driver,
    inputs: mpsc::Sender<Input>,
    outputs: mpsc::Receiver<Output>,
    model: Model,
    demand: BTreeMap<Destination, Vec<RemoteDemand>>,
    links: Vec<LinkStatus>,
}

impl Master {
    async fn start(name: &str, id: GroupId, node: u64, epoch: u64, endpoint: Arc<LinkEndpoint>, model: Model) -> Self {
        let config = Config::new(name, id, node, epoch);
        let (driver, inputs, outputs) = Driver::start(config, endpoint, epoch);
        let mut master = Self {
            driver,
            inputs,
            outputs,
            model,
            demand: BTreeMap::new(),
            links: Vec::new(),
        };
        master.model.group = id;
        let mut first = Vec::new();
        for (group, outgoing) in &master.model.outgoing {
            for (transfer, ((destination, target), messages)) in &outgoing.pending {
                first.push(offered(*group, *transfer, destination, *target, messages.clone()));
            }
        }
        let next = master
            .model
            .outgoing
            .iter()
            .map(|(group, outgoing)| (*group, outgoing.next))
            .collect();
        first.push(Input::Settled {
            next,
            pending: Vec::new(),
            arrived: master.model.arrived(),
        });
        for input in first {
            master.tell(input).await;
        }
        master
    }

    async fn tell(&self, input: Input) {
        self.inputs.send(input).await.unwrap();
    }

    async fn knows(&self, endpoints: Vec<String>) {
        self.tell(Input::Peers(vec![PeerCandidate {
            group: None,
            group_id: None,
            endpoints,
        }]))
        .await;
    }

    async fn wants(&self, destination: &Destination, credit: u32) {
        let demand = Input::LocalDemand {
            destination: destination.clone(),
            consumers: 1,
            credit,
            selectors: vec![None],
            durable: false,
            pace: Pace::default(),
        };
        self.tell(demand).await;
    }

    async fn offer(&mut self, destination: &Destination, next_hop: GroupId, count: usize) {
        let offer = self.model.offer(&(destination.clone(), None), next_hop, count);
        let (transfer, messages) = offer.expect("there is something to offer");
        self.tell(offered(next_hop, transfer, destination, None, messages))
            .await;
    }

    /// Takes in one output.
    async fn step(&mut self) {
        match self.outputs.recv().await.expect("the mesh runs") {
            Output::Propose { token, command } => {
                let outcome = self.model.apply(&command);
                self.tell(Input::Proposed {
                    token,
                    result: Ok(outcome),
                })
                .await;
            }
            Output::Demand { destination, rows } => _ = self.demand.insert(destination, rows),
            Output::Links(links) => self.links = links,
            Output::Status { ask: _, links } => self.links = links,
            Output::Group(_) => {}
        }
    }

    fn waiting(&self, destination: &Destination) -> Vec<String> {
        let queue = self.model.queues.get(&(destination.clone(), None));
        queue.into_iter().flatten().map(id_of).collect()
    }

    fn in_doubt(&self) -> usize {
        self.model
            .outgoing
            .values()
            .map(|outgoing| outgoing.pending.len())
            .sum()
    }
}

fn offered(
    group: GroupId,
    transfer: u64,
    destination: &Destination,
    target: Option<GroupId>,
    messages: Vec<Carried>,
) -> Input {
    Input::Offered {
        queue: 1,
        group,
        transfer,
        destination: destination.clone(),
        target,
        messages,
    }
}

/// Lets both masters work until something is so.
async fn until(what: &str, a: &mut Master, b: &mut Master, mut done: impl FnMut(&Master, &Master) -> bool) {
    let waiting = async {
        while !done(a, b) {
            tokio::select! {
                () = a.step() => {}
                () = b.step() => {}
            }
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn messages_move_over_a_real_link_and_through_a_change_of_master() {
    let queue = Destination::queue("ORDERS");
    let (north, south, south_slave) = (endpoint("north", 1), endpoint("south", 1), endpoint("south", 2));
    let (_master, master_of_south) = watch::channel(vec![address(&south)]);
    let redirector = Driver::redirector(south_slave.clone(), master_of_south);

    let mut a = Master::start("north", 100, 1, 1, north.clone(), Model::default()).await;
    let mut b = Master::start("south", 200, 1, 1, south.clone(), Model::default()).await;
    a.knows(vec![address(&south_slave)]).await;
    b.wants(&queue, 1_000).await;
    until("demand is heard through the redirection", &mut a, &mut b, |a, _| {
        a.demand.get(&queue).is_some_and(|rows| rows[0].available == 1_000)
    })
    .await;
    let row = &a.demand[&queue][0];
    assert_eq!(
        (row.origin, row.origin_name.as_str(), row.distance, row.linked),
        (200, "south", 1, true)
    );

    // One message needs several frames.
    let large = Message::new("large", queue.clone(), vec![7; 2 * PART_BYTES + 5]).encode();
    let place = (queue.clone(), None);
    let waiting = a.model.queues.entry(place.clone()).or_default();
    waiting.extend((0..300).map(|n| message(&format!("m{n:03}"), &queue)));
    let ids: Vec<String> = waiting.iter().map(id_of).collect();
    for _ in 0..30 {
        a.offer(&queue, 200, 10).await;
    }
    until("all are owned by south", &mut a, &mut b, |a, b| {
        b.waiting(&queue).len() == 300 && a.in_doubt() == 0
    })
    .await;
    assert_eq!(b.waiting(&queue), ids);

    let carried = Carried {
        redeliveries: 3,
        redelivered: true,
        hops: 0,
        dead_letter: None,
        message: large.clone(),
    };
    a.model.queues.entry(place.clone()).or_default().push_back(carried);
    a.offer(&queue, 200, 1).await;
    until("the large one is there", &mut a, &mut b, |a, _| a.in_doubt() == 0).await;
    let last = b.model.queues[&place].back().unwrap();
    assert_eq!(
        (last.redeliveries, last.redelivered, last.hops, &last.message),
        (3, true, 1, &large)
    );

    // South's other node becomes its master while a transfer is on its way; its answer may be lost.
    a.model
        .queues
        .entry(place.clone())
        .or_default()
        .push_back(message("last", &queue));
    a.offer(&queue, 200, 1).await;
    redirector.stop().await;
    let Master { driver, model, .. } = b;
    driver.stop().await;
    let (_master, master_of_south) = watch::channel(vec![address(&south_slave)]);
    let _redirector = Driver::redirector(south.clone(), master_of_south);
    let mut b = Master::start("south", 200, 2, 2, south_slave.clone(), model).await;
    b.wants(&queue, 500).await;
    until("it arrives there", &mut a, &mut b, |a, b| {
        a.in_doubt() == 0 && b.model.queues[&place].len() == 302
    })
    .await;
    until("the link is in the status", &mut a, &mut b, |a, _| {
        a.links.iter().any(|link| {
            let names = (link.peer.as_str(), link.group_id, link.node, link.term);
            names == ("south", Some(200), Some(2), Some(2)) && link.state == LinkState::Up && link.rtt_us > 0
        })
    })
    .await;
    until("marks are forgotten", &mut a, &mut b, |_, b| {
        b.model.incoming[&100].accepted.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_group_does_not_link_with_itself_and_says_so() {
    let (first, second) = (endpoint("north", 1), endpoint("north", 2));
    let mut a = Master::start("north", 100, 1, 1, first.clone(), Model::default()).await;
    let mut b = Master::start("north", 100, 2, 2, second.clone(), Model::default()).await;
    a.knows(vec![address(&second)]).await;
    until("it is in the status", &mut a, &mut b, |a, _| {
        a.links
            .iter()
            .any(|link| link.last_error.as_deref() == Some("that is ourselves"))
            || a.links
                .iter()
                .any(|link| link.last_error.as_deref().is_some_and(|e| e.contains("ourselves")))
    })
    .await;
    assert!(a.links.iter().all(|link| link.state == LinkState::BackOff));
}

#[tokio::test]
async fn an_endpoint_that_nobody_answers_at_is_shown_with_its_error() {
    let north = endpoint("north", 1);
    let mut a = Master::start("north", 100, 1, 1, north, Model::default()).await;
    a.knows(vec!["no-such-host.invalid:1".to_owned()]).await;
    let waiting = async {
        while !a.links.iter().any(|link| link.last_error.is_some()) {
            a.step().await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
    assert_eq!(a.links[0].peer, "no-such-host.invalid:1");
    assert!(
        a.links[0]
            .last_error
            .as_ref()
            .unwrap()
            .starts_with("no-such-host.invalid:1: ")
    );
}
