//! What a scenario is: a fault, on whom, for how long, and what must hold meanwhile.

use std::time::Duration;

use crate::{
    ending::Ending,
    fault::{Fault, Whom},
};

/// One row of a table in `scenarios/`. Beside what it asks for itself, every scenario must end with nothing lost,
/// doubled, invented, garbled or out of order, one master a term, no panic, and everybody well again.
pub struct Scenario {
    /// What it is called on the command line and in the figures; unique.
    pub name: &'static str,
    /// What breaks.
    pub fault: &'static dyn Fault,
    /// For whom.
    pub whom: Whom,
    /// How long it stays broken in the short run, in milliseconds; 0 where the strike itself takes as long as it takes.
    pub hold_ms: u64,
    /// Longest pause of sends in the struck group; none where they may stop: no majority is there, or little gets through.
    pub pause_ms_max: Option<u64>,
    /// Terms that may begin in the struck group; none where it does not matter.
    pub terms_max: Option<usize>,
    /// A struck master is replaced: otherwise it was not struck.
    pub replaces_master: bool,
    /// It needs everybody else, so that nothing is struck beside it.
    pub is_alone: bool,
    /// How struck nodes may end by themselves. They are started again, as by a supervisor of services.
    pub ending: Ending,
}

/// Sends where nobody who serves them is struck. The budgets (DESIGN §5) are shorter, and the figures tell what it was;
/// these are bounds that an unoptimised build keeps on a machine with much else to do. All of them are shorter than their
/// scenarios hold, so that a group which waits for the mending misses them.
pub const UNTOUCHED_MS: u64 = 2_500;
/// Sends where a process is gone and its connections say so (DESIGN: 1.5 s).
pub const GONE_MS: u64 = 4_000;
/// Sends where a node falls silent: clients of the suite need 1.5 s to notice and try an address for 2 s.
pub const SILENT_MS: u64 = 6_000;

impl Scenario {
    /// A fault under which sends go on after [`UNTOUCHED_MS`] and no node ends by itself.
    pub const fn new(name: &'static str, fault: &'static dyn Fault, whom: Whom, hold_ms: u64) -> Self {
        Self {
            name,
            fault,
            whom,
            hold_ms,
            pause_ms_max: Some(UNTOUCHED_MS),
            terms_max: None,
            replaces_master: false,
            is_alone: false,
            ending: Ending::Never,
        }
    }

    /// Sends go on after so long at most.
    pub const fn within(mut self, pause_ms_max: u64) -> Self {
        self.pause_ms_max = Some(pause_ms_max);
        self
    }

    /// Sends may stop while it lasts.
    pub const fn may_stop(mut self) -> Self {
        self.pause_ms_max = None;
        self
    }

    /// No more terms than so many begin in the struck group.
    pub const fn terms(mut self, terms_max: usize) -> Self {
        self.terms_max = Some(terms_max);
        self
    }

    /// Nobody who strikes a master in this way leaves it master.
    pub const fn replacing(mut self) -> Self {
        self.replaces_master = matches!(self.whom, Whom::Master(_) | Whom::Masters);
        self
    }

    /// Nothing else is struck meanwhile.
    pub const fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// How struck nodes end.
    pub const fn ends(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    /// How long it lasts in the short run.
    pub fn hold(&self) -> Duration {
        Duration::from_millis(self.hold_ms)
    }
}
