//! Plays scenarios on a field, one after the other, and judges each.

use std::{
    any::Any,
    thread,
    time::{Duration, Instant},
};

use ferrymq_tests::{wait, wait_until};

use crate::{
    NORTH, SOUTH,
    field::{Field, Options, WELL_MAX},
    lanes::Kind,
    outcome::Outcome,
    scenario::{Meanwhile, PAUSE_MAX, Scenario},
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
}

impl Strike {
    /// At once, for as long as in the short run.
    pub fn short(scenario: &'static Scenario) -> Self {
        Self {
            scenario,
            hold: scenario.hold(),
            after: Duration::ZERO,
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
        // A thread of its own: when it panics, whatever it holds knows and keeps its traces.
        let played = thread::Builder::new().name(name.clone()).spawn(move || {
            let mut field = field.unwrap_or_else(|| Field::start(options));
            let outcome = play(&mut field, &strikes);
            assert!(outcome.is_good(), "{}", outcome.breaches.join("\n"));
            (field, outcome)
        });
        match played.expect("a thread can be started").join() {
            Ok((field, outcome)) => {
                self.field = Some(field);
                outcome
            }
            Err(why) => Outcome::failed(&name, text(&*why)),
        }
    }
}

/// `kill-north-master+cut-between-groups`.
pub fn name(strikes: &[Strike]) -> String {
    let names: Vec<&str> = strikes.iter().map(|strike| strike.scenario.name).collect();
    names.join("+")
}

/// Plays each scenario by itself, in its short form, and tells how it went.
pub fn each(ground: &mut Ground, scenarios: &[&'static Scenario]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        if wait::is_interrupted() {
            break;
        }
        let outcome = ground.play(&[Strike::short(scenario)]);
        crate::figures::tell(&outcome);
        outcomes.push(outcome);
    }
    outcomes
}

fn play(field: &mut Field, strikes: &[Strike]) -> Outcome {
    let receipted = field.load.receipted();
    field.load.go_on();
    wait_until("the load is under way", WELL_MAX, || {
        field.supervise();
        field.load.receipted() > receipted + UNDER_WAY
    });
    let words = strikes.iter().filter_map(|strike| strike.scenario.last_words).collect();
    field.expect(words);
    let terms = |field: &Field| field.watch.terms(NORTH) + field.watch.terms(SOUTH);
    let terms_before = terms(field);
    field.watch.take_rss_bytes_max();

    let struck = Instant::now();
    let mut ends = Vec::new();
    for strike in strikes {
        field.hold(strike.after);
        let on = strike.scenario.whom.resolve(field);
        let mend = strike.scenario.fault.strike(field, &on);
        ends.push((Instant::now() + strike.hold, mend));
    }
    // What ends first is mended first.
    ends.sort_by_key(|(end, _)| *end);
    for (end, mend) in ends {
        field.hold(end.saturating_duration_since(Instant::now()));
        mend(field);
    }
    let mended = Instant::now();
    let recovery = field.wait_well();
    let well = Instant::now();

    let pause = longest_pause(field, strikes, struck, mended);
    let must_go_on = strikes
        .iter()
        .all(|strike| strike.scenario.meanwhile == Meanwhile::GoesOn);
    if must_go_on && pause > PAUSE_MAX {
        field.breach(format!(
            "sends stood still for {pause:?}; at most {PAUSE_MAX:?} are allowed"
        ));
    }
    field.drain();
    Outcome {
        name: name(strikes),
        pause,
        pause_after: longest_pause(field, strikes, mended, well),
        recovery,
        terms: terms(field) - terms_before,
        rss_bytes_max: field.watch.take_rss_bytes_max(),
        ended: field.ended(),
        receipted: field.load.receipted() - receipted,
        breaches: field.take_breaches(),
        skipped: None,
    }
}

/// The longest time without a receipt for those who send to a struck group.
fn longest_pause(field: &Field, strikes: &[Strike], from: Instant, to: Instant) -> Duration {
    let is_struck = |group: usize| {
        let mut struck = strikes.iter().map(|strike| strike.scenario.whom.group());
        struck.any(|its| its.is_none_or(|its| its == group))
    };
    let sending = field
        .load
        .flows
        .iter()
        .filter(|flow| matches!(flow.lane.kind, Kind::Flowing | Kind::Resting) && is_struck(flow.lane.from));
    let gaps = sending
        .flat_map(|flow| &flow.histories)
        .map(|history| history.longest_gaps(from, to).0);
    gaps.max().unwrap_or_default()
}

fn text(why: &(dyn Any + Send)) -> String {
    let text = why.downcast_ref::<String>().cloned();
    let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it panicked without a word".into())
}
