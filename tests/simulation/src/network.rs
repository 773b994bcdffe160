//! What lies between nodes of a group, and between clients and nodes. Between nodes messages are lost, doubled,
//! reordered; a client's connection keeps its order and is cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ferrymq_protocol::stomp::{Command, Frame};

use crate::{
    client::{Ack, Job, Link, Turn},
    config::NodeId,
    history::{Written, id_in},
    invariants,
    process::encode,
    raft::Peer,
    sabotage::Sabotage,
    world::{Due, MS, World},
};

/// What is wrong with the network now.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Nothing gets from the first to the second.
    pub(crate) blocked: BTreeSet<(usize, usize)>,
    /// One message in so many is lost, doubled, or held up; 0 is none.
    pub(crate) lost_one_in: u64,
    pub(crate) doubled_one_in: u64,
    pub(crate) late_one_in: u64,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: usize,
    /// The node it was made to, and the one that serves it.
    pub(crate) door: usize,
    pub(crate) target: Option<usize>,
    /// The serving process.
    incarnation: u64,
    /// What is on its way arrives nowhere.
    pub(crate) dead: bool,
    to_server_us: u64,
    /// On its way to the server, in order.
    inbox: VecDeque<Vec<u8>>,
    to_client_us: u64,
}

impl Network {
    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.contains(&(from, to))
    }
}

impl World {
    pub(crate) fn delay(&mut self) -> u64 {
        let base = self.rng.between(50, 2 * MS);
        if self.rng.one_in(self.network.late_one_in) {
            base + self.rng.below(150 * MS)
        } else {
            base
        }
    }

    pub(crate) fn send_peer(&mut self, from: usize, to: NodeId, peer: Peer) {
        let peer = Box::new(peer);
        let group = self.nodes[from].group;
        let id = self.nodes[from].id;
        let to = self.groups[group][to as usize - 1];
        if self.network.is_blocked(from, to) || self.rng.one_in(self.network.lost_one_in) {
            return;
        }
        if self.rng.one_in(self.network.doubled_one_in) {
            let delay_us = self.delay();
            let peer = peer.clone();
            self.after(delay_us, Due::Peer { to, from: id, peer });
        }
        let delay_us = self.delay();
        self.after(delay_us, Due::Peer { to, from: id, peer });
    }

    /// A client's turn.
    pub(crate) fn with_client(&mut self, client: usize, act: impl FnOnce(&mut crate::client::Client, &mut Turn<'_>)) {
        let mut turn = Turn {
            now_us: self.now_us,
            rng: &mut self.rng,
            history: &mut self.history,
            frames: Vec::new(),
            bytes: Vec::new(),
            cuts: false,
            load: self.has_load,
        };
        let Some(one) = self.clients.get_mut(client) else {
            return;
        };
        act(one, &mut turn);
        let Turn {
            frames, bytes, cuts, ..
        } = turn;
        let connection = one.connection();
        let Some(connection) = connection else { return };
        let mut all = bytes;
        for frame in frames {
            all.extend_from_slice(&encode(&frame));
        }
        if !all.is_empty() {
            self.send_to_server(connection, all);
        }
        if cuts {
            self.cut_by_client(connection);
        }
    }

    pub(crate) fn client_tick(&mut self, client: usize) {
        let one = &self.clients[client];
        let (home, door) = (one.home, one.door);
        if one.link == Link::Away {
            if one.gone || self.now_us < one.away_until_us {
                return;
            }
            if self.clients[client].alone && self.is_served(client) {
                return;
            }
            let nodes = self.groups[home].clone();
            let Some(door) = door.or_else(|| self.rng.pick(&nodes).copied()) else {
                return;
            };
            let number = self.number();
            self.connections.insert(
                number,
                Connection {
                    client,
                    door,
                    target: None,
                    incarnation: 0,
                    dead: false,
                    to_server_us: 0,
                    inbox: VecDeque::new(),
                    to_client_us: 0,
                },
            );
            let delay_us = self.delay();
            self.after(delay_us, Due::Arrive(number));
            let connection = number;
            self.with_client(client, |client, turn| client.connected(connection, turn));
        } else {
            self.with_client(client, crate::client::Client::tick);
        }
    }

    /// Whether some node still serves an older connection of this client, not having noticed that it is lost.
    fn is_served(&self, client: usize) -> bool {
        let mut serving = self.nodes.iter().filter_map(|node| node.process.as_ref());
        serving.any(|process| {
            let mut numbers = process.connections.keys();
            numbers.any(|number| self.connections.get(number).is_some_and(|c| c.client == client))
        })
    }

    /// A connection reaches its node: served here, carried to the master, or refused (P10).
    pub(crate) fn arrive(&mut self, number: u64) {
        let Some(connection) = self.connections.get(&number).filter(|c| !c.dead) else {
            return;
        };
        let door = connection.door;
        if self.deferred(door, Due::Arrive(number)) {
            return;
        }
        let target = self.nodes[door].process.as_ref().and_then(|process| {
            if process.serves() {
                return Some(door);
            }
            let master = process
                .replica
                .master
                .filter(|_| self.sabotage != Some(Sabotage::CloseDoors))?;
            Some(self.groups[self.nodes[door].group][master as usize - 1])
        });
        let reachable = target.filter(|to| *to == door || !self.network.is_blocked(door, *to));
        let Some(target) = reachable.filter(|to| !self.is_paused(*to)) else {
            return self.refuse(number);
        };
        let mut taken = false;
        self.turn(target, false, |process| taken = process.connect(number));
        if !taken {
            return self.refuse(number);
        }
        let incarnation = self.nodes[target].incarnation;
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.target = Some(target);
            connection.incarnation = incarnation;
        }
    }

