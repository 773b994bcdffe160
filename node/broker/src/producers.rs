//! The numbers that each producer's messages had, by which a resend is recognised (P5).
//!
//! A producer is a user and the id that it gave itself; two users never meet. Numbers mostly come one after the other, so
//! the highest one and the gaps below it say which have come. Of the latest there is a digest of what was sent under
//! them: a number is that of a resend only where the digest agrees, and where there is none any more nobody can tell,
//! so that such a message is neither confirmed nor stored a second time, but refused. Gaps matter: a message that was refused
//! (a full disk) or waits in a transaction comes after its successors, and to take it for a resend would lose it.
//!
//! What is remembered is bounded in number and in bytes (P8). Beyond that first the digests and then the numbers of the
//! longest silent are forgotten. Which ones follows from what is remembered alone, so that a replica that has read it from a
//! snapshot forgets the same ones as one that has seen it grow: the bytes are reckoned from the content and are not part of
//! the snapshot, and all whose latest message came with the same log entry are forgotten together, since nothing orders
//! them.

use std::{collections::HashMap, sync::Arc};

use ferrymq_message::Producer;
use foldhash::fast::FixedState;

mod key;
mod line;
mod recent;
mod seen;

pub use key::{Key, Named, Who};
use line::{At, Line};
pub use recent::DIGESTS_MAX;
use recent::DIGESTS_MIN;
pub(crate) use recent::Recent;
pub use seen::Admission;
pub(crate) use seen::{GAPS_MAX, Seen};

/// Producers remembered at most.
pub const PRODUCERS_MAX: usize = 100_000;
/// Memory for them at most, in bytes: enough for all of them with the longest ids
/// ([`ferrymq_message::Producer::ID_BYTES_MAX`]) and one gap each.
pub const PRODUCERS_BYTES_MAX: usize = 64 << 20;

/// What a producer takes beside its name, its gaps and its digests: its place in the line, in the map, and what they leave
/// unused.
const PRODUCER_BYTES: usize = 288;
/// What a gap takes; a vector may have room for as many again.
const GAP_BYTES: usize = 32;

/// A number that a user's producer gave to a message, and what it was given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// As which user the producer came in.
    pub user: Arc<str>,
    /// The producer's own name, and the number.
    pub producer: Producer,
    /// Of what the client wrote: see [`ferrymq_message::Digest`].
    pub digest: u64,
}

impl Numbered {
    /// Whose number it is.
    pub fn who(&self) -> Who<'_> {
        Who {
            user: Some(&self.user),
            id: &self.producer.id,
        }
    }
}

/// Each producer's numbers.
#[derive(Debug, Clone)]
pub struct Producers {
    by_key: HashMap<Key, At, FixedState>,
    line: Line,
    /// Up to here, from the first of the line, nobody has a digest; a mere shortcut.
    bare: Option<At>,
    /// Producers of whom no user is known.
    of_nobody: usize,
    /// What all of them take.
    bytes: usize,
    bounds: Bounds,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    producers: usize,
    bytes: usize,
}

impl Default for Producers {
    fn default() -> Self {
        Self::within(Bounds {
            producers: PRODUCERS_MAX,
            bytes: PRODUCERS_BYTES_MAX,
        })
    }
}

/// Of the same content; where in memory it lies does not matter.
impl PartialEq for Producers {
    fn eq(&self, other: &Self) -> bool {
        let mut all = self.line.iter();
        let same = |(key, seen): (&Key, &Seen)| other.find(key.who()) == Some(seen);
        self.len() == other.len() && self.bytes == other.bytes && all.all(same)
    }
}

impl Producers {
    fn within(bounds: Bounds) -> Self {
        Self {
            by_key: HashMap::default(),
            line: Line::default(),
            bare: None,
            of_nobody: 0,
            bytes: 0,
            bounds,
        }
    }

    /// What a snapshot holds.
    ///
    /// # Errors
    /// The producer that is there twice.
    pub(crate) fn restore(all: Vec<(Key, Seen)>) -> Result<Self, Key> {
        Self::default().filled(all)
    }

    fn filled(mut self, mut all: Vec<(Key, Seen)>) -> Result<Self, Key> {
        all.sort_by_key(|(_, seen)| seen.index);
        for (key, seen) in all {
            if self.by_key.contains_key(&key) {
                return Err(key);
            }
            self.push(key, seen);
        }
        Ok(self)
    }

