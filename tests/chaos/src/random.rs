//! Faults at random, by a seed: rounds of one or two scenarios that overlap, until the time is over.
//!
//! The seed decides everything that is chosen here. What it cannot decide is how threads and packets meet, so a failing
//! seed may have to be played more than once.

use std::time::Duration;

use crate::{run::Strike, scenario::Scenario};

/// How much longer than in the short run a fault may last.
const LONGER: u64 = 4;
/// But not longer than this, unless the short run is.
const HOLD_MS_MAX: u64 = 12_000;
/// The second fault of a round strikes at most so long after the first.
const AFTER_MS_MAX: u64 = 3_000;

/// A seed where none was given; whoever takes it tells it.
pub fn any_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::from(std::process::id()) << 16 ^ now.map_or(0, |now| now.as_secs())
}

/// Numbers that depend on the seed alone.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// For one run.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// For one scenario of a run: the same whichever others are played.
    pub fn for_scenario(seed: u64, name: &str) -> Self {
        let name = name
            .bytes()
            .fold(0, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(byte));
        Self::new(seed ^ name.rotate_left(32))
    }

    /// A seed for something that follows from this one.
    pub fn lot(&mut self) -> u64 {
        self.below(u64::MAX)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        // A 64-bit LCG with Knuth's constants, its upper half.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }

    fn one_of(&mut self, scenarios: &[&'static Scenario]) -> &'static Scenario {
        scenarios[self.below(scenarios.len() as u64) as usize]
    }

    /// The next round. Two faults at a time strike different groups: each group has to bear what its promises cover.
    ///
    /// # Panics
    /// Where there are no scenarios.
    pub fn round(&mut self, scenarios: &[&'static Scenario]) -> Vec<Strike> {
        let first = self.one_of(scenarios);
        let mut strikes = vec![self.strike(first, 0)];
        if self.below(2) == 1 {
            let second = self.one_of(scenarios);
            let after_ms = self.below(AFTER_MS_MAX);
            let strike = self.strike(second, after_ms);
            let (one, other) = (first.whom.groups(), second.whom.groups());
            let is_alone = first.is_alone || second.is_alone;
            if !is_alone && one.iter().all(|group| !other.contains(group)) {
                strikes.push(strike);
            }
        }
        strikes
    }

    fn strike(&mut self, scenario: &'static Scenario, after_ms: u64) -> Strike {
        let longest = (scenario.hold_ms * LONGER).min(HOLD_MS_MAX).max(scenario.hold_ms);
        let hold_ms = scenario.hold_ms + self.below(longest - scenario.hold_ms + 1);
        Strike {
            scenario,
            hold: Duration::from_millis(hold_ms),
            after: Duration::from_millis(after_ms),
            lot: self.lot(),
        }
    }
}

/// `kill-north-master 2310 ms, after 800 ms freeze-south-slave 4000 ms`.
pub fn tell(strikes: &[Strike]) -> String {
    let told = strikes.iter().map(|strike| {
        let after = match strike.after.as_millis() {
            0 => String::new(),
            ms => format!("after {ms} ms "),
        };
        format!("{after}{} for {} ms", strike.scenario.name, strike.hold.as_millis())
    });
    told.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::named;

    #[test]
    fn a_seed_decides_everything() {
        let all = named(&[]).expect("no name is wrong");
        let rounds = |seed: u64| {
            let mut dice = Dice::new(seed);
            let rounds = (0..50).map(|_| dice.round(&all));
            let told = |round: Vec<Strike>| (tell(&round), round.iter().map(|strike| strike.lot).collect::<Vec<_>>());
            rounds.map(told).collect::<Vec<_>>()
        };
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn a_scenario_draws_the_same_lots_beside_any_others() {
        let lots = |seed: u64, name: &str| {
            let mut dice = Dice::for_scenario(seed, name);
            [dice.lot(), dice.lot()]
        };
        assert_eq!(lots(7, "flip-anywhere"), lots(7, "flip-anywhere"));
        assert_ne!(lots(7, "flip-anywhere"), lots(8, "flip-anywhere"));
        assert_ne!(lots(7, "flip-anywhere"), lots(7, "torn-tail"));
    }

    #[test]
    fn two_faults_at_a_time_strike_different_groups() {
        let all = named(&[]).expect("no name is wrong");
        let mut dice = Dice::new(1);
        let rounds: Vec<Vec<Strike>> = (0..500).map(|_| dice.round(&all)).collect();
        let double = rounds.iter().filter(|round| round.len() == 2);
        assert!(double.clone().count() > 20);
        for round in double {
            let (one, other) = (round[0].scenario.whom.groups(), round[1].scenario.whom.groups());
            assert!(one.iter().all(|group| !other.contains(group)), "{}", tell(round));
        }
    }
}
