//! Heart-beats of one connection, both ways (STOMP 1.2, "Heart-beating").

use super::StompError;

/// When to send a line end, and when the peer counts as gone.
#[derive(Debug, Default)]
pub(super) struct HeartBeat {
    /// The longest silence that we promised; 0 is no promise.
    send_ms: u64,
    /// The longest silence that the peer promised; 0 is no promise.
    receive_ms: u64,
    wrote: bool,
    heard: bool,
    /// Intervals that ended without a byte from the peer.
    silent_intervals: u32,
    next_send_ms: u64,
    next_check_ms: u64,
    /// False until the first tick has told the time.
    started: bool,
}

/// Intervals of silence after which the peer counts as gone.
const SILENT_INTERVALS_MAX: u32 = 2;

/// A day: what a client wants beyond it is cut, so that sums of times cannot overflow.
const INTERVAL_MS_MAX: u64 = 86_400_000;

impl HeartBeat {
    /// Agrees with the client's `heart-beat` header ("what I can do, what I want"), none shorter than `ms_min`.
    pub(super) fn negotiate(header: Option<&str>, ms_min: u64) -> Result<Self, StompError> {
        let Some(header) = header else {
            return Ok(Self::default());
        };
        let bad = StompError::BadHeader {
            header: "heart-beat",
            expected: "two numbers of milliseconds, as in 0,10000",
        };
        let (can, wants) = header.split_once(',').ok_or(bad.clone())?;
        let interval = |text: &str| -> Result<u64, StompError> {
            let ms: u64 = text.trim().parse().map_err(|_| bad.clone())?;
            Ok(if ms == 0 {
                0
            } else {
                ms.max(ms_min).min(INTERVAL_MS_MAX)
            })
        };
        Ok(Self {
            send_ms: interval(wants)?,
            receive_ms: interval(can)?,
            ..Self::default()
        })
    }

    /// The header for CONNECTED: the intervals as agreed, first what we do, then what we want.
    pub(super) fn header(&self) -> String {
        format!("{},{}", self.send_ms, self.receive_ms)
    }

    /// Something was written to the peer.
    pub(super) fn on_write(&mut self) {
        self.wrote = true;
    }

    /// Something came from the peer.
    pub(super) fn on_read(&mut self) {
        self.heard = true;
    }

    /// When [`HeartBeat::tick`] is wanted.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let send = (self.send_ms > 0).then_some(self.next_send_ms);
        let check = (self.receive_ms > 0).then_some(self.next_check_ms);
        match (send, check) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
        .map(|at| if self.started { at } else { 0 })
    }

    /// Whether to send a line end now.
    ///
    /// # Errors
    /// Where the peer is silent for two intervals.
    pub(super) fn tick(&mut self, now_ms: u64) -> Result<bool, StompError> {
        if !self.started {
            self.started = true;
            self.next_send_ms = now_ms + self.send_ms / 2;
            self.next_check_ms = now_ms + self.receive_ms;
            return Ok(false);
        }
        if self.receive_ms > 0 && now_ms >= self.next_check_ms {
            self.silent_intervals = if std::mem::take(&mut self.heard) {
                0
            } else {
                self.silent_intervals + 1
            };
            if self.silent_intervals == SILENT_INTERVALS_MAX {
                return Err(StompError::HeartBeatMissed(
                    self.receive_ms * u64::from(SILENT_INTERVALS_MAX),
                ));
            }
            self.next_check_ms = now_ms + self.receive_ms;
        }
        let mut beat = false;
        if self.send_ms > 0 && now_ms >= self.next_send_ms {
            // Looked at twice an interval, so that no silence is longer than one.
            beat = !std::mem::take(&mut self.wrote);
            self.next_send_ms = now_ms + self.send_ms / 2;
        }
        Ok(beat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiates() {
        let table = [
            (None, "0,0"),
            (Some("0,0"), "0,0"),
            (Some("1000,2000"), "2000,1000"),
            (Some("10, 0"), "0,500"),
            (Some("0,99999999999"), "86400000,0"),
        ];
        for (header, agreed) in table {
            assert_eq!(HeartBeat::negotiate(header, 500).unwrap().header(), agreed);
        }
        for bad in ["", "1000", "a,b", "-1,0", "1,2,3"] {
            assert!(HeartBeat::negotiate(Some(bad), 500).is_err(), "{bad}");
        }
    }

    #[test]
    fn sends_when_nothing_else_was_written() {
        let mut beat = HeartBeat::negotiate(Some("0,1000"), 500).unwrap();
        assert_eq!(beat.next_ms(), Some(0));
        assert_eq!(beat.tick(10_000), Ok(false));
        assert_eq!(beat.next_ms(), Some(10_500));
        assert_eq!(beat.tick(10_500), Ok(true));
        beat.on_write();
        assert_eq!(beat.tick(11_000), Ok(false));
        assert_eq!(beat.tick(11_400), Ok(false));
        assert_eq!(beat.tick(11_500), Ok(true));
    }

    #[test]
    fn two_silent_intervals_are_the_end() {
        let mut beat = HeartBeat::negotiate(Some("1000,0"), 500).unwrap();
        assert_eq!(beat.tick(0), Ok(false));
        assert_eq!(beat.tick(1000), Ok(false));
        beat.on_read();
        assert_eq!(beat.tick(2000), Ok(false));
        assert_eq!(beat.tick(3000), Ok(false));
        assert_eq!(beat.tick(3999), Ok(false));
        assert_eq!(beat.tick(4000), Err(StompError::HeartBeatMissed(2000)));
    }

    #[test]
    fn no_promise_no_tick() {
        assert_eq!(HeartBeat::default().next_ms(), None);
    }
}
