//! Nodes that come back with less than they had: their directory is put back to an older copy, or the whole group is lost
//! and rebuilt under its name (P2, P4).

use std::{path::PathBuf, time::Duration};

use ferrymq_tests::{binary, history::Older, http, wait_until};
use serde_json::{Value, json};

use crate::{
    ALL, EAST, NODES, NORTH, SOUTH,
    fault::{Fault, Mend},
    field::{BULLETIN, Field, WELL_MAX},
    nodes_of, toolbox,
};

/// How long messages come after the copy, which it does not have.
const AFTER_THE_COPY: Duration = Duration::from_secs(3);
/// How long a group may take to deliver what it has when nothing comes any more.
const DELIVER_MAX: Duration = Duration::from_secs(30);
/// How long it may take until others agree that a group is lost.
const FORGET_MAX: Duration = Duration::from_secs(40);

/// All files of a stopped node.
struct Copied(PathBuf);

impl Copied {
    fn take(field: &Field, node: usize) -> Self {
        let to = field.mesh.dir().join(format!("copy-of-{}", field.node(node).name));
        // Of a fault before.
        let _ = std::fs::remove_dir_all(&to);
        copy(
            &field.node(node).data().display().to_string(),
            &to.display().to_string(),
        );
        Self(to)
    }

    fn put_back(&self, field: &Field, node: usize) {
        let data = field.node(node).data().display().to_string();
        field.node(node).wipe();
        copy(&self.0.display().to_string(), &data);
        // A copy that the next power cut takes away would be the suite's own fault.
        toolbox::run("sync", &["-f", &data]);
    }
}

fn copy(from: &str, to: &str) {
    toolbox::run("mkdir", &["-p", to]);
    toolbox::run("cp", &["-a", "--sparse=always", &format!("{from}/."), to]);
}

/// One member of a group of three is put back: stopped, copied, started; later stopped, put back, started.
pub struct PutBack;

impl Fault for PutBack {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let node = on[0];
        let copied = copy_under_load(field, node);
        field.hold(AFTER_THE_COPY);
        field.node_mut(node).stop();
        copied.put_back(field, node);
        field.node_mut(node).spawn();
        Box::new(|_| {})
    }
}

/// As [`PutBack`], after one of the others was away for what came after the copy; and the only one that has that is away
/// when the two come back. They are two of three, and must not go on without it.
pub struct PutBackBesideABehindOne;

impl Fault for PutBackBesideABehindOne {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let (group, node) = (on[0] / NODES, on[1]);
        let copied = copy_under_load(field, node);
        let master = field.wait_master(group);
        let mut others: Vec<usize> = nodes_of(group).filter(|other| *other != node).collect();
        // A master that stays has nothing to hand over.
        others.sort_by_key(|other| *other == master);
        let (behind, knowing) = (others[0], others[1]);
        field.keep_down(behind);
        field.hold(AFTER_THE_COPY);
        field.keep_down(node);
        field.keep_down(knowing);
        copied.put_back(field, node);
        field.release(behind);
        field.release(node);
        Box::new(move |field| field.release(knowing))
    }
}

fn copy_under_load(field: &mut Field, node: usize) -> Copied {
    field.node_mut(node).stop();
    let copied = Copied::take(field, node);
    field.node_mut(node).spawn();
    field.wait_group_well(node / NODES);
    copied
}

/// A group of one is put back to its copy. Where an operator says so (`ferrymq journal renew`), it knows; else its neighbours
/// have to tell it.
pub struct Restore;

/// A group of one is lost and rebuilt empty under its name, and the operator makes the others forget the lost one, as
/// docs/OPERATING.md has it.
pub struct Rebuild {
    /// Whether that is before the new one is there, or when it is linked already.
    pub forget: Forget,
}

/// When an operator does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forget {
    /// Before the new group is started.
    Before,
    /// When the new group wants what the lost one wanted.
    After,
}

impl Fault for Restore {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        lose(field, on[0], Older::Copy);
        if field.dice.below(2) == 0 {
            let data = field.node(on[0]).data().display().to_string();
            let ferrymq = binary::ferrymq().display().to_string();
            if let Err(why) = toolbox::try_run(&ferrymq, &["journal", "renew", &data]) {
                field.breach(format!("a restored copy is not renewed: {why}"));
            }
        }
        field.node_mut(on[0]).spawn();
        Box::new(|_| {})
    }
}