    fn refuse(&mut self, number: u64) {
        let delay_us = self.delay();
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.dead = true;
        }
        self.after(delay_us, Due::ClientLost(number));
    }

    fn send_to_server(&mut self, number: u64, bytes: Vec<u8>) {
        let delay_us = self.delay();
        let now_us = self.now_us;
        if let Some(connection) = self.connections.get_mut(&number).filter(|c| !c.dead) {
            connection.to_server_us = connection.to_server_us.max(now_us + delay_us);
            connection.inbox.push_back(bytes);
            let at_us = connection.to_server_us;
            self.at(at_us, Due::ToServer(number));
        }
    }

    /// The next bytes reach the server, unless something holds them up.
    pub(crate) fn reaches_server(&mut self, number: u64) {
        let Some(connection) = self.connections.get(&number).filter(|c| !c.dead) else {
            return;
        };
        let (door, target, incarnation) = (connection.door, connection.target, connection.incarnation);
        let Some(target) = target else {
            // Not arrived yet.
            return self.after(5 * MS, Due::ToServer(number));
        };
        let held_up = self.is_paused(door) || self.is_paused(target) || self.network.is_blocked(door, target);
        if held_up {
            return self.after(20 * MS, Due::ToServer(number));
        }
        let bytes = self
            .connections
            .get_mut(&number)
            .and_then(|connection| connection.inbox.pop_front());
        let Some(bytes) = bytes else { return };
        if self.nodes[target].incarnation == incarnation {
            self.turn(target, false, |process| process.receive(number, &bytes));
        }
    }

    /// The server has written a frame.
    pub(crate) fn written(&mut self, node: usize, number: u64, mut frame: Frame) {
        if self.sabotage == Some(Sabotage::LoseMarks) {
            frame.headers.take("redelivered");
        }
        let Some(connection) = self.connections.get(&number) else {
            return;
        };
        let client = connection.client;
        if frame.command == Command::Message {
            self.message_written(node, client, number, &frame);
        } else if frame.command == Command::Receipt {
            invariants::p1_durable::answered(self, node, client, &frame);
            invariants::p5_once::answered(self, node, client, &frame);
        }
        let delay_us = self.delay();
        let now_us = self.now_us;
        if let Some(connection) = self.connections.get_mut(&number).filter(|c| !c.dead) {
            connection.to_client_us = connection.to_client_us.max(now_us + delay_us);
            let at_us = connection.to_client_us;
            self.at(at_us, Due::ToClient(number, Box::new(frame)));
        }
    }

    fn message_written(&mut self, node: usize, client: usize, number: u64, frame: &Frame) {
        invariants::p7_one_master::delivers(self, node);
        invariants::p9_damage::delivers(self, frame);
        let group = self.nodes[node].group;
        let Some(id) = id_in(&frame.body).map(str::to_owned) else {
            return;
        };
        self.say(|| format!("node {node} delivers {id} to client {client}"));
        let Job::Consume(consumer) = &self.clients[client].job else {
            return;
        };
        let (taker, is_auto) = (consumer.taker.clone(), consumer.ack == Ack::Auto);
        let written = Written {
            id: &id,
            taker: taker.as_ref(),
            group,
            subscription: number,
            redelivered: frame.headers.get("redelivered") == Some("true"),
            now_us: self.now_us,
        };
        invariants::p2_nothing_lost::delivers(&mut self.history, &written);
        invariants::p3_marked::delivers(&mut self.history, &written);
        invariants::p6_order::delivers(&mut self.history, &written);
        invariants::transactions::delivers(&mut self.history, &written);
        self.history.deliveries += 1;
        if let Some(taker) = taker
            && let Some(sent) = self.history.sent.get_mut(&id)
        {
            *sent.written.entry(taker.clone()).or_default() += 1;
            if is_auto {
                sent.settled.insert(taker);
            }
        }
    }

    pub(crate) fn reaches_client(&mut self, number: u64, frame: &Frame) {
        let Some(connection) = self.connections.get(&number).filter(|c| !c.dead) else {
            return;
        };
        let client = connection.client;
        if self.clients[client].connection() == Some(number) {
            self.with_client(client, |client, turn| client.hear(frame, turn));
        }
    }

    /// The server has ended a connection; what it has written still arrives.
    pub(crate) fn server_closed(&mut self, number: u64) {
        let now_us = self.now_us;
        if let Some(connection) = self.connections.get(&number) {
            let at_us = connection.to_client_us.max(now_us) + 100;
            self.at(at_us, Due::ClientLost(number));
        }
    }

    pub(crate) fn server_lost(&mut self, number: u64) {
        let Some(connection) = self.connections.get(&number) else {
            return;
        };
        let (target, incarnation) = (connection.target, connection.incarnation);
        let Some(target) = target else { return };
        if self.deferred(target, Due::ServerLost(number)) {
            return;
        }
        if self.nodes[target].incarnation == incarnation {
            self.turn(target, false, |process| process.disconnect(number));
        }
    }

    pub(crate) fn client_lost(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        connection.dead = true;
        let client = connection.client;
        if self.clients[client].connection() == Some(number) {
            self.with_client(client, |client, turn| client.disconnected(turn));
        }
    }

    /// The client gives its connection up.
    pub(crate) fn cut_by_client(&mut self, number: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.dead = true;
        }
        let delay_us = self.rng.below(40 * MS);
        self.after(delay_us, Due::ServerLost(number));
        self.client_lost(number);
    }

    /// The network gives it up: each end notices when it does.
    pub(crate) fn cut(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number).filter(|c| !c.dead) else {
            return;
        };
        connection.dead = true;
        let (a, b) = (self.rng.below(60 * MS), self.rng.below(60 * MS));
        self.after(a, Due::ServerLost(number));
        self.after(b, Due::ClientLost(number));
    }

    pub(crate) fn open_connections(&self) -> Vec<u64> {
        self.connections
            .iter()
            .filter(|(_, c)| !c.dead)
            .map(|(number, _)| *number)
            .collect()
    }

    pub(crate) fn drop_connections_of(&mut self, node: usize) {
        let touches: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| !c.dead && (c.door == node || c.target == Some(node)))
            .map(|(number, _)| *number)
            .collect();
        touches.into_iter().for_each(|number| self.cut(number));
        let dead: BTreeMap<_, _> = std::mem::take(&mut self.connections);
        let clients = &self.clients;
        self.connections = dead
            .into_iter()
            .filter(|(number, c)| !c.dead || clients[c.client].connection() == Some(*number) || c.target != Some(node))
            .collect();
    }
}
