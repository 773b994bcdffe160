//! What a scenario is: a fault, on whom, for how long, and what must hold meanwhile.

use std::time::Duration;

use crate::fault::{Fault, Whom};

/// One row of a table in `scenarios/`. Beside what it asks for itself, every scenario must end with nothing lost,
/// doubled, invented, garbled or out of order, one master a term, no panic, and everybody well again.
pub struct Scenario {
    /// What it is called on the command line and in the figures; unique.
    pub name: &'static str,
    /// What breaks.
    pub fault: &'static dyn Fault,
    /// For whom.
    pub whom: Whom,
    /// How long it stays broken in the short run, in milliseconds.
    pub hold_ms: u64,
    /// What the struck group does meanwhile.
    pub meanwhile: Meanwhile,
    /// Where nodes may end by themselves: what they then must have said. They are started again, as by a supervisor of
    /// services.
    pub last_words: Option<&'static str>,
}

/// What clients of the struck group see while the fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// Sends go on after a pause of [`PAUSE_MAX`] at most: a majority is there.
    GoesOn,
    /// Sends may stop: no majority is there, or little gets through.
    MayStop,
}

/// Longest pause of sends where they must go on. The budget (DESIGN §5) is 1.5 s; this is a bound for an unoptimised
/// build on a loaded machine.
pub const PAUSE_MAX: Duration = Duration::from_secs(8);

impl Scenario {
    /// A fault under which sends go on and no node ends by itself.
    pub const fn new(name: &'static str, fault: &'static dyn Fault, whom: Whom, hold_ms: u64) -> Self {
        Self {
            name,
            fault,
            whom,
            hold_ms,
            meanwhile: Meanwhile::GoesOn,
            last_words: None,
        }
    }

    /// Sends may stop while it lasts.
    pub const fn may_stop(mut self) -> Self {
        self.meanwhile = Meanwhile::MayStop;
        self
    }

    /// Struck nodes may end by themselves, if their logs then say this.
    pub const fn may_end(mut self, last_words: &'static str) -> Self {
        self.last_words = Some(last_words);
        self
    }

    /// How long it lasts in the short run.
    pub fn hold(&self) -> Duration {
        Duration::from_millis(self.hold_ms)
    }
}
