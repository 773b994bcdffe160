//! Networks that are cut, lose, double, delay, reset and crawl.

use std::time::Duration;

use ferrymq_tests::wait_until;

use crate::{
    ALL, NODES,
    fault::{Fault, Mend},
    field::Field,
    toolbox::{self, Tool},
};

/// To whom a struck node's network is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// The other nodes of its group that are not struck themselves.
    Group,
    /// The nodes of the other groups.
    OtherGroup,
    /// All other nodes that are not struck; where all are, all others.
    All,
    /// The other nodes of its group, struck or not.
    Each,
    /// The other struck nodes of its group.
    Struck,
}

impl Peers {
    fn of(self, node: usize, on: &[usize]) -> Vec<usize> {
        let all = 0..ALL;
        let is_one = |peer: &usize| match self {
            Self::Group => peer / NODES == node / NODES && !on.contains(peer),
            Self::OtherGroup => peer / NODES != node / NODES,
            Self::All => !on.contains(peer) || on.len() == ALL,
            Self::Each => peer / NODES == node / NODES,
            Self::Struck => peer / NODES == node / NODES && on.contains(peer),
        };
        all.filter(|peer| *peer != node && is_one(peer)).collect()
    }
}

/// Which packets vanish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// All.
    Both,
    /// What the struck node sends: it hears, and nobody hears it.
    Mute,
    /// What is sent to it: it is heard, and hears nobody.
    Deaf,
}

/// Packets vanish in silence, as with a broken switch.
pub struct Cut {
    /// Between the struck nodes and whom.
    pub peers: Peers,
    /// Which way.
    pub direction: Direction,
}

impl Cut {
    fn cut(&self, field: &Field, on: &[usize]) {
        for &node in on {
            for peer in self.peers.of(node, on) {
                if self.direction != Direction::Deaf {
                    field.net().cut(node, peer);
                }
                if self.direction != Direction::Mute {
                    field.net().cut(peer, node);
                }
            }
        }
    }
}

impl Fault for Cut {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        self.cut(field, on);
        Box::new(|field| field.net().heal())
    }
}

/// All packets between the groups vanish and come again, over and over.
pub struct Flap {
    /// From one change to the next.
    pub every: Duration,
    /// Times that they vanish.
    pub times: u32,
}

impl Fault for Flap {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let cut = Cut {
            peers: Peers::OtherGroup,
            direction: Direction::Both,
        };
        for _ in 0..self.times {
            cut.cut(field, on);
            field.hold(self.every);
            field.net().heal();
            field.hold(self.every);
        }
        Box::new(|field| field.net().heal())
    }
}

/// What a firewall can do to packets that come from peers.
#[derive(Debug, Clone, Copy)]
pub enum Wrong {
    /// This share of them is lost.
    Lost(f64),
    /// This share of what is sent to peers is sent twice.
    Doubled(f64),
    /// Connections are answered with a reset, datagrams with "port unreachable".
    Reset,
    /// They come later; jitter of more than half the delay brings them out of order.
    Late {
        /// On average.
        delay_ms: u32,
        /// More or less.
        jitter_ms: u32,
    },
}

/// Packets between the struck nodes and their peers go wrong.
pub struct Packets {
    /// Between the struck nodes and whom.
    pub peers: Peers,
    /// How.
    pub wrong: Wrong,
}

