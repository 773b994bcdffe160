//! What a fault is: something that breaks a part of the field, and how that is mended.

use crate::{EAST, GROUPS, NORTH, SOUTH, field::Field, nodes_of};

/// Mends what a strike has broken. Dropped without being called (a scenario has failed), it must not leave anything
/// that keeps processes from ending.
pub type Mend = Box<dyn FnOnce(&mut Field)>;

/// One way in which things break. To add one, implement this in the file of its family below `faults/`.
pub trait Fault: Sync {
    /// Why this machine cannot inject it, or `None`.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Breaks it for these nodes (positions among all).
    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend;
}

/// Whom a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The master of a group, as it is when the fault strikes.
    Master(usize),
    /// One of its slaves.
    Slave(usize),
    /// Both of them.
    Slaves(usize),
    /// The master first, then one slave.
    MasterAndSlave(usize),
    /// All nodes of a group.
    Group(usize),
    /// The masters of the two groups that have slaves.
    Masters,
    /// The node of east, then the master of the hub that it is linked with.
    EastAndHub,
    /// All nodes of all groups.
    Everyone,
}

impl Whom {
    /// The nodes that it means now.
    pub fn resolve(self, field: &Field) -> Vec<usize> {
        let of = |group: usize| {
            let master = field.master(group);
            let mut all: Vec<usize> = nodes_of(group).collect();
            all.retain(|node| *node != master);
            all.insert(0, master);
            all
        };
        match self {
            Self::Master(group) => of(group)[..1].to_vec(),
            Self::Slave(group) => of(group)[2..].to_vec(),
            Self::Slaves(group) => of(group)[1..].to_vec(),
            Self::MasterAndSlave(group) => of(group)[..2].to_vec(),
            Self::Group(group) => of(group),
            Self::Masters => vec![of(NORTH)[0], of(SOUTH)[0]],
            Self::EastAndHub => vec![of(EAST)[0], of(SOUTH)[0]],
            Self::Everyone => (0..GROUPS).flat_map(of).collect(),
        }
    }

    /// The groups that are struck.
    pub fn groups(self) -> Vec<usize> {
        match self {
            Self::Master(group)
            | Self::Slave(group)
            | Self::Slaves(group)
            | Self::MasterAndSlave(group)
            | Self::Group(group) => vec![group],
            Self::Masters => vec![NORTH, SOUTH],
            Self::EastAndHub => vec![EAST, SOUTH],
            Self::Everyone => (0..GROUPS).collect(),
        }
    }
}
