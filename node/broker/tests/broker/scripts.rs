//! Stories as text: `tests/scripts/*.txt` hold commands and what they bring about. `REWRITE=1` writes the outcomes anew.
//!
//! A block is commands, `----`, and what they bring about. Commands that follow each other in a block share one log
//! entry; those indented under `transaction` share one transaction. `#` begins a comment. A line may name its group
//! (`south: …`); without a name it is `north`. The commands:
//!
//! ```text
//! send DEST ID…  [by=PRODUCER:SEQUENCE] [expires=MS] [nonpersistent]
//! ack DEST SEQ…                         return DEST SEQ… [max=N] [uncounted] [keep]
//! expire DEST SEQ… [drop]               consuming DEST begins|ends
//! subscribe NAME TOPIC [SELECTOR]       unsubscribe NAME        (NAME is a client's; a group's is group=NAME)
//! offer DEST SEQ… to=GROUP              accept from=GROUP transfer=N [refuse=POSITION]
//! release to=GROUP transfer=N [refused=POSITION]   forget from=GROUP floor=N   reclaim GROUP
//! open DEST       delete DEST [if-empty]           begin-term                  show
//! ```
//!
//! DEST is a destination, or NAME of a subscription.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use ferrymq_broker::{
    Accept, Acknowledge, Command, Consuming, DeleteDestination, Effect, Enqueue, Expire, Forget, GroupId, Offer,
    Outcome, Owner, Queue, QueueId, QueueKind, Reclaim, Refused, Release, Return, Subscribe, TransferId, Unsubscribe,
};
use ferrymq_message::{Destination, Message, Producer};

use crate::group::Group;

const GROUPS: [(&str, GroupId); 3] = [("north", 1), ("south", 2), ("west", 3)];

fn group_id(name: &str) -> GroupId {
    GROUPS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("north, south or west")
        .1
}

fn group_name(id: GroupId) -> &'static str {
    GROUPS.iter().find(|(_, known)| *known == id).expect("1, 2 or 3").0
}

struct World {
    groups: BTreeMap<&'static str, Group>,
    /// By (owner, transfer): what was sent once and may come again.
    sent: BTreeMap<(GroupId, TransferId), Accept>,
}

/// One command line, taken apart.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        let (mut plain, mut named) = (Vec::new(), BTreeMap::new());
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) if name != "group" => {
                    named.insert(name, value);
                }
                _ => plain.push(word),
            }
        }
        Self { plain, named }
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.named.get(name).map(|value| value.parse().expect("a number"))
    }

    fn has(&self, word: &str) -> bool {
        self.plain.contains(&word)
    }

    fn seqs(&self) -> Vec<u64> {
        self.plain.iter().skip(2).filter_map(|word| word.parse().ok()).collect()
    }

    fn refused(&self) -> Vec<Refused> {
        self.number("refused")
            .map(|p| Refused {
                position: p as u32,
                reason: 1,
            })
            .into_iter()
            .collect()
    }
}

fn owner(name: &str) -> Owner {
    name.strip_prefix("group=")
        .and_then(|rest| rest.split_once('/'))
        .map_or_else(
            || Owner::Client {
                client_id: "client".into(),
                name: name.into(),
            },
            |(group, topic)| Owner::Group {
                group: group_id(group),
                topic: topic.into(),
            },
        )
}

impl World {
    fn new() -> Self {
        let groups = GROUPS.iter().map(|&(name, id)| (name, Group::new(id))).collect();
        Self {
            groups,
            sent: BTreeMap::new(),
        }
    }

    /// Runs the commands of one block and returns what they bring about.
    fn block(&mut self, lines: &[&str]) -> String {
        let mut out = String::new();
        let mut at = 0;
        while at < lines.len() {
            let (name, line) = to_group(lines[at]);
            if line == "show" {
                self.show(name, &mut out);
                at += 1;
                continue;
            }
            let mut commands = Vec::new();
            while at < lines.len() && to_group(lines[at]) != (name, "show") && to_group(lines[at]).0 == name {
                let (_, line) = to_group(lines[at]);
                at += 1;
                if line == "transaction" {
                    let mut inner = Vec::new();
                    while let Some(line) = lines.get(at).and_then(|line| line.strip_prefix("  ")) {
                        inner.extend(self.commands(name, line));
                        at += 1;
                    }
                    commands.push(Command::Transaction(inner));
                } else {
                    commands.extend(self.commands(name, line));
                }
            }
            self.entry(name, &commands, &mut out);
        }
        if out.is_empty() {
            out.push_str("nothing");
        }
        out
    }

    fn queue(&self, group: &str, name: &str) -> QueueId {
        let broker = &self.groups[group].broker;
        let found = match broker.subscriptions().find(&owner(name)) {
            Some(queue) => Some(queue),
            None => self.groups[group].queue(&name.parse().expect("a destination")),
        };
        found.unwrap_or_else(|| panic!("{group} has no {name}"))
    }

