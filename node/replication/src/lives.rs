//! What members remember of each other, so that one whose data went back is recognised (docs/adr/0014). Pure.
//!
//! Each start of a node takes a number that is on its disk before it speaks; what lies between two starts is a *life*.
//! Of each other member a node keeps the life, and the furthest *point* that it is known to have reached: the term that it
//! voted in or followed, and in that term the last log entry that it acknowledged. A node whose disk kept its promises
//! never starts below either.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::NodeId;

/// How far a member has come. Of two points of one node the later one is the greater: its term never falls, and within a
/// term what it has acknowledged never goes away. (An entry of an earlier term may: a later master replaces it.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Of its vote.
    pub(crate) vote: u64,
    /// Term and index of the last log entry; of another member, one that it has acknowledged in that term.
    pub(crate) last: Option<(u64, u64)>,
}

/// What a member says of itself. Constant for a life, but for how it takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) node: NodeId,
    /// The number of this start.
    pub(crate) start: u64,
    /// Drawn at each start: two lives may come with one number, when a copy is put back.
    pub(crate) life: u64,
    /// The number under which the group took it in as one without data, 0 for never. What it promised before is void: the
    /// group had taken it out of its voters.
    pub(crate) anew: u64,
    /// Whether it votes and acknowledges.
    pub(crate) takes_part: bool,
    /// As it was on its disk at the start.
    pub(crate) found: Point,
}

/// What is known of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub(crate) start: u64,
    pub(crate) life: u64,
    pub(crate) anew: u64,
    pub(crate) reached: Point,
}

/// Of each member.
pub(crate) type Notes = BTreeMap<NodeId, Noted>;

/// How a node's data shows that it went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Another life had that number, or a higher one.
    Start { told: u64, known: u64 },
    /// It voted in, or followed the master of, a later term.
    Vote { told: u64, known: u64 },
    /// It has acknowledged more.
    Log { told: u64, known: u64 },
}

impl Noted {
    /// Whether a node that says so of itself has lost what it is known to have had.
    pub(crate) fn contradicts(&self, told: &Told) -> Option<Loss> {
        if told.life == self.life || told.anew > self.anew {
            return None;
        }
        let (found, reached) = (told.found, self.reached);
        if told.start <= self.start {
            return Some(Loss::Start {
                told: told.start,
                known: self.start,
            });
        }
        if found >= reached {
            return None;
        }
        let index = |point: Point| point.last.map_or(0, |(_, index)| index);
        Some(if found.vote < reached.vote {
            Loss::Vote {
                told: found.vote,
                known: reached.vote,
            }
        } else {
            Loss::Log {
                told: index(found),
                known: index(reached),
            }
        })
    }

    /// Whether it is that life that is known here.
    pub(crate) fn is_of(&self, told: &Told) -> bool {
        (self.life, self.start, self.anew) == (told.life, told.start, told.anew)
    }

    /// Notes a life. True where that must be on disk before it counts.
    pub(crate) fn learn(&mut self, told: &Told) -> bool {
        if self.is_of(told) {
            return false;
        }
        // Not the end of its log: the next master may replace what nobody has committed.
        let found = Point {
            vote: told.found.vote,
            last: None,
        };
        let reached = if told.anew > self.anew {
            Point::default()
        } else {
            self.reached.max(found)
        };
        *self = Noted {
            start: told.start,
            life: told.life,
            anew: told.anew,
            reached,
        };
        true
    }

