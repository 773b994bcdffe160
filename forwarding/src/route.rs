//! Path vector: which rows of demand may be used and passed on, and which of several ways to a group is the best.

use ferrymq_broker::GroupId;

use crate::row::Row;

/// True where a row heard from `teller` may be used by `us`: the path begins with the teller, visits no group twice
/// and has not come from us.
pub(crate) fn usable(row: &Row, teller: GroupId, us: GroupId, hops_max: usize) -> bool {
    let path = &row.path;
    path.first() == Some(&teller)
        && path.len() <= hops_max
        && !path.contains(&us)
        && path.iter().enumerate().all(|(at, group)| !path[..at].contains(group))
}

/// The order of ways to one origin, the best first: one that is linked now, the shortest, the lowest round trip, and
/// to be the same everywhere and always, the smallest next hop.
pub(crate) fn rank(row: &Row, rtt_us: u32, next_hop: GroupId) -> (bool, usize, u32, GroupId) {
    (!row.linked, row.path.len(), rtt_us, next_hop)
}

/// The path under which `us` passes a row on; `None` where it is long enough. Not to those on it (split horizon).
pub(crate) fn passed_on(row: &Row, us: GroupId, hops_max: usize) -> Option<Vec<GroupId>> {
    if row.path.len() >= hops_max {
        return None;
    }
    let mut path = Vec::with_capacity(row.path.len() + 1);
    path.push(us);
    path.extend_from_slice(&row.path);
    Some(path)
}

/// Round trips wander; ways must not change with each measurement. The figure used for choosing moves only when the
/// measured one differs by more than a quarter and a millisecond.
pub(crate) fn settled_rtt(used_us: u32, measured_us: u32) -> u32 {
    let apart = used_us.abs_diff(measured_us);
    if used_us == 0 || (apart > 1_000 && apart > used_us / 4) {
        measured_us
    } else {
        used_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &[GroupId]) -> Row {
        Row {
            path: path.to_vec(),
            ..Row::presence(*path.last().unwrap(), "x")
        }
    }

    #[test]
    fn paths_with_loops_are_not_used() {
        assert!(usable(&row(&[2, 3]), 2, 1, 16));
        assert!(!usable(&row(&[2, 3]), 4, 1, 16), "told by another");
        assert!(!usable(&row(&[2, 1, 3]), 2, 1, 16), "through us");
        assert!(!usable(&row(&[2, 3, 2, 4]), 2, 1, 16), "a loop");
        assert!(!usable(&row(&[2, 3, 4]), 2, 1, 2), "too long");
    }

    #[test]
    fn rows_are_passed_on_with_us_in_front_but_not_for_ever() {
        assert_eq!(passed_on(&row(&[2, 3]), 1, 16), Some(vec![1, 2, 3]));
        assert_eq!(passed_on(&row(&[2, 3]), 1, 2), None);
    }

    #[test]
    fn the_way_does_not_follow_each_measurement() {
        assert_eq!(settled_rtt(0, 500), 500);
        assert_eq!(settled_rtt(500, 1_400), 500);
        assert_eq!(settled_rtt(10_000, 12_000), 10_000);
        assert_eq!(settled_rtt(10_000, 13_000), 13_000);
    }
}