    /// What a message of this number and digest would be now.
    pub fn look(&self, who: Who<'_>, sequence: u64, digest: u64) -> Admission {
        self.look_at(self.at(who), who, sequence, digest)
    }

    /// What it is; a new one is remembered.
    pub(crate) fn admit(&mut self, who: Who<'_>, sequence: u64, digest: u64, index: u64) -> Admission {
        let at = self.at(who);
        let admission = self.look_at(at, who, sequence, digest);
        if admission == Admission::New {
            self.note_at(at, who, sequence, digest, index);
        }
        admission
    }

    /// Remembers a message that was found to be new.
    pub(crate) fn note(&mut self, who: Who<'_>, sequence: u64, digest: u64, index: u64) {
        self.note_at(self.at(who), who, sequence, digest, index);
    }

    /// Messages of these numbers have come, and did not take the log. Of the latest the digests are known, by number.
    pub(crate) fn come(&mut self, who: Who<'_>, stretches: &[(u64, u64)], digests: &[(u64, u64)], index: u64) {
        let Some(lowest) = stretches.iter().map(|&(first, _)| first).min() else {
            return;
        };
        let at = match self.at(who) {
            Some(at) => at,
            None => self.push(Key::new(who), Seen::first(lowest, self.no_earlier(index))),
        };
        self.change(at, index, |seen| {
            for &(first, last) in stretches {
                seen.come(first, last);
            }
            for &(number, digest) in digests {
                if seen.has(number) {
                    seen.recent.put(number, digest);
                }
            }
        });
    }

    /// Messages of these numbers will not come: their transaction was aborted, or they were refused. Where nothing else is
    /// known of the producer there is nothing to remember.
    pub(crate) fn skip(&mut self, who: Who<'_>, stretches: &[(u64, u64)], index: u64) {
        if let Some(at) = self.at(who) {
            self.change(at, index, |seen| {
                for &(first, last) in stretches {
                    seen.skip(first, last);
                }
            });
        }
    }

    /// [`Producers::admit`] of a message in the log's first form, which has neither user nor digest.
    pub(crate) fn admit_undigested(&mut self, id: &str, sequence: u64, index: u64) -> Admission {
        let who = Who { user: None, id };
        let Some(at) = self.at(who) else {
            let at = self.push(Key::new(who), Seen::first(sequence, self.no_earlier(index)));
            self.forget_the_longest_silent(at);
            return Admission::New;
        };
        let seen = self.line.seen_mut(at);
        let before = content_bytes(seen);
        let admission = seen.admit_undigested(sequence);
        if admission == Admission::New {
            self.changed(at, before, index);
        }
        admission
    }

    /// [`Producers::come`] in the log's first form.
    pub(crate) fn pass_undigested(&mut self, id: &str, first: u64, last: u64, index: u64) {
        if first > last || self.admit_undigested(id, first, index) == Admission::TooManyGaps {
            return;
        }
        if let Some(at) = self.at(Who { user: None, id }) {
            self.change(at, index, |seen| seen.pass_undigested(first, last));
        }
    }

    /// The highest number of a producer.
    pub fn highest(&self, who: Who<'_>) -> Option<u64> {
        self.find(who).map(|seen| seen.highest)
    }

    /// Producers remembered.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// True where none is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The memory that they take, in bytes, by a generous estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// In the order of their names.
    pub(crate) fn sorted(&self) -> Vec<(&Key, &Seen)> {
        let mut all: Vec<_> = self.line.iter().collect();
        all.sort_unstable_by(|a, b| a.0.cmp(b.0));
        all
    }

    fn at(&self, who: Who<'_>) -> Option<At> {
        self.by_key.get(&who as &dyn Named).copied()
    }

    fn find(&self, who: Who<'_>) -> Option<&Seen> {
        self.at(who).map(|at| self.line.seen(at))
    }

    fn look_at(&self, at: Option<At>, who: Who<'_>, sequence: u64, digest: u64) -> Admission {
        let admission = at.map_or(Admission::New, |at| self.line.seen(at).look(sequence, digest));
        // Somebody's number of before users were noted: it may have been this one's.
        if admission == Admission::New && self.of_nobody > 0 {
            let nobody = Who { user: None, id: who.id };
            if self.find(nobody).is_some_and(|seen| seen.has(sequence)) {
                return Admission::TooOld;
            }
        }
        admission
    }