    /// Takes over what another member knows. True where that must be on disk before it counts.
    pub(crate) fn merge(&mut self, other: &Noted) -> bool {
        if other.anew < self.anew {
            return false;
        }
        if other.anew > self.anew {
            *self = *other;
            return true;
        }
        self.reached = self.reached.max(other.reached);
        if other.start <= self.start {
            return false;
        }
        (self.start, self.life) = (other.start, other.life);
        true
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Start { told, known } => {
                write!(f, "this is its start number {told}, but it had number {known} before")
            }
            Loss::Vote { told, known } => write!(f, "its vote is of term {told}, but it took part in term {known}"),
            Loss::Log { told, known } => write!(f, "its log ends at {told}, but it had acknowledged {known}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(vote: u64, last: (u64, u64)) -> Point {
        Point { vote, last: Some(last) }
    }

    fn told(start: u64, life: u64, found: Point) -> Told {
        Told {
            node: 3,
            start,
            life,
            anew: 0,
            takes_part: true,
            found,
        }
    }

    fn noted(first: &Told) -> Noted {
        let mut noted = Noted::default();
        assert!(noted.learn(first));
        noted
    }

    #[test]
    fn a_life_that_goes_on_or_begins_anew_in_good_order_is_no_loss() {
        let first = told(4, 40, point(7, (7, 100)));
        let mut noted = noted(&first);
        assert_eq!(noted.contradicts(&first), None);
        assert!(!noted.learn(&first), "nothing new");
        noted.reached = noted.reached.max(point(7, (7, 150)));
        assert_eq!(noted.contradicts(&first), None, "it said so at its start");
        let second = told(5, 50, point(7, (7, 150)));
        assert_eq!(noted.contradicts(&second), None);
        assert!(noted.learn(&second));
        assert_eq!(noted.reached, point(7, (7, 150)), "a restart takes nothing back");
    }

    #[test]
    fn a_copy_shows_by_its_number_its_vote_or_its_log() {
        let mut noted = noted(&told(5, 50, point(7, (7, 100))));
        noted.reached = point(9, (8, 150));
        let loss = |start, found| noted.contradicts(&told(start, 60, found));
        assert_eq!(loss(5, point(9, (8, 150))), Some(Loss::Start { told: 5, known: 5 }));
        assert_eq!(loss(4, point(9, (8, 150))), Some(Loss::Start { told: 4, known: 5 }));
        assert_eq!(loss(6, point(8, (8, 150))), Some(Loss::Vote { told: 8, known: 9 }));
        assert_eq!(loss(6, point(9, (8, 149))), Some(Loss::Log { told: 149, known: 150 }));
        assert_eq!(loss(6, point(9, (8, 150))), None);
        assert_eq!(
            loss(6, point(10, (7, 90))),
            None,
            "a later master has replaced what nobody had committed"
        );
    }

    #[test]
    fn one_that_was_taken_in_anew_owes_nothing_of_before() {
        let mut here = noted(&told(5, 50, point(7, (7, 100))));
        here.reached = point(9, (8, 150));
        let anew = Told {
            anew: 6,
            ..told(6, 60, Point::default())
        };
        assert_eq!(here.contradicts(&anew), None);
        assert!(here.learn(&anew));
        assert_eq!(here.reached, Point::default());
        let before = here.contradicts(&told(7, 70, point(20, (20, 999))));
        assert_eq!(before, None, "higher in all");
        let mut late = noted(&told(5, 50, point(9, (8, 150))));
        assert!(late.merge(&here));
        assert_eq!(late, here, "who has not heard of it takes it over as a whole");
        assert!(!late.merge(&Noted {
            start: 9,
            anew: 0,
            ..here
        }));
        assert_eq!(late, here, "and forgets it for nobody who has not");
    }

    #[test]
    fn what_others_know_adds_up() {
        let mut here = noted(&told(5, 50, point(7, (7, 100))));
        let there = Noted {
            start: 6,
            life: 60,
            anew: 0,
            reached: point(7, (7, 120)),
        };
        assert!(here.merge(&there));
        assert_eq!(here, there);
        let mut further = there;
        further.reached = point(7, (7, 130));
        assert!(!here.merge(&further), "a point may reach the disk later");
        assert_eq!(here.reached, further.reached);
        assert!(
            !here.merge(&Noted { life: 61, ..there }),
            "the first of two lives counts"
        );
        assert_eq!(here.life, 60);
    }
}
