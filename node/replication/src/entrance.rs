//! Where commands wait for their batch, and whether they will be taken at all.
//!
//! Behind a command that was not taken nothing is taken that was submitted before its failure was known: a producer sends
//! again what failed, and that would come behind what it had sent later (P6).

use std::time::Instant;

use crate::event::Failure;
use crate::gathering::{Gathered, Gathering, Next};

/// See the module. Everything is decided under its owner's one lock, so that no batch slips through while it opens.
pub(crate) struct Entrance {
    pub(crate) gathering: Gathering,
    shut: Option<Failure>,
}

impl Entrance {
    pub(crate) fn new(gathering: Gathering) -> Entrance {
        Entrance { gathering, shut: None }
    }

    /// What to do now, and why it is to be refused instead.
    pub(crate) fn next(&mut self, is_master: bool, in_flight: usize, now: Instant) -> (Next, Option<Failure>) {
        let refused = self.shut.or((!is_master).then_some(Failure::NotMaster));
        let next = match refused {
            Some(_) => self.gathering.take().map_or(Next::Wait, Next::Go),
            None => self.gathering.next(in_flight, now),
        };
        (next, refused)
    }

    /// A batch was not taken, or nobody knows.
    pub(crate) fn shut(&mut self, failure: Failure) {
        self.shut = match (self.shut, failure) {
            (None | Some(Failure::Full), Failure::Full) => Some(Failure::Full),
            _ => Some(Failure::NotMaster),
        };
    }

    /// Takes commands again; what has come until now is not taken, for the same reason as what is before it.
    pub(crate) fn open(&mut self, after: After) -> Option<(Failure, Vec<Gathered>)> {
        let failure = match (after, self.shut) {
            // Nothing that an earlier loop has left is taken, even where it was not refused anything.
            (After::Anything, shut) => shut.unwrap_or(Failure::NotMaster),
            (After::Full, Some(Failure::Full)) => Failure::Full,
            (After::Full, _) => return None,
        };
        self.shut = None;
        Some((failure, std::iter::from_fn(|| self.gathering.take()).collect()))
    }
}

/// What is known by whoever opens an entrance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Everything: it begins anew.
    Anything,
    /// What a full disk has cost.
    Full,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    struct Case {
        entrance: Entrance,
        now: Instant,
    }

    impl Case {
        fn new() -> Case {
            Case {
                entrance: Entrance::new(Gathering::new(1 << 20, 4096, 2)),
                now: Instant::now(),
            }
        }

        fn push(&mut self, token: u64) {
            let command = Bytes::from_static(b"command");
            self.entrance.gathering.push(&command, token, true, self.now);
        }

        fn next(&mut self, is_master: bool) -> Option<(Vec<u64>, Option<Failure>)> {
            match self.entrance.next(is_master, 0, self.now) {
                (Next::Go(gathered), refused) => Some((gathered.tokens, refused)),
                _ => None,
            }
        }

        fn open(&mut self, after: After) -> Option<(Failure, Vec<u64>)> {
            let (failure, refused) = self.entrance.open(after)?;
            Some((
                failure,
                refused.into_iter().flat_map(|gathered| gathered.tokens).collect(),
            ))
        }
    }

    #[test]
    fn behind_what_found_the_disk_full_nothing_is_taken_until_that_is_known() {
        let mut case = Case::new();
        case.push(1);
        assert_eq!(case.next(true), Some((vec![1], None)));
        case.entrance.shut(Failure::Full);
        case.push(2);
        assert_eq!(
            case.next(true),
            Some((vec![2], Some(Failure::Full))),
            "though there may be room again"
        );
        case.push(3);
        assert_eq!(case.open(After::Full), Some((Failure::Full, vec![3])));
        case.push(4);
        assert_eq!(case.next(true), Some((vec![4], None)));
        assert_eq!(case.open(After::Full), None, "it is open");
    }

    #[test]
    fn only_a_new_beginning_opens_what_a_lost_mastership_has_shut() {
        for failure in [Failure::NotMaster, Failure::Unknown, Failure::Fatal] {
            let mut case = Case::new();
            case.entrance.shut(Failure::Full);
            case.entrance.shut(failure);
            case.entrance.shut(Failure::Full);
            assert_eq!(case.open(After::Full), None);
            case.push(1);
            assert_eq!(case.next(true), Some((vec![1], Some(Failure::NotMaster))));
            case.push(2);
            assert_eq!(case.open(After::Anything), Some((Failure::NotMaster, vec![2])));
            case.push(3);
            assert_eq!(case.next(true), Some((vec![3], None)));
        }
    }

    #[test]
    fn what_an_earlier_loop_has_left_is_not_taken() {
        let mut case = Case::new();
        case.push(1);
        assert_eq!(case.open(After::Anything), Some((Failure::NotMaster, vec![1])));
        case.push(2);
        assert_eq!(case.next(true), Some((vec![2], None)));
    }

    #[test]
    fn a_slave_takes_nothing() {
        let mut case = Case::new();
        case.push(1);
        assert_eq!(case.next(false), Some((vec![1], Some(Failure::NotMaster))));
        assert_eq!(case.next(false), None);
    }
}
