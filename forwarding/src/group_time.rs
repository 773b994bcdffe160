//! The time of this group and of its neighbours. Messages cross with the remaining life that they have by their owner's
//! clock: a transfer tells how late it is for its sender, and ends that lie so far behind that are put as far behind the
//! receiver's own time. So clocks of groups may differ at will.

use bytes::Bytes;
use ferrymq_broker::Carried;
use ferrymq_message::StoredMessage;

/// This group's time, as the node tells it.
#[derive(Debug, Default)]
pub(crate) struct GroupTime {
    /// More than the mesh's own clock shows; none until the node has told.
    ahead_ms: Option<i64>,
    /// The node has said that it does not know yet.
    is_awaited: bool,
}

impl GroupTime {
    /// The node says how late it is, or that it does not know yet.
    pub(crate) fn told(&mut self, now_ms: u64, time_ms: Option<u64>) {
        let ahead_ms = |time_ms: u64| time_ms.cast_signed().wrapping_sub(now_ms.cast_signed());
        self.ahead_ms = time_ms.map(ahead_ms).or(self.ahead_ms);
        self.is_awaited = self.ahead_ms.is_none();
    }

    /// Until it is known nothing crosses, or nobody could tell what is left of its life.
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// Milliseconds since 1970, 0 where that is not known. `now_ms` is the mesh's own clock.
    pub(crate) fn now_ms(&self, now_ms: u64) -> u64 {
        let time_ms = self
            .ahead_ms
            .map(|ahead_ms| now_ms.cast_signed().wrapping_add(ahead_ms));
        time_ms.map_or(0, |time_ms| time_ms.max(0).cast_unsigned())
    }

    /// By how much a neighbour's time that was told so long ago is ahead; none where one of the two is not known.
    pub(crate) fn skew_ms(&self, now_ms: u64, told_ms: u64, ago_ms: u64) -> Option<i64> {
        let own_ms = self.now_ms(now_ms);
        let known = own_ms != 0 && told_ms != 0;
        known.then(|| {
            told_ms
                .saturating_add(ago_ms)
                .cast_signed()
                .wrapping_sub(own_ms.cast_signed())
        })
    }

    /// Messages of a neighbour for which it was so late when it sent them get their ends by this group's time.
    pub(crate) fn take_over(&self, now_ms: u64, sent_ms: u64, messages: &mut [Carried]) {
        let Some(ahead_ms) = self.skew_ms(now_ms, sent_ms, 0).filter(|ahead_ms| *ahead_ms != 0) else {
            return;
        };
        for carried in messages {
            if let Some(message) = moved(&carried.message, ahead_ms) {
                carried.message = message;
            }
        }
    }
}

/// The same message, ending so much earlier; none where it has no end, or is none.
fn moved(message: &Bytes, ahead_ms: i64) -> Option<Bytes> {
    let stored = StoredMessage::new(message.clone()).ok()?;
    let expires_ms = stored.expires_ms();
    // Below 1 it would mean that there is no end.
    let moved = |expires_ms: i64| expires_ms.saturating_sub(ahead_ms).max(1);
    (expires_ms != 0).then(|| stored.expiring(moved(expires_ms)).bytes().clone())
}

#[cfg(test)]
mod tests {
    use ferrymq_message::{Destination, Message};

    use super::*;

    fn carried(expires_ms: i64) -> Carried {
        let mut message = Message::new("id", Destination::queue("q"), Bytes::from_static(b"body"));
        message.expires_ms = expires_ms;
        Carried {
            redeliveries: 0,
            redelivered: false,
            hops: 1,
            dead_letter: None,
            message: message.encode(),
        }
    }

    fn expires_ms(carried: &Carried) -> i64 {
        StoredMessage::new(carried.message.clone()).unwrap().expires_ms()
    }

    #[test]
    fn what_is_left_of_a_life_is_left_here_too() {
        let mut time = GroupTime::default();
        assert_eq!((time.now_ms(5), time.skew_ms(5, 9, 0)), (0, None));
        time.told(1_000, None);
        assert!(time.is_awaited());
        time.told(1_000, Some(100_000));
        time.told(7_000, None);
        assert!(!time.is_awaited());
        assert_eq!(time.now_ms(1_500), 100_500);
        for sent_ms in [100_500, 3_700_500, 400] {
            let mut messages = [carried(sent_ms as i64 + 600), carried(0), carried(sent_ms as i64 - 7)];
            time.take_over(1_500, sent_ms, &mut messages);
            assert_eq!(
                messages.each_ref().map(expires_ms),
                [101_100, 0, 100_493],
                "sent at {sent_ms}"
            );
        }
        let mut messages = [carried(1)];
        time.take_over(1_500, u64::MAX / 4, &mut messages);
        assert_eq!(expires_ms(&messages[0]), 1, "over for long, and not without an end");
    }

    #[test]
    fn without_one_of_the_times_ends_stay_as_they_are() {
        let mut time = GroupTime::default();
        let mut messages = [carried(600)];
        time.take_over(5, 70, &mut messages);
        time.told(0, Some(90));
        time.take_over(5, 0, &mut messages);
        assert_eq!(expires_ms(&messages[0]), 600);
    }
}
