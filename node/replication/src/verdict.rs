//! What follows from the evidence of several voters: whether this node stands for election. Pure.
//!
//! Nobody stands unless a majority, without the accused master, has evidence of its own; and of those only the one with
//! the greatest log, so that it wins and nobody stands beside it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::NodeId;

/// What one voter says of the accused master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opinion {
    pub(crate) node: NodeId,
    /// By its own evidence. One that may not vote has none.
    pub(crate) is_dead: bool,
    /// Term and index of its last log entry.
    pub(crate) last: Option<(u64, u64)>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not enough evidence; ask again.
    Wait,
    /// This node stands for election.
    Stand,
    /// That node stands.
    Yield(NodeId),
}

/// Judges. `voters` are the sets of which each needs a majority: two while the membership changes.
pub(crate) fn judge(me: &Opinion, others: &[Opinion], voters: &[BTreeSet<NodeId>]) -> Verdict {
    let accusers = || others.iter().chain([me]).filter(|opinion| opinion.is_dead);
    let has_majority = |set: &BTreeSet<NodeId>| {
        let accusing: BTreeSet<NodeId> = accusers().map(|opinion| opinion.node).collect();
        accusing.intersection(set).count() > set.len() / 2
    };
    if !me.is_dead || voters.is_empty() || !voters.iter().all(has_majority) {
        return Verdict::Wait;
    }
    match accusers().max_by_key(|opinion| (opinion.last, opinion.node)) {
        Some(greatest) if greatest.node != me.node => Verdict::Yield(greatest.node),
        _ => Verdict::Stand,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(node: NodeId, last: u64) -> Opinion {
        Opinion {
            node,
            is_dead: true,
            last: Some((3, last)),
        }
    }

    fn alive(node: NodeId, last: u64) -> Opinion {
        Opinion {
            is_dead: false,
            ..dead(node, last)
        }
    }

    fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
        nodes.iter().copied().collect()
    }

    #[test]
    fn a_majority_needs_evidence_of_its_own() {
        let three = [set(&[1, 2, 3])];
        assert_eq!(judge(&dead(2, 9), &[alive(3, 9)], &three), Verdict::Wait);
        assert_eq!(judge(&dead(2, 9), &[], &three), Verdict::Wait);
        assert_eq!(judge(&alive(2, 9), &[dead(3, 8)], &three), Verdict::Wait);
        assert_eq!(judge(&dead(3, 9), &[dead(2, 9)], &three), Verdict::Stand);
        let five = [set(&[1, 2, 3, 4, 5])];
        assert_eq!(judge(&dead(5, 9), &[dead(2, 9), alive(3, 9)], &five), Verdict::Wait);
        assert_eq!(judge(&dead(5, 9), &[dead(2, 9), dead(3, 9)], &five), Verdict::Stand);
        assert_eq!(
            judge(&dead(5, 9), &[dead(2, 9), dead(2, 9)], &five),
            Verdict::Wait,
            "one is one"
        );
    }

    #[test]
    fn exactly_one_of_those_with_evidence_stands() {
        let three = [set(&[1, 2, 3])];
        for (second, third, expected) in [(9, 9, 3), (10, 9, 2), (9, 10, 3)] {
            let (second, third) = (dead(2, second), dead(3, third));
            let stands: Vec<NodeId> = [(&second, &third), (&third, &second)]
                .into_iter()
                .filter(|(me, other)| judge(me, &[(*other).clone()], &three) == Verdict::Stand)
                .map(|(me, _)| me.node)
                .collect();
            assert_eq!(stands, [expected]);
        }
        let later_term = Opinion {
            last: Some((4, 1)),
            ..dead(2, 0)
        };
        assert_eq!(judge(&dead(3, 99), &[later_term], &three), Verdict::Yield(2));
        // A longer log without evidence holds nobody up: its vote is not needed.
        let five = [set(&[1, 2, 3, 4, 5])];
        let others = [dead(2, 9), dead(3, 9), alive(4, 99)];
        assert_eq!(judge(&dead(5, 9), &others, &five), Verdict::Stand);
    }

    #[test]
    fn both_sets_of_a_changing_membership_need_a_majority() {
        let joint = [set(&[1, 2, 3]), set(&[3, 4, 5])];
        assert_eq!(judge(&dead(3, 9), &[dead(2, 9)], &joint), Verdict::Wait);
        assert_eq!(judge(&dead(4, 9), &[dead(2, 9), dead(3, 9)], &joint), Verdict::Stand);
    }

    #[test]
    fn two_slaves_without_their_master_are_a_majority_of_three_only() {
        assert_eq!(judge(&dead(2, 9), &[], &[set(&[1, 2])]), Verdict::Wait);
        assert_eq!(judge(&dead(2, 9), &[], &[]), Verdict::Wait);
    }
}
