//! Where senders and receivers write down what happened, and what it adds up to.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::{
    body::Stamp,
    clock::{Clock, Nanos, nanos},
    load::Load,
    pace::Schedule,
    report::{Histograms, Latency, Phase, Sample},
    seen::Seen,
};

/// The accounts of one load.
pub(crate) struct Board {
    pub(crate) clock: Clock,
    /// Which load this is; see [`Stamp`].
    pub(crate) run: u32,
    /// The measured time: `from..to`.
    pub(crate) from: Nanos,
    pub(crate) to: Nanos,
    topic: bool,
    producers: usize,
    destinations: usize,
    /// When messages are due; none where they follow each other as fast as they can.
    schedule: Option<Schedule>,
    pub(crate) senders: Vec<SenderAccount>,
    receivers: Vec<ReceiverAccount>,
    /// Queues: what has arrived of each sender, wherever.
    arrived: Vec<Seen>,
    /// Within the measured time.
    pub(crate) measured: Counts,
    pub(crate) measured_latency: Histograms,
    /// Since the last sample.
    recent: Counts,
    recent_latency: Histograms,
    recent_since: Nanos,
    pub(crate) duplicates: u64,
    pub(crate) out_of_order: u64,
    pub(crate) foreign: u64,
    /// Without producers: what has come of each run and sender that had sent it.
    backlog: BTreeMap<(u32, u32), Seen>,
    /// Everything received, of whatever load, each message once.
    pub(crate) received_ever: u64,
}

/// Senders of earlier runs whose messages are told apart; bodies of others may look like any number of them.
const BACKLOG_SENDERS_MAX: usize = 4096;
/// How far a message of an earlier run may be ahead of one that is missing. A larger number was not written by us.
const BACKLOG_AHEAD_MAX: u64 = 1 << 27;

/// Messages of some time.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) confirmed: u64,
    pub(crate) received: u64,
}

/// One sender's messages.
///
/// Invariant: `unconfirmed` are the messages from `sent - unconfirmed.len()` to `sent`: when each was due, or `None`
/// where it was confirmed before an earlier one.
#[derive(Debug, Default)]
pub(crate) struct SenderAccount {
    /// Messages sent; the number of the next one.
    pub(crate) sent: u64,
    unconfirmed: VecDeque<Option<Nanos>>,
    /// Messages without confirmation.
    pub(crate) in_flight: usize,
    /// The first number that was sent in the measured time.
    first_measured: Option<u64>,
    /// Messages that were due within the time and never sent.
    unsent: u64,
    /// Messages that it is to send at most.
    share: u64,
    /// It sends no more, and what it could not send is counted.
    is_closed: bool,
}

/// What one receiver got.
#[derive(Default)]
struct ReceiverAccount {
    /// For each sender of its destination, one more than the highest number.
    next: Vec<u64>,
    /// Topics: what has arrived here of each sender of its destination.
    arrived: Vec<Seen>,
}

impl Board {
    pub(crate) fn new(load: &Load, run: u32) -> Self {
        let from = nanos(load.warm_up);
        let receivers = (0..load.consumers).map(|_| ReceiverAccount {
            next: vec![0; load.producers.div_ceil(load.destinations)],
            arrived: Vec::new(),
        });
        let mut receivers: Vec<_> = receivers.collect();
        if load.topic {
            for receiver in &mut receivers {
                receiver.arrived.resize_with(receiver.next.len(), Seen::default);
            }
        }
        Self {
            clock: Clock::start(),
            run,
            from,
            to: from.saturating_add(nanos(load.duration)),
            topic: load.topic,
            producers: load.producers,
            destinations: load.destinations,
            schedule: Schedule::of(load),
            senders: (0..load.producers)
                .map(|sender| SenderAccount {
                    share: load.share_of_sender(sender),
                    ..SenderAccount::default()
                })
                .collect(),
            receivers,
            arrived: (0..load.producers).map(|_| Seen::default()).collect(),
            measured: Counts::default(),
            measured_latency: Histograms::new(),
            recent: Counts::default(),
            recent_latency: Histograms::new(),
            recent_since: 0,
            duplicates: 0,
            out_of_order: 0,
            foreign: 0,
            backlog: BTreeMap::new(),
            received_ever: 0,
        }
    }

