//! How much a neighbour may send ahead of the free places of consumers here, so that these do not stand idle while it
//! hears that they have room again and the next message comes.

use crate::input::Pace;

/// What a hand-over takes beside the link: credit gathers for some milliseconds before it is told, and both sides' logs
/// commit. A generous guess: what is sent ahead in vain is as much as the consumers finish in this time.
const HANDOVER_US: u64 = 50_000;
/// Messages sent ahead at most.
const AHEAD_MAX: u64 = 1_024;

/// Messages beyond the free places: what busy consumers finish in a round trip, one for each at least, less what waits
/// here for them already.
pub(super) fn ahead(pace: Pace, rtt_us: u32) -> u32 {
    let round_us = HANDOVER_US + u64::from(rtt_us);
    let finished = u64::from(pace.per_second).saturating_mul(round_us).div_ceil(1_000_000);
    let ahead = match pace.busy {
        0 => 0,
        // Coarsely, so that not each measurement is news for the neighbours.
        busy => finished.min(AHEAD_MAX).next_power_of_two().max(u64::from(busy)),
    };
    u32::try_from(ahead).unwrap_or(u32::MAX).saturating_sub(pace.behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_as_is_finished_meanwhile_and_one_for_each_at_least() {
        let pace = |busy, per_second, behind| Pace {
            busy,
            per_second,
            behind,
            in_hand: busy,
        };
        assert_eq!(ahead(pace(0, 0, 0), 1_000), 0, "nobody is at work");
        assert_eq!(ahead(pace(3, 1, 0), 1_000), 3);
        assert_eq!(ahead(pace(3, 100, 0), 50_000), 16, "ten, coarsely");
        assert_eq!(ahead(pace(3, 100, 4), 50_000), 12, "four wait already");
        assert_eq!(ahead(pace(3, 100, 40), 50_000), 0);
        assert_eq!(ahead(pace(1, u32::MAX, 0), u32::MAX), 1_024);
        assert_eq!(ahead(pace(2_000, 0, 0), 0), 2_000);
    }
}
