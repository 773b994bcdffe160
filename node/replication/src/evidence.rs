//! What this node has seen itself that speaks for the death of a master: all its connections ended, and its port
//! refuses new ones. Pure: instants are arguments, in microseconds of the caller's clock.
//!
//! The process that holds a port and connections is gone when both are; a process that is merely slow or cut off keeps
//! them. Whatever is heard of a master of that term or a later one makes the evidence void.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::config::NodeId;

/// The master of one term: what evidence is for or against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mastership {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
}

/// One node's evidence.
pub(crate) struct Evidence {
    /// A connection over which nothing came for so long neither speaks for the master nor, by its end, against it. It
    /// may be the forgotten half of one that a network has cut.
    fresh_micros: u64,
    /// How long a refusal counts.
    lasts_micros: u64,
    /// Connections over which appends have come.
    lines: BTreeMap<LineId, Arc<Line>>,
    next_line: LineId,
    suspicion: Option<Suspicion>,
}

/// Names a connection for as long as it lasts.
pub(crate) type LineId = u64;

/// A connection over which a master of one term is heard.
pub(crate) struct Line {
    pub(crate) master: Mastership,
    heard_micros: AtomicU64,
}

struct Suspicion {
    master: Mastership,
    since_micros: u64,
    refused_micros: Option<u64>,
}

impl Line {
    /// Another append came.
    pub(crate) fn heard(&self, now_micros: u64) {
        self.heard_micros.store(now_micros, Ordering::Relaxed);
    }

    fn heard_since(&self, micros: u64) -> bool {
        self.heard_micros.load(Ordering::Relaxed) >= micros
    }
}

impl Evidence {
    pub(crate) fn new(fresh_micros: u64, lasts_micros: u64) -> Evidence {
        Evidence {
            fresh_micros,
            lasts_micros,
            lines: BTreeMap::new(),
            next_line: 0,
            suspicion: None,
        }
    }

    /// The first append of that master has come over a connection.
    pub(crate) fn begin(&mut self, master: Mastership, now_micros: u64) -> (LineId, Arc<Line>) {
        self.suspicion.take_if(|suspicion| master.term >= suspicion.master.term);
        let line = Arc::new(Line {
            master,
            heard_micros: AtomicU64::new(now_micros),
        });
        self.next_line += 1;
        self.lines.insert(self.next_line, line.clone());
        (self.next_line, line)
    }

    /// A connection has ended. True if it was the last that its master was heard over lately: then it is time to
    /// look whether the master still listens.
    pub(crate) fn end(&mut self, line: LineId, now_micros: u64) -> bool {
        let Some(ended) = self.lines.remove(&line) else {
            return false;
        };
        let lately = now_micros.saturating_sub(self.fresh_micros);
        let speaks = |other: &Arc<Line>| other.master.term >= ended.master.term && other.heard_since(lately);
        let is_last = ended.heard_since(lately) && !self.lines.values().any(speaks);
        if is_last {
            self.suspicion = Some(Suspicion {
                master: ended.master,
                since_micros: now_micros,
                refused_micros: None,
            });
        }
        is_last
    }

    /// A later master is heard over a connection that was an earlier one's.
    pub(crate) fn forget(&mut self, line: LineId) {
        self.lines.remove(&line);
    }

    /// Whose connections have all ended, if nothing was heard since.
    pub(crate) fn suspect(&self) -> Option<Mastership> {
        self.standing().map(|suspicion| suspicion.master)
    }

    /// That master's port refuses connections.
    pub(crate) fn refused(&mut self, master: Mastership, now_micros: u64) {
        if self.suspect() == Some(master)
            && let Some(suspicion) = &mut self.suspicion
        {
            suspicion.refused_micros = Some(now_micros);
        }
    }

    /// Who is dead by all that this node has seen.
    pub(crate) fn against(&self, now_micros: u64) -> Option<Mastership> {
        let suspicion = self.standing()?;
        let refused = suspicion.refused_micros?;
        (now_micros <= refused.saturating_add(self.lasts_micros)).then_some(suspicion.master)
    }