    fn note_at(&mut self, at: Option<At>, who: Who<'_>, sequence: u64, digest: u64, index: u64) {
        let at = match at {
            Some(at) => at,
            None => self.push(Key::new(who), Seen::first(sequence, self.no_earlier(index))),
        };
        self.change(at, index, |seen| seen.note(sequence, digest));
    }

    fn push(&mut self, key: Key, seen: Seen) -> At {
        self.bytes += bytes(&key, &seen);
        self.of_nobody += usize::from(key.who().user.is_none());
        let at = self.line.push(key.clone(), seen);
        self.by_key.insert(key, at);
        at
    }

    fn change(&mut self, at: At, index: u64, change: impl FnOnce(&mut Seen)) {
        let seen = self.line.seen_mut(at);
        let before = content_bytes(seen);
        change(seen);
        self.changed(at, before, index);
    }

    /// A producer whose content took so much has another number now.
    fn changed(&mut self, at: At, bytes_before: usize, index: u64) {
        let index = self.no_earlier(index);
        let seen = self.line.seen_mut(at);
        seen.index = index;
        self.bytes = self.bytes + content_bytes(seen) - bytes_before;
        self.leaves(at);
        self.line.make_last(at);
        self.forget_digests(at);
        self.forget_the_longest_silent(at);
    }

    /// Entries come in the order of their numbers, which the line relies on; a snapshot that says otherwise is not
    /// worth more than that.
    fn no_earlier(&self, index: u64) -> u64 {
        self.line
            .last()
            .map_or(index, |last| index.max(self.line.seen(last).index))
    }

    /// Down to the bound, if digests are enough for that: first this one's own, of whom so many are kept, then all of those
    /// who have been silent for longest.
    fn forget_digests(&mut self, but: At) {
        if self.bytes > self.bounds.bytes {
            self.keep_digests(but, DIGESTS_MIN);
        }
        while self.bytes > self.bounds.bytes {
            let Some(first) = self.first_with_digests() else { return };
            let silent_since = self.line.seen(first).index;
            let mut next = Some(first);
            while let Some(at) = next.filter(|&at| self.line.seen(at).index == silent_since) {
                if at == but {
                    return;
                }
                self.keep_digests(at, 0);
                self.bare = Some(at);
                next = self.line.after(at);
            }
        }
    }

    fn keep_digests(&mut self, at: At, count: usize) {
        let seen = self.line.seen_mut(at);
        let before = content_bytes(seen);
        seen.recent.keep(count);
        self.bytes = self.bytes + content_bytes(seen) - before;
    }

    fn first_with_digests(&mut self) -> Option<At> {
        let after = |at: Option<At>| at.map_or(self.line.first(), |at| self.line.after(at));
        let mut next = after(self.bare);
        while let Some(at) = next {
            if !self.line.seen(at).recent.is_empty() {
                return Some(at);
            }
            self.bare = Some(at);
            next = self.line.after(at);
        }
        None
    }

    /// One leaves its place in the line, or has a digest now.
    fn leaves(&mut self, at: At) {
        if self.bare == Some(at) {
            self.bare = self.line.before(at);
        }
    }

    /// Down to the bounds; but for this one, which is the last of the line.
    fn forget_the_longest_silent(&mut self, but: At) {
        while self.len() > self.bounds.producers || self.bytes > self.bounds.bytes {
            let Some(silent_since) = self.line.first().map(|first| self.line.seen(first).index) else {
                return;
            };
            while let Some(first) = self.line.first()
                && self.line.seen(first).index == silent_since
            {
                if first == but {
                    return;
                }
                self.leaves(first);
                let (key, seen) = self.line.remove(first);
                self.bytes -= bytes(&key, &seen);
                self.of_nobody -= usize::from(key.who().user.is_none());
                self.by_key.remove(&key);
            }
        }
    }
}

fn bytes(key: &Key, seen: &Seen) -> usize {
    PRODUCER_BYTES + key.len() + content_bytes(seen)
}

fn content_bytes(seen: &Seen) -> usize {
    seen.gaps.len() * GAP_BYTES + seen.recent.bytes()
}

#[cfg(test)]
mod tests;
