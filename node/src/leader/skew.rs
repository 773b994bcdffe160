//! Clocks that are wrong are told of once, and again only when that has changed. Pure: what was measured is an argument.

use std::collections::BTreeMap;

/// Whose clock it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    /// The group's time, which follows its members' clocks.
    Group,
    /// The wall clock of a member.
    Member(u64),
    /// The time of another group.
    Other(u64),
}

/// What there is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It is wrong, or more so, or less.
    Wrong,
    /// It was, and is not any more.
    RightAgain,
}

/// What was told of which clock.
#[derive(Debug, Default)]
pub(super) struct SkewWatch {
    told_ms: BTreeMap<Whose, i64>,
}

/// A clock is wrong from here on.
pub(super) const WRONG_MS: i64 = 1_000;
/// It is right again from here on, so that one at the edge is not told of all the time.
const RIGHT_MS: i64 = 700;

impl SkewWatch {
    /// Takes in a measurement.
    pub(super) fn look(&mut self, whose: Whose, skew_ms: i64) -> Option<News> {
        let size = skew_ms.saturating_abs();
        match self.told_ms.get(&whose) {
            Some(_) if size < RIGHT_MS => {
                self.told_ms.remove(&whose);
                Some(News::RightAgain)
            }
            // A difference that is being slewed changes slowly.
            Some(&told) if skew_ms.saturating_sub(told).saturating_abs() < WRONG_MS.max(told.saturating_abs() / 2) => {
                None
            }
            None if size < WRONG_MS => None,
            _ => {
                self.told_ms.insert(whose, skew_ms);
                Some(News::Wrong)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let mut watch = SkewWatch::default();
        let mut told = |skew_ms| watch.look(Whose::Member(2), skew_ms);
        assert_eq!(told(900), None);
        assert_eq!(told(-1_000), Some(News::Wrong));
        assert_eq!([told(-1_100), told(-800), told(-1_000)], [None; 3], "at the edge");
        assert_eq!(told(-600), Some(News::RightAgain));
        assert_eq!(told(-600), None);
        assert_eq!(told(7_200_000), Some(News::Wrong));
        let slewed = (1..3_000)
            .map(|tick| told(7_200_000 - tick * 1_000))
            .all(|news| news.is_none());
        assert!(slewed);
        assert_eq!(told(3_600_000), Some(News::Wrong), "half of it is gone");
        assert_eq!(told(-3_600_000), Some(News::Wrong));
        assert_eq!(watch.look(Whose::Other(2), 0), None, "another clock");
    }
}
