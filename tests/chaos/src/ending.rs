//! Which nodes may, or must, end by themselves under a fault, and what shows that they ended for that reason.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use rustix::process::Signal;

/// What a fault makes of the processes that it strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// They live on.
    Never,
    /// They may end, if their logs then say this.
    MaySay(&'static str),
    /// They must end, and their logs must say this.
    MustSay(&'static str),
    /// The kernel may kill them.
    MayBeKilled,
    /// They are killed: a majority of the struck ones at least, as those that are left without one may rest.
    MustBeKilled,
}

impl Ending {
    /// Whether a node that has ended so, having logged this since the last look, has done as it may.
    pub fn explains(self, status: ExitStatus, said: &str) -> bool {
        match self {
            Self::Never => false,
            Self::MaySay(words) | Self::MustSay(words) => status.signal().is_none() && said.contains(words),
            Self::MayBeKilled | Self::MustBeKilled => status.signal() == Some(Signal::KILL.as_raw()),
        }
    }

    /// How many of so many struck nodes have to end.
    pub fn ends_min(self, struck: usize) -> usize {
        match self {
            Self::Never | Self::MaySay(_) | Self::MayBeKilled => 0,
            Self::MustSay(_) => struck,
            Self::MustBeKilled => struck / 2 + 1,
        }
    }

    /// Whether the logs of the struck nodes may tell of damage.
    pub fn tells_of_damage(self) -> bool {
        matches!(self, Self::MaySay(_) | Self::MustSay(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_needs_its_reason() {
        // As wait(2) has it: the low byte is the signal, the next one the code.
        let (killed, aborted, exit) = [9, 6, 1 << 8].map(ExitStatus::from_raw).into();
        assert!(Ending::MustSay("the disk").explains(exit, "failed: the disk is broken"));
        assert!(!Ending::MustSay("the disk").explains(exit, "failed"));
        assert!(!Ending::MustSay("the disk").explains(killed, "the disk"));
        assert!(Ending::MayBeKilled.explains(killed, ""));
        assert!(!Ending::MustBeKilled.explains(aborted, "") && !Ending::MustBeKilled.explains(exit, ""));
        assert!(!Ending::Never.explains(exit, "anything"));
    }

    #[test]
    fn those_that_must_end_are_counted() {
        assert_eq!(Ending::MustSay("").ends_min(1), 1);
        assert_eq!(
            (Ending::MustBeKilled.ends_min(1), Ending::MustBeKilled.ends_min(3)),
            (1, 2)
        );
        assert_eq!(Ending::MayBeKilled.ends_min(3), 0);
    }
}