impl Fault for Rebuild {
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let node = on[0];
        let lost = lose(field, node, Older::Empty);
        if self.forget == Forget::Before {
            forget(field, &lost);
        }
        field.node_mut(node).spawn();
        field.wait_well();
        if self.forget == Forget::After {
            forget(field, &lost);
        }
        wait_wanted_anew(field);
        field.load.forgotten(node / NODES);
        Box::new(|_| {})
    }
}

/// Copies a group of one, lets it go on under load, and takes away what it has then. Returns its id.
fn lose(field: &mut Field, node: usize, to: Older) -> String {
    let group = node / NODES;
    field.node_mut(node).stop();
    let copied = Copied::take(field, node);
    field.load.copied(group);
    field.node_mut(node).spawn();
    field.wait_well();
    let id = group_id(field, node);
    field.hold(AFTER_THE_COPY);

    deliver_all(field, node);
    field.node_mut(node).kill();
    match to {
        Older::Copy => copied.put_back(field, node),
        Older::Empty => field.node(node).wipe(),
    }
    field.load.put_back(group, to);
    field.watch.begins_anew(group);
    field.net().heal();
    id
}

fn group_id(field: &Field, node: usize) -> String {
    let status = field.node(node).status().unwrap_or_default();
    status["master"]["group_id"].as_str().unwrap_or_default().to_owned()
}

/// Cuts the group of one off from the others, in the midst of what goes between them, and waits until it has delivered all
/// that it took over: whatever nobody has seen is then not its own alone.
fn deliver_all(field: &mut Field, node: usize) {
    for other in (0..ALL).filter(|other| *other != node) {
        field.net().cut(node, other);
        field.net().cut(other, node);
    }
    wait_until(
        "a group that is cut off has delivered what it took over",
        DELIVER_MAX,
        || {
            field.supervise();
            let status = field.node(node).status().unwrap_or_default();
            let Some(queues) = status["master"]["queues"].as_array() else {
                return false;
            };
            let is_from_elsewhere = |queue: &&Value| {
                let name = queue["name"].as_str().unwrap_or_default();
                name.contains("FAR") || name.contains("BULLETIN")
            };
            let left = queues.iter().filter(is_from_elsewhere);
            left.filter_map(|queue| queue["messages"].as_u64()).sum::<u64>() == 0
        },
    );
}

/// As an operator: `ferrymq group forget` in both other groups.
fn forget(field: &mut Field, id: &str) {
    let body = json!({ "group": id }).to_string();
    for group in [NORTH, SOUTH] {
        let begun = std::time::Instant::now();
        let mut last = String::new();
        wait_until("the lost group is forgotten", 2 * FORGET_MAX, || {
            field.supervise();
            let at = field.node(field.master(group)).ports.admin_address();
            let answer = http::post_at(at, "/api/forget-group", &body);
            last = format!("{answer:?}");
            // Who never had to do with it itself does not know it.
            answer.is_ok_and(|(status, _)| status == 200 || status == 404) || begun.elapsed() > FORGET_MAX
        });
        if begun.elapsed() > FORGET_MAX {
            field.breach(format!("group {group} does not forget the lost one: {last}"));
        }
    }
}

/// What is published before the others know that the new group wants it is not owed to it.
fn wait_wanted_anew(field: &mut Field) {
    wait_until("the rebuilt group is known to want what it wants", WELL_MAX, || {
        field.supervise();
        field.revive();
        [NORTH, SOUTH].iter().all(|group| {
            let status = field.node(field.master(*group)).status().unwrap_or_default();
            let demand = status["master"]["mesh"]["demand"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let rows = demand.iter().filter(|row| row["destination"] == BULLETIN);
            let mut groups = rows.flat_map(|row| row["groups"].as_array().cloned().unwrap_or_default());
            let is_there = |row: &Value| row["linked"] == true && row["consumers"].as_u64() == Some(1);
            let its: Vec<Value> = groups
                .by_ref()
                .filter(|row| row["group"] == *field.mesh.groups[EAST].name)
                .collect();
            its.len() == 1 && its.iter().all(is_there)
        })
    });
}
