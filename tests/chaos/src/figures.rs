//! The figures of a run, as a table for docs/RELIABILITY.md.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use crate::outcome::Outcome;

/// Tells how one scenario went, on one line and what was wrong below.
pub fn tell(outcome: &Outcome) {
    let Outcome {
        name,
        pause,
        pause_after,
        recovery,
        terms,
        receipted,
        ..
    } = outcome;
    match (&outcome.skipped, outcome.is_good()) {
        (Some(why), _) => println!("skipped  {name}: {why}"),
        (None, true) => println!(
            "kept     {name}: sends paused {}, {} after mending; well after {}; {terms} terms, {} ended, {receipted} messages",
            seconds(*pause),
            seconds(*pause_after),
            seconds(*recovery),
            outcome.ended,
        ),
        (None, false) => {
            let breaches: Vec<String> = outcome.breaches.iter().map(ToString::to_string).collect();
            let verdict = if outcome.is_only_late() { "TOO LATE" } else { "BROKEN  " };
            println!("{verdict} {name}:\n  {}", breaches.join("\n  "));
        }
    }
}

/// All outcomes as a table in Markdown: for each scenario the median and the worst of its runs.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut rows: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    // Strikes that overlap count for each scenario.
    for outcome in outcomes.iter().filter(|outcome| outcome.skipped.is_none()) {
        outcome
            .name
            .split('+')
            .for_each(|name| rows.entry(name).or_default().push(outcome));
    }
    let mut text = String::from(
        "| Fault | Runs | Broken | Sends paused, median | worst | After mending, worst | All well again, median | worst |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (name, runs) in &rows {
        let good: Vec<&&Outcome> = runs.iter().filter(|outcome| outcome.is_good()).collect();
        let spread = |of: fn(&Outcome) -> Duration| Spread::of(good.iter().map(|outcome| of(outcome)).collect());
        let (pause, after) = (spread(|outcome| outcome.pause), spread(|outcome| outcome.pause_after));
        let recovery = spread(|outcome| outcome.recovery);
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} |",
            runs.len(),
            runs.len() - good.len(),
            seconds(pause.median),
            seconds(pause.worst),
            seconds(after.worst),
            seconds(recovery.median),
            seconds(recovery.worst),
        );
    }
    let (played, broken) = (
        outcomes.iter().filter(|o| o.skipped.is_none()).count(),
        broken(outcomes),
    );
    let receipted: usize = outcomes.iter().map(|outcome| outcome.receipted).sum();
    let rss = outcomes.iter().map(|outcome| outcome.rss_bytes_max).max().unwrap_or(0) >> 20;
    let _ = writeln!(
        text,
        "\n{played} played, {broken} broken; {receipted} messages with a receipt in those that kept all promises: 0 lost, \
         0 doubled; most memory of a node {rss} MiB"
    );
    let mut skipped: Vec<String> = outcomes
        .iter()
        .filter_map(|o| o.skipped.as_ref().map(|why| format!("{}: {why}", o.name)))
        .collect();
    skipped.sort();
    skipped.dedup();
    if !skipped.is_empty() {
        let _ = writeln!(text, "skipped here: {}", skipped.join("; "));
    }
    text
}

/// How many broke a promise.
pub fn broken(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| !outcome.is_good()).count()
}

struct Spread {
    median: Duration,
    worst: Duration,
}

impl Spread {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort();
        Self {
            median: all.get(all.len() / 2).copied().unwrap_or_default(),
            worst: all.last().copied().unwrap_or_default(),
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breach::Breach;

    #[test]
    fn medians_and_worst_are_told_by_scenario() {
        let outcome = |name: &str, ms: u64| Outcome {
            name: name.into(),
            pause: Duration::from_millis(ms),
            ..Outcome::default()
        };
        let all = [
            outcome("a", 10),
            outcome("a+b", 3_000),
            outcome("a", 500),
            Outcome::failed("b", vec![Breach::of_panic("lost".into())]),
            Outcome::skipped("c", "needs a thing".into()),
        ];
        let text = table(&all);
        assert!(text.contains("| a | 3 | 0 | 0.50 s | 3.00 s |"), "{text}");
        assert!(text.contains("| b | 2 | 1 | 3.00 s |"), "{text}");
        assert!(
            text.contains("4 played, 1 broken") && text.contains("skipped here: c: needs a thing"),
            "{text}"
        );
        assert_eq!(broken(&all), 1);
    }
}
