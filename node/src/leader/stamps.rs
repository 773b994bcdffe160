//! Timestamps and ends that clients give, or the broker in their place: ActiveMQ's `TimeStampingBrokerPlugin`
//! (`org.apache.activemq.broker.util`), with its rules.

use ferrymq_message::{Destination, Message};

/// By whose clock messages of this group's clients are stamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stamps {
    /// As the client wrote them.
    #[default]
    Client,
    /// By the group's time: a message lives as long as its client meant, however wrong the client's clock is.
    Broker {
        /// How long messages live that have no end; 0 for ever (`zeroExpirationOverride`).
        lives_ms: i64,
        /// How long messages live at most; 0 for no bound (`ttlCeiling`).
        lives_max_ms: i64,
    },
}

impl Stamps {
    /// Stamps a client's own send. What a client puts into the dead letter queue keeps what it has; so does what has no
    /// timestamp, since nobody knows how long it was to live.
    pub(super) fn put_on(self, message: &mut Message, dead_letter_queue: &Destination, now_ms: i64) {
        let Self::Broker { lives_ms, lives_max_ms } = self else {
            return;
        };
        if message.timestamp_ms <= 0 || message.destination == *dead_letter_queue {
            return;
        }
        let mut left_ms = match message.expires_ms {
            expires_ms if expires_ms > 0 => expires_ms.saturating_sub(message.timestamp_ms),
            _ => lives_ms,
        };
        if left_ms > 0 && lives_max_ms > 0 {
            left_ms = left_ms.min(lives_max_ms);
        }
        message.timestamp_ms = now_ms;
        // One that was over when it was sent stays over.
        if left_ms > 0 {
            message.expires_ms = now_ms.saturating_add(left_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn stamped(stamps: Stamps, timestamp_ms: i64, expires_ms: i64) -> (i64, i64) {
        let mut message = Message::new("id", Destination::queue("q"), bytes::Bytes::new());
        (message.timestamp_ms, message.expires_ms) = (timestamp_ms, expires_ms);
        stamps.put_on(&mut message, &Destination::queue("dead"), NOW);
        (message.timestamp_ms, message.expires_ms)
    }

    fn broker(lives_ms: i64, lives_max_ms: i64) -> Stamps {
        Stamps::Broker { lives_ms, lives_max_ms }
    }

    #[test]
    fn a_life_counts_from_now() {
        for ahead in [0, 7_200_000, -900_000] {
            let sent = NOW + ahead;
            assert_eq!(stamped(broker(0, 0), sent, sent + 600), (NOW, NOW + 600));
            assert_eq!(stamped(broker(0, 0), sent, 0), (NOW, 0), "for ever");
            assert_eq!(stamped(broker(50, 0), sent, 0), (NOW, NOW + 50));
            assert_eq!(stamped(broker(0, 70), sent, sent + 600), (NOW, NOW + 70));
            assert_eq!(stamped(broker(90, 70), sent, 0), (NOW, NOW + 70));
            assert_eq!(stamped(Stamps::Client, sent, sent + 600), (sent, sent + 600));
        }
    }

    #[test]
    fn what_tells_no_life_is_left_alone() {
        assert_eq!(stamped(broker(50, 70), 0, 600), (0, 600));
        assert_eq!(stamped(broker(50, 70), 900, 800), (NOW, 800), "over before it was sent");
        let mut dead = Message::new("id", Destination::queue("dead"), bytes::Bytes::new());
        (dead.timestamp_ms, dead.expires_ms) = (5, 6);
        broker(50, 70).put_on(&mut dead, &Destination::queue("dead"), NOW);
        assert_eq!((dead.timestamp_ms, dead.expires_ms), (5, 6));
    }
}