    fn commands(&mut self, group: &str, line: &str) -> Vec<Command> {
        let words = Words::new(line);
        let first = words.plain.get(1).copied().unwrap_or("");
        let queue = || self.queue(group, first);
        let seqs = words.seqs();
        let dead_letter = Some(Destination::queue("DLQ"));
        vec![match words.plain[0] {
            "send" => return sends(&words),
            "ack" => Command::Acknowledge(Acknowledge { queue: queue(), seqs }),
            "return" => Command::Return(Return {
                queue: queue(),
                seqs,
                counted: !words.has("uncounted"),
                redeliveries_max: words.number("max").unwrap_or(6) as u16,
                dead_letter: dead_letter.filter(|_| !words.has("keep")),
                reason: "redelivered too often".into(),
            }),
            "expire" => {
                let dead_letter = dead_letter.filter(|_| !words.has("drop"));
                Command::Expire(Expire {
                    queue: queue(),
                    seqs,
                    dead_letter,
                })
            }
            "consuming" => Command::Consuming(Consuming {
                queue: queue(),
                begins: words.has("begins"),
            }),
            "subscribe" => Command::Subscribe(Subscribe {
                topic: words.plain[2].parse().expect("a topic"),
                owner: owner(first),
                selector: words.plain.get(3).copied().unwrap_or("").into(),
            }),
            "unsubscribe" => Command::Unsubscribe(Unsubscribe { owner: owner(first) }),
            "offer" => {
                let group_name = words.named["to"].to_owned();
                Command::Offer(Offer {
                    queue: queue(),
                    seqs,
                    group: group_id(&group_name),
                    group_name,
                })
            }
            "accept" => return self.accept(group, &words).into_iter().collect(),
            "release" => Command::Release(Release {
                group: group_id(words.named["to"]),
                transfer: words.number("transfer").expect("transfer="),
                refused: words.refused(),
            }),
            "forget" => Command::Forget(Forget {
                origin: group_id(words.named["from"]),
                floor: words.number("floor").expect("floor="),
            }),
            "reclaim" => Command::Reclaim(Reclaim { group: group_id(first) }),
            "open" => Command::OpenDestination(first.parse().expect("a destination")),
            "delete" => Command::DeleteDestination(DeleteDestination {
                destination: first.parse().expect("a destination"),
                if_empty: words.has("if-empty"),
            }),
            "begin-term" => Command::BeginTerm,
            other => panic!("unknown command {other}"),
        }]
    }

    /// What the owner's master sends now, or what it sent when the transfer was still under offer.
    fn accept(&mut self, group: &str, words: &Words<'_>) -> Option<Command> {
        let from = words.named["from"];
        let transfer = words.number("transfer").expect("transfer=");
        let refuse: Vec<u32> = words.number("refuse").map(|p| p as u32).into_iter().collect();
        let key = (group_id(from), transfer);
        if let Some(accept) = self.groups[from].carry(group_id(group), transfer, &refuse) {
            self.sent.insert(key, accept);
        }
        Some(Command::Accept(self.sent[&key].clone()))
    }

    fn entry(&mut self, name: &str, commands: &[Command], out: &mut String) {
        let group = self.groups.get_mut(name).expect("a known group");
        let before = group.broker.clone();
        let applied = group.batch(commands);
        for outcome in &applied.outcomes {
            writeln!(out, "{}", said(outcome)).unwrap();
        }
        for effect in &applied.effects {
            let queue_name = |id: QueueId| {
                let queue = group.broker.queues().get(id).or_else(|| before.queues().get(id));
                queue.map_or_else(|| format!("queue {id}"), called)
            };
            let text = match effect {
                Effect::Available { queue, seq, returned } => {
                    let again = if *returned { " again" } else { "" };
                    format!("available{again} {} {seq}", queue_name(*queue))
                }
                Effect::Removed { queue, seq } => format!("removed {} {seq}", queue_name(*queue)),
                Effect::Published { topic, place } => format!("published {topic} {}", group.read(*place).id),
                Effect::QueueCreated { queue } => format!("created {}", queue_name(*queue)),
                Effect::QueueDeleted { queue } => format!("deleted {}", queue_name(*queue)),
                Effect::ConsumingBegan { queue } => format!("consuming {}", queue_name(*queue)),
                Effect::Offered { queue, group, transfer } => {
                    format!("offered {} to {} as {transfer}", queue_name(*queue), group_name(*group))
                }
            };
            writeln!(out, "  {text}").unwrap();
        }
    }

