//! Faults, as they strike and as they end.

use std::collections::BTreeMap;

use ferrymq_simulated_journal::{Crash, disk::Copied, forge};

use crate::{
    client::Job,
    oracle::Oracle,
    profile::Fault,
    sabotage::Sabotage,
    world::{Due, MS, World},
};

/// What was done and is to be undone.
#[derive(Debug, Default)]
pub(crate) struct Storm {
    pub(crate) struck: Vec<Fault>,
    /// Of nodes that are alone in their group: their data and what was true then.
    copies: BTreeMap<usize, (Copied, Oracle)>,
}

/// The end of something.
#[derive(Debug)]
pub(crate) enum Relief {
    Unblock(Vec<(usize, usize)>),
    Unstall(u64),
}

/// Wall clocks that are no further from what they should be are right.
const RIGHT_WITHIN_MS: i64 = 1_000;

impl World {
    pub(crate) fn begin_storm(&mut self) {
        self.is_storm = true;
        self.has_load = true;
        self.network.lost_one_in = self.profile.lost_one_in;
        self.network.doubled_one_in = self.profile.doubled_one_in;
        self.network.late_one_in = self.profile.late_one_in;
        self.after(0, Due::Storm);
    }

    pub(crate) fn storm_breaks(&mut self) {
        if !self.is_storm {
            return;
        }
        let pause_us = self.rng.between(5, self.profile.pause_ms) * MS;
        self.after(pause_us, Due::Storm);
        let Some(fault) = self.profile.fault(&mut self.rng) else {
            return;
        };
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        let any = self.rng.below(all.len() as u64) as usize;
        let group = self.nodes[any].group;
        // Masters are struck more often than by chance.
        let node = match self.master_of(group) {
            Some(master) if self.rng.one_in(2) => master,
            _ => any,
        };
        self.say(|| format!("fault {fault:?} at node {node}"));
        self.storm.struck.push(fault);
        self.strike(fault, node);
    }

    fn strike(&mut self, fault: Fault, node: usize) {
        match fault {
            Fault::CutClient => {
                let open = self.open_connections();
                if let Some(number) = self.rng.pick(&open).copied() {
                    self.cut(number);
                }
            }
            Fault::StallClient => self.stall(),
            Fault::MoveConsumer => self.move_consumer(),
            Fault::CutLink => {
                let links: Vec<u64> = self.links.open.keys().copied().collect();
                if let Some(link) = self.rng.pick(&links).copied() {
                    self.cut_link(link);
                }
            }
            Fault::Kill => self.strike_down(node, Crash::Killed),
            Fault::PowerCut => self.strike_down(node, Crash::PowerCut),
            Fault::CrashAtDisk => {
                let operations = self.rng.below(40);
                self.nodes[node].ends_by = if self.rng.one_in(3) {
                    Crash::Killed
                } else {
                    Crash::PowerCut
                };
                self.nodes[node].machine.end_at(operations);
            }
            Fault::PowerCutGroup => {
                for node in self.groups[self.nodes[node].group].clone() {
                    self.strike_down(node, Crash::PowerCut);
                }
            }
            Fault::PowerCutAll => (0..self.nodes.len()).for_each(|node| self.strike_down(node, Crash::PowerCut)),
            Fault::SyncFails => {
                let syncs = self.rng.below(10);
                self.nodes[node].failing = true;
                self.nodes[node].machine.fail_sync_at(syncs);
            }
            Fault::SlowDisk => {
                let until_us = self.now_us + self.rng.between(100 * MS, 2_000 * MS);
                self.nodes[node].slow_until_us = until_us;
            }
            Fault::FullDisk => {
                let batches = self.rng.between(1, 4);
                if let Some(process) = &mut self.nodes[node].process {
                    process.replica.full_for = batches;
                }
            }
            Fault::ShortDisk => {
                let for_us = self.rng.between(300 * MS, 3_000 * MS);
                if !self.is_paused(node) {
                    self.turn(node, false, |process| process.replica.shared.be_short_for(for_us));
                }
            }
            Fault::FlipBit => self.flip(node),
            Fault::Pause => {
                if self.nodes[node].process.is_some() {
                    let until_us = self.now_us + self.rng.between(50 * MS, 1_500 * MS);
                    self.nodes[node].paused_until_us = until_us;
                }
            }
            Fault::WallJump => {
                let jump_ms = self.rng.below(7_200_000) as i64 - 3_600_000;
                self.jump(node, jump_ms);
            }
            Fault::StepDown => {
                if !self.is_paused(node) {
                    self.turn(node, false, |process| process.replica.step_down());
                }
            }
            Fault::GroupAway => {
                // An end of the line more often than its middle.
                let group = *[0, self.groups.len() - 1, self.nodes[node].group]
                    .get(self.rng.below(3) as usize)
                    .expect("there are three");
                let away_us = self.rng.between(1_500 * MS, 5_000 * MS);
                for node in self.groups[group].clone() {
                    if self.nodes[node].process.is_some() {
                        self.crash(node, Crash::PowerCut, false);
                        self.after(away_us, Due::Start(node));
                    }
                }
            }
            Fault::PutBack => self.copy_or_put_back(node),
            Fault::Isolate | Fault::BlockOneWay | Fault::BlockGroups => self.block(fault, node),
        }
    }

