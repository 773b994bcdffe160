//! Who takes part all the same when so many members have lost data that nobody could ever be master. Pure.
//!
//! A node whose data went back waits for a master to take it in anew. Where an operator has put back copies on all
//! members, or a power loss has taken the last writes of a group that does not wait for its disks, there may be too few
//! others for a master. When *every* voter is there to be asked, there is nothing more to wait for: what they have is all
//! that is left. So just as many of those with data as a majority lacks take part, those with the greatest logs first.
//! All of them are needed then to elect a master, so that it has the greatest log of all.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::NodeId;

/// What a voter says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether it votes and acknowledges.
    pub(crate) takes_part: bool,
    /// Term and index of its last log entry; none without data.
    pub(crate) last: Option<(u64, u64)>,
}

/// Who takes part although its data went back; nobody where that would not help, or is not needed. `voters` are the sets
/// of which each needs a majority: two while the membership changes.
pub(crate) fn chosen(voters: &[BTreeSet<NodeId>], standing: &BTreeMap<NodeId, Standing>) -> BTreeSet<NodeId> {
    let is_complete = voters.iter().flatten().all(|voter| standing.contains_key(voter));
    let taking_part: BTreeSet<NodeId> = standing
        .iter()
        .filter(|(_, of)| of.takes_part)
        .map(|(node, _)| *node)
        .collect();
    let suffices = |chosen: &BTreeSet<NodeId>| {
        let counts = |node: &&NodeId| taking_part.contains(node) || chosen.contains(node);
        voters
            .iter()
            .all(|set| set.iter().filter(counts).count() > set.len() / 2)
    };
    let mut chosen = BTreeSet::new();
    if !is_complete || voters.is_empty() || suffices(&chosen) {
        return chosen;
    }
    let mut lost: Vec<_> = standing
        .iter()
        .filter(|(node, of)| !of.takes_part && of.last.is_some() && voters.iter().any(|set| set.contains(node)))
        .map(|(node, of)| (of.last, *node))
        .collect();
    lost.sort_unstable();
    while !suffices(&chosen) {
        match lost.pop() {
            Some((_, node)) => chosen.insert(node),
            None => return BTreeSet::new(),
        };
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
        nodes.iter().copied().collect()
    }

    fn whole(last: u64) -> Standing {
        Standing {
            takes_part: true,
            last: Some((3, last)),
        }
    }

    fn lost(last: u64) -> Standing {
        Standing {
            takes_part: false,
            ..whole(last)
        }
    }

    const EMPTY: Standing = Standing {
        takes_part: false,
        last: None,
    };

    #[test]
    fn nobody_as_long_as_a_majority_is_whole_or_somebody_is_missing() {
        let three = [set(&[1, 2, 3])];
        assert_eq!(
            chosen(&three, &[(1, whole(9)), (2, whole(9)), (3, lost(4))].into()),
            set(&[])
        );
        assert_eq!(chosen(&three, &[(1, whole(9)), (3, lost(4))].into()), set(&[]));
        assert_eq!(chosen(&[], &[(1, lost(9))].into()), set(&[]));
    }

    #[test]
    fn the_greatest_logs_make_up_for_what_a_majority_lacks_and_no_more() {
        let three = [set(&[1, 2, 3])];
        assert_eq!(
            chosen(&three, &[(1, whole(9)), (2, lost(5)), (3, lost(4))].into()),
            set(&[2])
        );
        assert_eq!(
            chosen(&three, &[(1, lost(3)), (2, lost(5)), (3, lost(4))].into()),
            set(&[2, 3])
        );
        assert_eq!(
            chosen(&three, &[(1, lost(5)), (2, lost(5)), (3, lost(5))].into()),
            set(&[2, 3])
        );
        let five = [set(&[1, 2, 3, 4, 5])];
        let of_five = [(1, whole(9)), (2, lost(5)), (3, lost(4)), (4, whole(1)), (5, lost(7))];
        assert_eq!(chosen(&five, &of_five.into()), set(&[5]));
    }

    #[test]
    fn one_without_any_data_is_never_chosen() {
        let three = [set(&[1, 2, 3])];
        assert_eq!(
            chosen(&three, &[(1, whole(9)), (2, EMPTY), (3, lost(4))].into()),
            set(&[3])
        );
        assert_eq!(
            chosen(&three, &[(1, whole(9)), (2, EMPTY), (3, EMPTY)].into()),
            set(&[])
        );
    }

    #[test]
    fn both_sets_of_a_changing_membership_get_a_majority() {
        let joint = [set(&[1, 2, 3]), set(&[3, 4, 5])];
        let standing = [(1, whole(9)), (2, lost(5)), (3, lost(4)), (4, lost(8)), (5, whole(2))];
        assert_eq!(chosen(&joint, &standing.into()), set(&[2, 4]));
    }
}