    /// Everything is connected: the time begins now.
    pub(crate) fn begin(&mut self) {
        self.clock = Clock::start();
    }

    fn is_measured(&self, at: Nanos) -> bool {
        (self.from..self.to).contains(&at)
    }

    // ---- senders

    /// The sender hands over its next message.
    pub(crate) fn on_send(&mut self, sender: usize, due: Nanos, now: Nanos) {
        let measured = self.is_measured(now);
        let account = &mut self.senders[sender];
        if measured {
            self.measured.sent += 1;
            account.first_measured.get_or_insert(account.sent);
        }
        account.sent += 1;
        account.in_flight += 1;
        account.unconfirmed.push_back(Some(due));
        self.recent.sent += 1;
    }

    /// These messages of the sender are confirmed. Returns how many still are not.
    pub(crate) fn on_confirmed(&mut self, sender: usize, numbers: &[u64], now: Nanos) -> usize {
        let measured = self.is_measured(now);
        for number in numbers {
            let Some(due) = self.senders[sender].settle(*number) else {
                continue;
            };
            self.recent.confirmed += 1;
            self.measured.confirmed += u64::from(measured);
            let latency = now.saturating_sub(due);
            self.recent_latency.confirm.add(latency);
            if self.is_measured(due) {
                self.measured_latency.confirm.add(latency);
            }
        }
        self.senders[sender].in_flight
    }

    /// The sender sends no more. What was due before, by the schedule, and could not be sent has waited at least until
    /// now; leaving it out would hide the stall that kept it back (coordinated omission).
    pub(crate) fn close_sender(&mut self, sender: usize) {
        let (now, has_receivers) = (self.clock.now(), !self.receivers.is_empty());
        let account = &mut self.senders[sender];
        let was_closed = std::mem::replace(&mut account.is_closed, true);
        let Some(schedule) = self.schedule.filter(|_| !was_closed) else {
            return;
        };
        for number in account.sent..account.share {
            let due = schedule.due(sender, number);
            if due >= self.to {
                return;
            }
            if self.is_measured(due) {
                self.senders[sender].unsent += 1;
                self.add_lower_bound(now.saturating_sub(due), has_receivers);
            }
        }
    }

    fn add_lower_bound(&mut self, latency: Nanos, has_receivers: bool) {
        self.measured_latency.confirm.add(latency);
        if has_receivers {
            self.measured_latency.end_to_end.add(latency);
        }
    }

    /// Nobody waits any longer: confirmations that are missing count with the time that they have taken.
    pub(crate) fn close(&mut self) {
        let now = self.clock.now();
        for sender in 0..self.senders.len() {
            self.close_sender(sender);
            let waiting: Vec<Nanos> = self.senders[sender].unconfirmed.iter().flatten().copied().collect();
            for due in waiting {
                if !self.is_measured(due) {
                    continue;
                }
                self.measured_latency.confirm.add(now.saturating_sub(due));
            }
        }
    }

    // ---- receivers

    /// These bodies came to the receiver.
    pub(crate) fn on_received(&mut self, receiver: usize, bodies: &[Bytes], now: Nanos) {
        let measured = self.is_measured(now);
        for body in bodies {
            let stamp = Stamp::read(body);
            let Some(stamp) = stamp.filter(|stamp| self.is_ours(receiver, stamp)) else {
                self.foreign += 1;
                // Without producers the load is to consume what lies there.
                if self.producers == 0 {
                    self.recent.received += 1;
                    self.measured.received += u64::from(measured);
                    self.note_backlog(stamp);
                }
                continue;
            };
            self.received_ever += 1;
            self.recent.received += 1;
            self.measured.received += u64::from(measured);
            self.note_arrival(receiver, &stamp);
            let latency = now.saturating_sub(stamp.due);
            self.recent_latency.end_to_end.add(latency);
            if self.is_measured(stamp.due) {
                self.measured_latency.end_to_end.add(latency);
            }
        }
    }

