//! Plays scenarios on a field, one after the other, and judges each.

use std::{
    thread,
    time::{Duration, Instant},
};

use ferrymq_tests::{late, wait, wait_until};

use crate::{
    GROUPS,
    breach::{Breach, Breaches},
    field::{Field, Options, WELL_MAX},
    lanes::Kind,
    outcome::Outcome,
    random::Dice,
    scenario::Scenario,
};

/// Receipts that show that the load is under way.
const UNDER_WAY: usize = 30;

/// A scenario at its time.
#[derive(Clone, Copy)]
pub struct Strike {
    /// What.
    pub scenario: &'static Scenario,
    /// How long it stays broken.
    pub hold: Duration,
    /// Pause since the strike before.
    pub after: Duration,
    /// Decides what the fault itself leaves open.
    pub lot: u64,
}

impl Strike {
    /// At once, for as long as in the short run.
    pub fn short(scenario: &'static Scenario, lot: u64) -> Self {
        Self {
            scenario,
            hold: scenario.hold(),
            after: Duration::ZERO,
            lot,
        }
    }
}

/// A field that is made when it is needed, and made anew when a scenario has spoilt it.
pub struct Ground {
    options: Options,
    field: Option<Field>,
}

impl Ground {
    /// Without a field yet.
    pub fn new(options: Options) -> Self {
        Self { options, field: None }
    }

    /// Plays strikes that overlap, and takes everything down if a promise is broken; what the nodes have logged is then
    /// kept, and its place is told.
    pub fn play(&mut self, strikes: &[Strike]) -> Outcome {
        let name = name(strikes);
        let missing = strikes.iter().find_map(|strike| strike.scenario.fault.missing());
        if let Some(why) = missing {
            return Outcome::skipped(&name, why);
        }
        let (field, options, strikes) = (self.field.take(), self.options.clone(), strikes.to_vec());
        let breaches = Breaches::default();
        let its = breaches.clone();
        // A thread of its own: when it panics, whatever it holds knows and keeps its traces.
        let played = thread::Builder::new().name(name.clone()).spawn(move || {
            let mut field = field.unwrap_or_else(|| Field::start(options));
            field.breaches = its;
            let outcome = play(&mut field, &strikes);
            assert!(outcome.is_good(), "{JUDGED}");
            (field, outcome)
        });
        match played.expect("a thread can be started").join() {
            Ok((field, outcome)) => {
                self.field = Some(field);
                outcome
            }
            Err(why) => {
                let (why, mut all) = (late::text(&*why), breaches.all());
                if why != JUDGED {
                    all.push(Breach::of_panic(why));
                }
                Outcome::failed(&name, all)
            }
        }
    }
}

/// Says the thread that has played when everything that was wrong has been noted.
const JUDGED: &str = "a promise was broken, or a bound missed";

/// `kill-north-master+cut-between-groups`.
pub fn name(strikes: &[Strike]) -> String {
    let names: Vec<&str> = strikes.iter().map(|strike| strike.scenario.name).collect();
    names.join("+")
}

/// Plays each scenario by itself, in its short form, and tells how it went. With `patient`, one that was too late is
/// played once more; one that broke a promise never is.
pub fn each(ground: &mut Ground, scenarios: &[&'static Scenario], seed: u64, patient: bool) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        if wait::is_interrupted() {
            break;
        }
        let lot = Dice::for_scenario(seed, scenario.name).lot();
        let mut play = || {
            let outcome = ground.play(&[Strike::short(scenario, lot)]);
            crate::figures::tell(&outcome);
            outcome
        };
        outcomes.push(if patient { patiently(play) } else { play() });
    }
    outcomes
}

/// Plays once more what was only too late.
fn patiently(mut play: impl FnMut() -> Outcome) -> Outcome {
    let first = play();
    if !first.is_only_late() || wait::is_interrupted() {
        return first;
    }
    Outcome {
        late_before: first.breaches,
        ..play()
    }
}

fn play(field: &mut Field, strikes: &[Strike]) -> Outcome {
    let receipted = field.load.receipted();
    field.load.go_on();
    wait_until("the load is under way", WELL_MAX, || {
        field.supervise();
        field.load.receipted() > receipted + UNDER_WAY
    });
    field.expect_no_end();
    let terms = |field: &Field| std::array::from_fn::<usize, GROUPS, _>(|group| field.watch.terms(group));
    let terms_before = terms(field);
    field.watch.take_rss_bytes_max();

    let struck = Instant::now();
    let mut ends = Vec::new();
    for strike in strikes {
        field.hold(strike.after);
        let on = strike.scenario.whom.resolve(field);
        field.expect_end(strike.scenario.ending, &on);
        field.dice = Dice::new(strike.lot);
        let mend = strike.scenario.fault.strike(field, &on);
        ends.push((Instant::now() + strike.hold, strike, on, mend));
    }
    // What ends first is mended first.
    ends.sort_by_key(|(end, ..)| *end);
    for (end, strike, on, mend) in ends {
        field.hold(end.saturating_duration_since(Instant::now()));
        field.wait_ends(strike.scenario.ending, &on);
        mend(field);
    }
    let mended = Instant::now();
    let recovery = field.wait_well();
    let well = Instant::now();

    let pause = longest_pause(field, strikes, struck, mended);
    // Also what goes on only after the mending.
    judge_pause(field, strikes, longest_pause(field, strikes, struck, well));
    let terms = terms(field);
    let begun = std::array::from_fn(|group| terms[group] - terms_before[group]);
    for strike in strikes {
        judge_terms(&field.breaches, strike.scenario, begun);
    }
    field.drain();
    Outcome {
        name: name(strikes),
        pause,
        pause_after: longest_pause(field, strikes, mended, well),
        recovery,
        terms: begun.iter().sum(),
        rss_bytes_max: field.watch.take_rss_bytes_max(),
        ended: field.ended(),
        receipted: field.load.receipted() - receipted,
        breaches: field.breaches.all(),
        late_before: Vec::new(),
        skipped: None,
    }
}