    /// A group of one is stopped and its data are copied; the next time they are put back to that copy.
    fn copy_or_put_back(&mut self, node: usize) {
        let alone = |node: &usize| self.groups[self.nodes[*node].group].len() == 1;
        let Some(node) = [node].into_iter().chain(0..self.nodes.len()).find(alone) else {
            return;
        };
        if self.nodes[node].process.is_none() || self.nodes[node].flipped.is_some() || self.nodes[node].failing {
            return;
        }
        self.crash(node, Crash::Killed, true);
        let group = self.nodes[node].group;
        let Some((disk, truth)) = self.storm.copies.remove(&node) else {
            let copy = (self.nodes[node].machine.copy(), self.oracles[group].clone());
            self.storm.copies.insert(node, copy);
            return;
        };
        self.say(|| format!("the data of node {node} are put back"));
        self.nodes[node].machine.put_back(&disk);
        let lost = std::mem::replace(&mut self.oracles[group], truth);
        let mut concerned = lost.logged_behind(self.oracles[group].index, self.history.sent.keys());
        concerned.extend(self.oracles[group].ids());
        for id in concerned {
            if let Some(sent) = self.history.sent.get_mut(&id) {
                sent.set_back = true;
            }
        }
    }

    /// Messages live by the majority's clocks: one that would be the first of another majority becomes right.
    fn jump(&mut self, node: usize, jump_ms: i64) {
        let group = self.nodes[node].group;
        let ahead_ms = self.profile.clocks_ahead_ms[group];
        let is_wrong = |other: &&usize| (self.nodes[**other].wall_offset_ms - ahead_ms).abs() > RIGHT_WITHIN_MS;
        let others = self.groups[group].iter().filter(|other| **other != node);
        let wrong = others.filter(is_wrong).count() + 1;
        let is_minority = 2 * wrong < self.groups[group].len();
        let offset_ms = &mut self.nodes[node].wall_offset_ms;
        *offset_ms = if is_minority { *offset_ms + jump_ms } else { ahead_ms };
    }

    fn strike_down(&mut self, node: usize, by: Crash) {
        if self.nodes[node].process.is_some() {
            self.crash(node, by, true);
        }
    }

    fn block(&mut self, fault: Fault, node: usize) {
        let group = self.nodes[node].group;
        let others: Vec<usize> = match fault {
            Fault::BlockGroups => (0..self.nodes.len())
                .filter(|other| self.nodes[*other].group != group)
                .collect(),
            _ => (0..self.nodes.len()).filter(|other| *other != node).collect(),
        };
        let mine = match fault {
            Fault::BlockGroups => self.groups[group].clone(),
            _ => vec![node],
        };
        let outward = self.rng.one_in(2);
        let mut pairs = Vec::new();
        for from in &mine {
            for to in &others {
                let one_way = fault == Fault::BlockOneWay;
                if !one_way || outward {
                    pairs.push((*from, *to));
                }
                if !one_way || !outward {
                    pairs.push((*to, *from));
                }
            }
        }
        self.network.blocked.extend(pairs.iter().copied());
        let until_us = self.rng.between(50 * MS, 2_000 * MS);
        self.after(until_us, Due::Relief(Relief::Unblock(pairs)));
    }

