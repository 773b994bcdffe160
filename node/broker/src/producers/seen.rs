//! Which numbers of one producer have come: the highest one, the gaps below it, and what was sent under the latest.

use super::recent::{DIGESTS_MIN, Recent, VOID};

/// Gaps remembered for one producer at most. Beyond that the lowest one is forgotten: who still wants to use a number in it
/// is refused, since nobody could tell that from a resend.
pub(crate) const GAPS_MAX: usize = 1024;

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// New.
    New,
    /// That of a resend.
    Seen,
    /// That of another message: destination or content differ.
    Other,
    /// Used or left out so long ago that nobody can tell.
    TooOld,
    /// New, and more than could be remembered: the rule of the first version, whose commands knew no digest.
    TooManyGaps,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// The highest number so far.
    pub(crate) highest: u64,
    /// The log entry that brought the latest message: the state's own measure of time.
    pub(crate) index: u64,
    /// Numbers below `highest` that have not come: (first, last), increasing and apart.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// What the latest ones were.
    pub(crate) recent: Recent,
}

impl Seen {
    /// Whatever number is the first one, those below it may still come.
    pub(super) fn first(sequence: u64, index: u64) -> Self {
        let gaps = if sequence == 0 {
            Vec::new()
        } else {
            vec![(0, sequence - 1)]
        };
        Self {
            highest: sequence,
            index,
            gaps,
            recent: Recent::default(),
        }
    }

    /// What a message of this number and digest would be.
    pub(super) fn look(&self, sequence: u64, digest: u64) -> Admission {
        if !self.has(sequence) {
            return Admission::New;
        }
        match self.recent.get(sequence) {
            Some(VOID) => Admission::New,
            Some(known) if known == digest => Admission::Seen,
            Some(_) => Admission::Other,
            None => Admission::TooOld,
        }
    }

    /// A message of this number has come.
    pub(super) fn note(&mut self, sequence: u64, digest: u64) {
        if self.highest.checked_add(1) == Some(sequence) {
            self.highest = sequence;
        } else {
            self.come(sequence, sequence);
        }
        self.recent.put(sequence, digest);
    }

    /// Messages of these numbers have come, or will not.
    pub(super) fn come(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        if first > self.highest {
            if first - self.highest > 1 {
                self.gaps.push((self.highest + 1, first - 1));
            }
        } else {
            self.gaps = self.gaps_without(first, last);
        }
        self.highest = self.highest.max(last);
        let beyond = self.gaps.len().saturating_sub(GAPS_MAX);
        self.gaps.drain(..beyond);
        self.give_back();
    }

    /// These numbers will not come, as far as their producer knows now. Those that have come stay as they are. Of very many
    /// the lower ones cannot be used any more.
    pub(super) fn skip(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let latest = first.max(last.saturating_sub(DIGESTS_MIN as u64 - 1));
        let void: Vec<u64> = (latest..=last).filter(|&number| !self.has(number)).collect();
        self.come(first, last);
        for number in void {
            self.recent.put(number, VOID);
        }
    }

    /// True for a number that has come, or will not.
    pub(super) fn has(&self, sequence: u64) -> bool {
        if sequence > self.highest {
            return false;
        }
        let at = self.gaps.partition_point(|&(_, last)| last < sequence);
        self.gaps.get(at).is_none_or(|&(first, _)| first > sequence)
    }

    // The rules of the first version, for what it left in the log: what it refused stays refused.

    /// [`Seen::look`] and [`Seen::note`] at once, without a digest.
    pub(super) fn admit_undigested(&mut self, sequence: u64) -> Admission {
        if sequence <= self.highest {
            return self.fill(sequence);
        }
        if sequence - self.highest > 1 {
            if self.gaps.len() >= GAPS_MAX {
                return Admission::TooManyGaps;
            }
            self.gaps.push((self.highest + 1, sequence - 1));
        }
        self.highest = sequence;
        Admission::New
    }

    /// All of these have come; the first one is noted already. Where a gap cannot be cut in two, because there are too
    /// many, nothing is noted.
    pub(super) fn pass_undigested(&mut self, first: u64, last: u64) {
        let gaps = self.gaps_without(first, last);
        if gaps.len() <= GAPS_MAX {
            self.gaps = gaps;
            self.highest = self.highest.max(last);
            self.give_back();
        }
    }

    /// Takes the number out of its gap.
    fn fill(&mut self, sequence: u64) -> Admission {
        let at = self.gaps.partition_point(|&(_, last)| last < sequence);
        let Some(&(first, last)) = self.gaps.get(at).filter(|&&(first, _)| first <= sequence) else {
            return Admission::Seen;
        };
        let below = (first < sequence).then(|| (first, sequence - 1));
        let above = (sequence < last).then(|| (sequence + 1, last));
        if below.is_some() && above.is_some() && self.gaps.len() >= GAPS_MAX {
            return Admission::TooManyGaps;
        }
        self.gaps.splice(at..=at, below.into_iter().chain(above));
        self.give_back();
        Admission::New
    }

    fn gaps_without(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::with_capacity(self.gaps.len() + 1);
        for &(from, to) in &self.gaps {
            if to < first || from > last {
                gaps.push((from, to));
                continue;
            }
            if from < first {
                gaps.push((from, first - 1));
            }
            if to > last {
                gaps.push((last + 1, to));
            }
        }
        gaps
    }

    /// Memory of gaps that are no more; else who opens and fills many would keep memory that no account shows.
    fn give_back(&mut self) {
        if self.gaps.capacity() > 2 * self.gaps.len() + 4 {
            self.gaps.shrink_to_fit();
        }
    }
}