    fn standing(&self) -> Option<&Suspicion> {
        let suspicion = self.suspicion.as_ref()?;
        let contradicts =
            |line: &Arc<Line>| line.master.term >= suspicion.master.term && line.heard_since(suspicion.since_micros);
        (!self.lines.values().any(contradicts)).then_some(suspicion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASTER: Mastership = Mastership { term: 4, node: 1 };
    const NEXT: Mastership = Mastership { term: 5, node: 2 };

    fn evidence() -> Evidence {
        Evidence::new(400, 800)
    }

    #[test]
    fn an_ended_connection_is_a_suspicion_and_a_refusal_makes_it_evidence() {
        let mut seen = evidence();
        let (line, _) = seen.begin(MASTER, 1_000);
        assert_eq!(seen.suspect(), None);
        assert!(seen.end(line, 1_050));
        assert_eq!((seen.suspect(), seen.against(1_050)), (Some(MASTER), None));
        seen.refused(MASTER, 1_060);
        assert_eq!(seen.against(1_060), Some(MASTER));
        assert_eq!(seen.against(1_861), None, "it does not last");
    }

    #[test]
    fn every_connection_that_was_lately_in_use_must_have_ended() {
        let mut seen = evidence();
        let (appends, _) = seen.begin(MASTER, 1_000);
        let (heartbeats, beat) = seen.begin(MASTER, 1_000);
        beat.heard(1_300);
        assert!(!seen.end(appends, 1_310), "heartbeats still come");
        assert_eq!(seen.suspect(), None);
        assert!(seen.end(heartbeats, 1_320));
        assert_eq!(seen.suspect(), Some(MASTER));
    }

    #[test]
    fn a_forgotten_connection_counts_neither_way() {
        let mut seen = evidence();
        let (forgotten, _) = seen.begin(MASTER, 1_000);
        let (_, beat) = seen.begin(MASTER, 1_000);
        beat.heard(5_000);
        assert!(!seen.end(forgotten, 5_010), "its end proves nothing");

        let mut seen = evidence();
        let (_forgotten, _) = seen.begin(MASTER, 1_000);
        let (heartbeats, beat) = seen.begin(MASTER, 1_000);
        beat.heard(5_000);
        assert!(seen.end(heartbeats, 5_010), "its silence hides nothing");
    }

    #[test]
    fn whatever_is_heard_of_the_master_voids_it() {
        for heard in [MASTER, NEXT] {
            let mut seen = evidence();
            let (line, _) = seen.begin(MASTER, 1_000);
            seen.end(line, 1_010);
            seen.refused(MASTER, 1_020);
            seen.begin(heard, 1_030);
            assert_eq!((seen.suspect(), seen.against(1_030)), (None, None), "{heard:?}");
        }
        // Over a connection that was thought forgotten, too.
        let mut seen = evidence();
        let (_, idle) = seen.begin(MASTER, 1_000);
        let (line, beat) = seen.begin(MASTER, 1_000);
        beat.heard(5_000);
        seen.end(line, 5_010);
        seen.refused(MASTER, 5_020);
        idle.heard(5_030);
        assert_eq!(seen.against(5_040), None);
    }

    #[test]
    fn an_earlier_master_is_not_heard_any_more() {
        let mut seen = evidence();
        let (old, _) = seen.begin(MASTER, 1_000);
        let (new, _) = seen.begin(NEXT, 1_010);
        assert!(!seen.end(old, 1_020), "there is a later master");
        assert_eq!(seen.suspect(), None);
        assert!(seen.end(new, 1_030));
        seen.begin(MASTER, 1_040);
        assert_eq!(
            seen.suspect(),
            Some(NEXT),
            "what an earlier master says changes nothing"
        );
        seen.refused(MASTER, 1_050);
        assert_eq!(seen.against(1_050), None, "the refusal was another's");
    }
}