    fn stall(&mut self) {
        let open = self.open_connections();
        let Some(number) = self.rng.pick(&open).copied() else {
            return;
        };
        self.set_stalled(number, true);
        let until_us = self.rng.between(50 * MS, 1_500 * MS);
        self.after(until_us, Due::Relief(Relief::Unstall(number)));
    }

    fn set_stalled(&mut self, number: u64, stalled: bool) {
        let Some(target) = self.connections.get(&number).and_then(|c| c.target) else {
            return;
        };
        if self.is_paused(target) {
            return self.after(20 * MS, Due::Relief(Relief::Unstall(number)));
        }
        self.turn(target, false, |process| {
            if let Some(served) = process.connections.get_mut(&number) {
                served.stalled = stalled;
            }
        });
    }

    /// A consumer leaves, or appears in another group.
    fn move_consumer(&mut self) {
        let wandering: Vec<usize> = self
            .clients
            .iter()
            .filter(|client| client.wanders && matches!(client.job, Job::Consume(_)))
            .map(|client| client.id)
            .collect();
        let Some(client) = self.rng.pick(&wandering).copied() else {
            return;
        };
        let groups = self.groups.len() as u64;
        let home = self.rng.below(groups) as usize;
        let away_us = self.rng.between(0, 1_500 * MS);
        let connection = self.clients[client].connection();
        self.clients[client].home = home;
        self.clients[client].away_until_us = self.now_us + away_us;
        match connection {
            // In good order, which the server answers by ending the connection.
            Some(_) if self.rng.one_in(2) => self.with_client(client, |client, turn| client.leave(turn)),
            Some(connection) => self.cut_by_client(connection),
            None => {}
        }
    }

    /// The machine is off for a moment, and a bit of its disk is another one afterwards.
    fn flip(&mut self, node: usize) {
        if self.nodes[node].flipped.is_some() || self.nodes[node].process.is_none() {
            return;
        }
        self.strike_down(node, Crash::PowerCut);
        let at = self.rng.next();
        let flipped = self.nodes[node].machine.flip(at);
        if let (Some((path, offset, bit)), Some(Sabotage::SkipChecksum)) = (&flipped, self.sabotage) {
            self.nodes[node].machine.unflip(path, *offset, *bit);
            forge(&self.nodes[node].machine, path, *offset);
            return;
        }
        self.nodes[node].flipped = flipped;
    }

    pub(crate) fn relieve(&mut self, relief: Relief) {
        match relief {
            Relief::Unblock(pairs) => pairs.iter().for_each(|pair| _ = self.network.blocked.remove(pair)),
            Relief::Unstall(number) => self.set_stalled(number, false),
        }
    }

    /// Everything that is wrong ends; nodes that are down come up by themselves.
    pub(crate) fn heal(&mut self) {
        self.is_storm = false;
        self.has_load = false;
        self.network.blocked.clear();
        self.network.lost_one_in = 0;
        self.network.doubled_one_in = 0;
        self.network.late_one_in = 0;
        for node in &mut self.nodes {
            node.slow_until_us = 0;
            // What was not read until now is restored by its operator.
            if let Some((path, offset, bit)) = node.flipped.take() {
                node.machine.unflip(&path, offset, bit);
            }
        }
        for node in 0..self.nodes.len() {
            // What was to strike and has not.
            if self.nodes[node].process.is_some() {
                self.nodes[node].machine.crash(Crash::Killed);
                self.nodes[node].failing = false;
            }
        }
        let stalled: Vec<u64> = self.open_connections();
        stalled.into_iter().for_each(|number| self.set_stalled(number, false));
    }
}
