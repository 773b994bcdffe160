//! Which numbers of one producer have come: the highest one, and the gaps below it.

/// Gaps remembered for one producer at most; a message that would open one more is refused, because to guess about it
/// later would lose or double another.
pub(crate) const GAPS_MAX: usize = 1024;

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// New, and remembered now.
    New,
    /// That of a resend.
    Seen,
    /// New, and more than can be remembered.
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
        }
    }

    pub(super) fn admit(&mut self, sequence: u64) -> Admission {
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

    /// True for a number that has come.
    pub(super) fn has(&self, sequence: u64) -> bool {
        let at = self.gaps.partition_point(|&(_, last)| last < sequence);
        let in_a_gap = self.gaps.get(at).is_some_and(|&(first, _)| first <= sequence);
        sequence <= self.highest && !in_a_gap
    }

    /// All of these have come; the first one is noted already. Where a gap cannot be cut in two, because there are too
    /// many, nothing is noted: that at worst doubles a message, a gap left out would lose one.
    pub(super) fn pass(&mut self, first: u64, last: u64) {
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

    /// Memory of gaps that are no more; else who opens and fills many would keep memory that no account shows.
    fn give_back(&mut self) {
        if self.gaps.capacity() > 2 * self.gaps.len() + 4 {
            self.gaps.shrink_to_fit();
        }
    }
}