    /// Whether it was sent by this load, to the receiver's destination.
    fn is_ours(&self, receiver: usize, stamp: &Stamp) -> bool {
        let sender = stamp.sender as usize;
        stamp.run == self.run
            && self.senders.get(sender).is_some_and(|s| stamp.sequence < s.sent)
            && sender % self.destinations == receiver % self.destinations
    }

    fn note_backlog(&mut self, stamp: Option<Stamp>) {
        let is_new = stamp.is_none_or(|stamp| {
            let key = (stamp.run, stamp.sender);
            if self.backlog.len() >= BACKLOG_SENDERS_MAX && !self.backlog.contains_key(&key) {
                return true;
            }
            let seen = self.backlog.entry(key).or_default();
            !seen.is_near(stamp.sequence, BACKLOG_AHEAD_MAX) || seen.insert(stamp.sequence)
        });
        if is_new {
            self.received_ever += 1;
        } else {
            self.duplicates += 1;
        }
    }

    fn note_arrival(&mut self, receiver: usize, stamp: &Stamp) {
        let sender = stamp.sender as usize;
        let among = sender / self.destinations;
        let account = &mut self.receivers[receiver];
        let seen = if self.topic {
            &mut account.arrived[among]
        } else {
            &mut self.arrived[sender]
        };
        if !seen.insert(stamp.sequence) {
            self.duplicates += 1;
        } else if stamp.sequence < account.next[among] {
            self.out_of_order += 1;
        }
        account.next[among] = account.next[among].max(stamp.sequence + 1);
    }

    // ---- sums

    /// Messages that were confirmed and have not arrived where they were to. A topic's subscription may take effect some
    /// time after it was made, so of topics only those count that were sent in the measured time or after it.
    pub(crate) fn missing(&self) -> u64 {
        if !self.topic {
            let accounts = self.senders.iter().zip(&self.arrived);
            return accounts.map(|(sender, seen)| sender.missing(seen, 0)).sum();
        }
        let mut missing = 0;
        for (number, receiver) in self.receivers.iter().enumerate() {
            let senders = self.senders.iter().skip(number % self.destinations);
            for (sender, seen) in senders.step_by(self.destinations).zip(&receiver.arrived) {
                missing += sender.missing(seen, sender.first_measured.unwrap_or(sender.sent));
            }
        }
        missing
    }

    pub(crate) fn unconfirmed(&self) -> u64 {
        self.senders.iter().map(|sender| sender.in_flight as u64).sum()
    }

    pub(crate) fn unsent(&self) -> u64 {
        self.senders.iter().map(|sender| sender.unsent).sum()
    }

    /// What happened since the last sample.
    pub(crate) fn take_sample(&mut self, phase: Phase, ends_phase: bool) -> Sample {
        let now = self.clock.now();
        let since = std::mem::replace(&mut self.recent_since, now);
        let counts = std::mem::take(&mut self.recent);
        let confirm_latency = Latency::of(&self.recent_latency.confirm);
        let end_to_end_latency = Latency::of(&self.recent_latency.end_to_end);
        self.recent_latency.clear();
        let seconds = crate::clock::seconds(now - since).max(1e-9);
        Sample {
            phase,
            ends_phase,
            from_seconds: crate::clock::seconds(since),
            to_seconds: crate::clock::seconds(now),
            sent_per_second: counts.sent as f64 / seconds,
            confirmed_per_second: counts.confirmed as f64 / seconds,
            received_per_second: counts.received as f64 / seconds,
            confirm_latency,
            end_to_end_latency,
        }
    }
}