    fn show(&self, name: &str, out: &mut String) {
        let group = &self.groups[name];
        for queue in group.broker.queues().iter() {
            writeln!(out, "{}: {}", called(queue), queue.len()).unwrap();
            for (seq, slot) in queue.iter_from(0) {
                write!(out, "  {seq} {}", group.read(slot.place).id).unwrap();
                if queue.redelivered(seq, slot) {
                    write!(out, ", redelivered {}", slot.redeliveries).unwrap();
                }
                if slot.hops > 0 {
                    write!(out, ", hops {}", slot.hops).unwrap();
                }
                for (is, word) in [(slot.offered(), "offered"), (slot.parked(), "parked")] {
                    if is {
                        write!(out, ", {word}").unwrap();
                    }
                }
                if let Some(letter) = queue.dead_letter(seq) {
                    write!(out, ", from {}: {}", letter.original, letter.reason).unwrap();
                }
                out.push('\n');
            }
        }
        for (id, outgoing) in &group.broker.transfers().outgoing {
            let pending: Vec<_> = outgoing.pending.keys().collect();
            writeln!(
                out,
                "to {}: pending {pending:?}, floor {}",
                group_name(*id),
                outgoing.floor()
            )
            .unwrap();
        }
        for (id, incoming) in &group.broker.transfers().incoming {
            let accepted: Vec<_> = incoming.accepted.keys().collect();
            writeln!(
                out,
                "from {}: accepted {accepted:?}, floor {}",
                group_name(*id),
                incoming.floor
            )
            .unwrap();
        }
    }
}

fn sends(words: &Words<'_>) -> Vec<Command> {
    let destination: Destination = words.plain[1].parse().expect("a destination");
    let mut producer = words
        .named
        .get("by")
        .and_then(|by| by.split_once(':'))
        .map(|(id, first)| Producer {
            id: id.to_owned(),
            sequence: first.parse().expect("a number"),
        });
    let ids = words.plain[2..].iter().filter(|word| **word != "nonpersistent");
    ids.map(|id| {
        let mut message = Message::new(*id, destination.clone(), "body");
        message.expires_ms = words.number("expires").unwrap_or(0) as i64;
        message.persistent = !words.has("nonpersistent");
        message.producer = producer.clone();
        if let Some(producer) = &mut producer {
            producer.sequence += 1;
        }
        Command::Enqueue(Enqueue {
            message: message.encode(),
        })
    })
    .collect()
}

fn called(queue: &Queue) -> String {
    match &queue.kind {
        QueueKind::Queue(destination) => destination.to_string(),
        QueueKind::Subscription {
            topic,
            owner: Owner::Client { name, .. },
            ..
        } => format!("{name}@{topic}"),
        QueueKind::Subscription {
            topic,
            owner: Owner::Group { group, .. },
            ..
        } => {
            format!("group {}@{topic}", group_name(*group))
        }
    }
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".into(),
        Outcome::Duplicate => "duplicate".into(),
        Outcome::Queue(_) => "done".into(),
        Outcome::Offered { transfer, taken } => format!("transfer {transfer} of {taken:?}"),
        Outcome::Accepted { refused } if refused.is_empty() => "accepted".into(),
        Outcome::Accepted { refused } => {
            let positions: Vec<u32> = refused.iter().map(|r| r.position).collect();
            format!("accepted but for {positions:?}")
        }
        Outcome::Settled => "settled long ago".into(),
        Outcome::NotFound => "not found".into(),
        Outcome::Reclaimed { .. } => "done".into(),
        Outcome::Forgotten(_) => "forgotten".into(),
        Outcome::Renewed { incarnation, .. } => format!("incarnation {incarnation}"),
        Outcome::Refused(why) => format!("refused: {why}"),
        Outcome::Many(outcomes) => outcomes.iter().map(said).collect::<Vec<_>>().join(", "),
    }
}

fn to_group(line: &str) -> (&str, &str) {
    match line.split_once(": ") {
        Some((name, rest)) if GROUPS.iter().any(|(known, _)| *known == name) => (name, rest),
        _ => ("north", line),
    }
}

/// The script with its outcomes as they are now.
fn replayed(text: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let mut block = vec![line];
        for line in lines.by_ref().take_while(|line| *line != "----") {
            block.push(line);
        }
        // What the script says now is not read: it is compared by the caller.
        while lines.peek().is_some_and(|line| !line.is_empty()) {
            lines.next();
        }
        for line in &block {
            writeln!(out, "{line}").unwrap();
        }
        writeln!(out, "----\n{}", world.block(&block).trim_end()).unwrap();
    }
    out
}

#[test]
fn stories_end_as_they_are_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 5, "the stories are gone");
    let rewrite = std::env::var_os("REWRITE").is_some();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let now = replayed(&text);
        if rewrite {
            std::fs::write(&path, now).unwrap();
            continue;
        }
        let differs = text.lines().zip(now.lines()).position(|(was, is)| was != is);
        if let Some(line) = differs {
            let (was, is) = (text.lines().nth(line).unwrap(), now.lines().nth(line).unwrap());
            panic!(
                "{}:{}: the script says {was:?}, but it is {is:?}",
                path.display(),
                line + 1
            );
        }
        assert_eq!(text, now, "{}", path.display());
    }
}