/// Sends go on in time, unless one of the faults lets them stop.
fn judge_pause(field: &Field, strikes: &[Strike], pause: Duration) {
    let bounds: Option<Vec<u64>> = strikes.iter().map(|strike| strike.scenario.pause_ms_max).collect();
    let Some(bound) = bounds.and_then(|bounds| bounds.into_iter().max().map(Duration::from_millis)) else {
        return;
    };
    if pause > bound {
        field.breaches.late(format!(
            "sends stood still for {pause:?}; at most {bound:?} are allowed"
        ));
    }
}

/// Masters change as seldom as they shall, and as often as they must, where so many terms have begun in the groups. (Two
/// faults at a time strike different groups.)
fn judge_terms(breaches: &Breaches, scenario: &Scenario, begun: [usize; GROUPS]) {
    let name = scenario.name;
    let groups = scenario.whom.groups();
    let struck: Vec<usize> = groups.iter().map(|group| begun[*group]).collect();
    let all: usize = struck.iter().sum();
    if let Some(max) = scenario.terms_max.filter(|max| all > *max) {
        breaches.late(format!("{all} terms began under {name}; at most {max} are allowed"));
    }
    if scenario.replaces_master && struck.contains(&0) {
        breaches.broken(format!("{name} has replaced no master: it has not struck"));
    }
}

/// The longest time without a receipt for those who send to a struck group.
fn longest_pause(field: &Field, strikes: &[Strike], from: Instant, to: Instant) -> Duration {
    let struck: Vec<usize> = strikes
        .iter()
        .flat_map(|strike| strike.scenario.whom.groups())
        .collect();
    let sending =
        field.load.flows.iter().filter(|flow| {
            matches!(flow.lane.kind, Kind::Flowing | Kind::Resting) && struck.contains(&flow.lane.from[0])
        });
    let gaps = sending
        .flat_map(|flow| &flow.histories)
        .map(|history| history.longest_gaps(from, to).0);
    gaps.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends_with(breaches: &[&[(&str, bool)]]) -> (Outcome, usize) {
        let mut played = 0;
        let outcome = patiently(|| {
            played += 1;
            let breaches = breaches[played - 1].iter().map(|(text, is_late)| Breach {
                text: (*text).to_owned(),
                is_late: *is_late,
            });
            Outcome::failed("a", breaches.collect())
        });
        (outcome, played)
    }

    #[test]
    fn terms_are_counted_in_the_group_that_is_struck() {
        let judged = |name: &str, begun: [usize; GROUPS]| {
            let scenarios = crate::scenarios::named(&[name.to_owned()]).expect("it is there");
            let breaches = Breaches::default();
            judge_terms(&breaches, scenarios[0], begun);
            breaches.all().iter().map(|breach| breach.is_late).collect::<Vec<_>>()
        };
        let none: [bool; 0] = [];
        assert_eq!(judged("kill-north-master", [1, 0, 0]), none);
        assert_eq!(judged("kill-north-master", [0, 1, 0]), [false]);
        assert_eq!(judged("kill-both-masters", [1, 0, 0]), [false]);
        assert_eq!(judged("kill-north-slave", [0, 0, 0]), none);
        assert_eq!(judged("far-nodes-of-north", [1, 3, 0]), none);
        assert_eq!(judged("far-nodes-of-north", [2, 0, 0]), [true]);
        assert_eq!(judged("clock-back-everyone", [0, 1, 0]), [true]);
        assert_eq!(judged("clock-back-everyone", [0, 0, 1]), [true]);
    }

    #[test]
    fn only_what_was_too_late_is_played_once_more() {
        let (outcome, played) = ends_with(&[&[("slow", true)], &[]]);
        assert!(outcome.is_good() && played == 2 && outcome.late_before.len() == 1);
        let (outcome, played) = ends_with(&[&[("slow", true)], &[("slow", true)]]);
        assert!(!outcome.is_good() && played == 2);
        let (outcome, played) = ends_with(&[&[("slow", true), ("lost", false)], &[]]);
        assert!(!outcome.is_good() && played == 1);
        assert!(ends_with(&[&[]]).0.is_good());
    }
}