impl SenderAccount {
    /// Takes a message off the unconfirmed ones; when it was due. `None` where it was not among them.
    fn settle(&mut self, number: u64) -> Option<Nanos> {
        let first = self.sent - self.unconfirmed.len() as u64;
        let at = usize::try_from(number.checked_sub(first)?).ok()?;
        let due = self.unconfirmed.get_mut(at)?.take()?;
        self.in_flight -= 1;
        while self.unconfirmed.front() == Some(&None) {
            self.unconfirmed.pop_front();
        }
        Some(due)
    }

    /// Confirmed messages from number `from` on that are not in `seen`.
    fn missing(&self, seen: &Seen, from: u64) -> u64 {
        let first = self.sent - self.unconfirmed.len() as u64;
        let waiting = (first..).zip(&self.unconfirmed);
        let waiting = waiting.filter(|(number, due)| due.is_some() && *number >= from);
        let not_confirmed_not_seen = waiting.filter(|(number, _)| !seen.contains(*number)).count() as u64;
        self.sent - from - seen.count_from(from) - not_confirmed_not_seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Bodies;

    fn board(load: &Load) -> Board {
        let load = Load {
            warm_up: std::time::Duration::ZERO,
            ..load.clone()
        };
        Board::new(&load, 1)
    }

    fn body(sender: usize, number: u64) -> Bytes {
        Bodies::new(1, sender, 24).make(number, 0)
    }

    #[test]
    fn what_is_confirmed_and_did_not_come_is_missing() {
        let mut board = board(&Load::default());
        (0..10).for_each(|at| board.on_send(0, at, at));
        assert_eq!(board.on_confirmed(0, &[1, 3, 0], 100), 7);
        assert_eq!((board.missing(), board.unconfirmed()), (3, 7));
        // One that has no confirmation yet may come before it.
        board.on_received(0, &[body(0, 0), body(0, 5), body(0, 3)], 200);
        assert_eq!((board.missing(), board.duplicates, board.out_of_order), (1, 0, 1));
        board.on_received(0, &[body(0, 1), body(0, 1)], 300);
        assert_eq!((board.missing(), board.duplicates, board.out_of_order), (0, 1, 2));
        // A confirmation that comes twice counts once.
        assert_eq!(board.on_confirmed(0, &[3, 4], 400), 6);
        assert_eq!(board.measured.confirmed, 4);
    }

    #[test]
    fn what_was_not_sent_here_is_foreign() {
        let mut board = board(&Load {
            producers: 2,
            consumers: 2,
            destinations: 2,
            ..Load::default()
        });
        (0..2).for_each(|sender| board.on_send(sender, 0, 0));
        let other_run = Bodies::new(2, 0, 24).make(0, 0);
        let strangers = [
            other_run,
            body(0, 1),
            body(1, 0),
            body(2, 0),
            Bytes::from_static(b"short"),
        ];
        board.on_received(0, &strangers, 1);
        assert_eq!((board.foreign, board.measured.received), (5, 0));
        board.on_received(1, &[body(1, 0)], 1);
        assert_eq!((board.foreign, board.measured.received), (5, 1));
    }

    #[test]
    fn a_topic_owes_every_message_to_every_consumer() {
        let mut board = board(&Load {
            producers: 2,
            consumers: 2,
            topic: true,
            ..Load::default()
        });
        board.on_send(0, 0, 0);
        board.on_send(1, 0, 0);
        board.on_confirmed(0, &[0], 1);
        board.on_confirmed(1, &[0], 1);
        assert_eq!(board.missing(), 4);
        board.on_received(0, &[body(0, 0), body(1, 0)], 2);
        board.on_received(1, &[body(1, 0)], 2);
        assert_eq!((board.missing(), board.duplicates), (1, 0));
    }
}