impl Fault for Packets {
    fn missing(&self) -> Option<String> {
        toolbox::missing(&["iptables"])
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let mut tools = Vec::new();
        for &node in on {
            for peer in self.peers.of(node, on) {
                let address = field.net().address(peer).to_string();
                for rule in self.rules(&address) {
                    let rule: Vec<&str> = rule.split(' ').collect();
                    field
                        .net()
                        .run(node, "iptables", &rule)
                        .expect("a firewall takes the rule");
                }
            }
            if let Wrong::Late { delay_ms, jitter_ms } = self.wrong {
                tools.push(delay(field, node, delay_ms, jitter_ms));
            }
        }
        if matches!(self.wrong, Wrong::Reset) && self.peers != Peers::OtherGroup {
            field.watch.allow_overlap(true);
        }
        let on = on.to_vec();
        Box::new(move |field| {
            if on.iter().map(|node| packets_struck(field, *node)).sum::<u64>() == 0 {
                field.breach("no packet has gone wrong".into());
            }
            for &node in &on {
                for table in ["filter", "mangle"] {
                    let flushed = field.net().run(node, "iptables", &["-t", table, "-F"]);
                    flushed.expect("a firewall can be emptied");
                }
            }
            field.watch.allow_overlap(false);
            drop(tools);
        })
    }
}

impl Packets {
    fn rules(&self, peer: &str) -> Vec<String> {
        match self.wrong {
            Wrong::Lost(share) => vec![format!(
                "-A INPUT -s {peer} -m statistic --mode random --probability {share} -j DROP"
            )],
            Wrong::Doubled(share) => vec![format!(
                "-t mangle -A POSTROUTING -d {peer} -m statistic --mode random --probability {share} -j TEE --gateway {peer}"
            )],
            Wrong::Reset => vec![
                format!("-A INPUT -s {peer} -p tcp -j REJECT --reject-with tcp-reset"),
                format!("-A INPUT -s {peer} -p udp -j REJECT"),
            ],
            Wrong::Late { .. } => vec![format!(
                "-A INPUT -s {peer} -j NFQUEUE --queue-num {QUEUE} --queue-bypass"
            )],
        }
    }
}

/// Packets that a rule of a machine's firewall has met.
fn packets_struck(field: &Field, node: usize) -> u64 {
    let counted = ["filter", "mangle"].map(|table| {
        let rules = field.net().run(node, "iptables", &["-t", table, "-S", "-v"]);
        let rules = rules.expect("a firewall tells its rules");
        // `-A INPUT … -c <packets> <bytes> -j DROP`
        let of_rule = |rule: &str| rule.split(" -c ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
        let rules = rules.lines().filter(|rule| rule.starts_with("-A "));
        rules.filter_map(of_rule).sum::<u64>()
    });
    counted.iter().sum()
}

/// Each machine has its own.
const QUEUE: u32 = 7;

fn delay(field: &Field, node: usize, delay_ms: u32, jitter_ms: u32) -> Tool {
    let program = field.options.program.display().to_string();
    let (queue, delay_ms, jitter_ms) = (QUEUE.to_string(), delay_ms.to_string(), jitter_ms.to_string());
    let space = field.net().namespace(node);
    let args = [
        "netns", "exec", &space, &program, "delay", &queue, &delay_ms, &jitter_ms,
    ];
    let tool = Tool::start(std::path::Path::new("ip"), &args);
    wait_until("packets are handed over", Duration::from_secs(10), || {
        // One line for each bound queue; the first column is its number.
        let bound = field
            .net()
            .run(node, "cat", &["/proc/net/netfilter/nfnetlink_queue"])
            .unwrap_or_default();
        bound.lines().any(|line| line.split_whitespace().next() == Some(&queue))
    });
    tool
}

/// The struck machines' lines carry little, clients' bytes included.
pub struct Narrow {
    /// In thousands of bits a second.
    pub kbit: u32,
}

impl Fault for Narrow {
    fn missing(&self) -> Option<String> {
        toolbox::missing(&["tc"])
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let spaces: Vec<String> = on.iter().map(|node| field.net().namespace(*node)).collect();
        let rate = format!("{}kbit", self.kbit);
        for space in &spaces {
            let args = [
                "-n", space, "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", &rate,
            ];
            toolbox::run("tc", &[&args[..], &["burst", "32kbit", "latency", "400ms"]].concat());
        }
        Box::new(move |_| {
            for space in &spaces {
                toolbox::run("tc", &["-n", space, "qdisc", "del", "dev", "eth0", "root"]);
            }
        })
    }
}
