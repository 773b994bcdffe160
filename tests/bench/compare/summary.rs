//! From the runs of a scenario to its row: medians, and ratios of the runs of one pair.

use serde::Serialize;

use crate::{
    brokers::{Kind, Run},
    scenario::Measure,
    spread::Spread,
    turns::Compared,
};

/// Where others use more of the machine, a reader is told: figures of such runs mean little.
pub(crate) const OTHERS_SHARE_MAX: f64 = 0.1;

/// One scenario's row.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) load: String,
    #[serde(skip)]
    pub(crate) measure: Measure,
    pub(crate) ours: Side,
    pub(crate) peer: Side,
    /// Ours to the peer's, of each pair; more is better for us, whatever is measured.
    pub(crate) ratio: Spread,
    /// The peer's 99 % send-to-confirm latency to ours, of each pair; above 1 ours is lower.
    pub(crate) confirm_p99_ratio: Spread,
    /// The least ratio that we want to reach; 0 where none is set.
    pub(crate) target: f64,
    pub(crate) problem: Option<String>,
    pub(crate) runs: Vec<(Run, Run)>,
}

/// One broker in one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Side {
    pub(crate) broker: &'static str,
    pub(crate) durability: &'static str,
    /// Messages in a second: received, or confirmed where nobody consumes.
    pub(crate) per_second: Spread,
    /// From send to confirmation, in milliseconds.
    pub(crate) confirm_p50_ms: Spread,
    pub(crate) confirm_p99_ms: Spread,
    /// From send to receipt, in milliseconds; zero where nobody consumes.
    pub(crate) end_to_end_p50_ms: Spread,
    pub(crate) end_to_end_p99_ms: Spread,
    /// Processor time of all its servers for one message, in microseconds.
    pub(crate) cpu_us_per_message: Spread,
    /// The same of the load.
    pub(crate) load_cpu_us_per_message: Spread,
    /// What other programs used of the machine's processors, from 0 to 1.
    pub(crate) others_share: Spread,
    /// Messages in all runs that were confirmed and not received; and that came twice or in another order.
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) out_of_order: u64,
}

impl Row {
    pub(crate) fn of(compared: Compared) -> Self {
        let Compared {
            scenario,
            pairs,
            problem,
        } = compared;
        let measure = scenario.measure;
        let ratio = pairs.iter().map(|(ours, peer)| match measure {
            Measure::EndToEndP99 => end_to_end_p99(peer) / end_to_end_p99(ours),
            _ => per_second(ours, measure) / per_second(peer, measure),
        });
        let p99_ratio = pairs.iter().map(|(ours, peer)| confirm_p99(peer) / confirm_p99(ours));
        Self {
            name: scenario.name,
            load: scenario.shape.words(),
            measure,
            ours: Side::of(scenario.ours, measure, pairs.iter().map(|pair| &pair.0)),
            peer: Side::of(scenario.peer, measure, pairs.iter().map(|pair| &pair.1)),
            ratio: Spread::of(ratio),
            confirm_p99_ratio: Spread::of(p99_ratio),
            target: scenario.target,
            problem,
            runs: pairs,
        }
    }
}

impl Side {
    fn of<'a>(kind: Kind, measure: Measure, runs: impl Iterator<Item = &'a Run>) -> Self {
        let runs: Vec<&Run> = runs.collect();
        let spread = |of: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(|run| of(run)));
        let total = |of: &dyn Fn(&Run) -> u64| runs.iter().map(|run| of(run)).sum();
        Self {
            broker: kind.name(),
            durability: kind.durability(),
            per_second: spread(&|run| per_second(run, measure)),
            confirm_p50_ms: spread(&|run| ms(run.report.confirm_latency.map(|latency| latency.p50_us))),
            confirm_p99_ms: spread(&confirm_p99),
            end_to_end_p50_ms: spread(&|run| ms(run.report.end_to_end_latency.map(|latency| latency.p50_us))),
            end_to_end_p99_ms: spread(&end_to_end_p99),
            cpu_us_per_message: spread(&|run| run.cpu_seconds * 1e6 / messages(run, measure)),
            load_cpu_us_per_message: spread(&|run| run.load_cpu_seconds * 1e6 / messages(run, measure)),
            others_share: spread(&|run| run.others_share),
            lost: total(&|run| run.report.lost.unwrap_or(0)),
            duplicates: total(&|run| run.report.duplicates),
            out_of_order: total(&|run| run.report.out_of_order),
        }
    }
}

/// One run in one line.
pub(crate) fn headline(run: &Run, measure: Measure) -> String {
    let confirm = run.report.confirm_latency.unwrap_or_default();
    let mut line = format!(
        "{:>9.0} msg/s, confirmed p50 {:.2} p99 {:.2} ms",
        per_second(run, measure),
        ms(Some(confirm.p50_us)),
        ms(Some(confirm.p99_us)),
    );
    if let Some(latency) = run.report.end_to_end_latency {
        line += &format!(
            ", received p50 {:.2} p99 {:.2} ms",
            ms(Some(latency.p50_us)),
            ms(Some(latency.p99_us))
        );
    }
    line += &format!(
        ", CPU {:.1} µs/msg (load {:.1})",
        run.cpu_seconds * 1e6 / messages(run, measure),
        run.load_cpu_seconds * 1e6 / messages(run, measure),
    );
    if run.others_share > OTHERS_SHARE_MAX {
        line += &format!(", others {:.0} %", run.others_share * 100.0);
    }
    let report = &run.report;
    let wrong = [
        ("lost", report.lost.unwrap_or(0)),
        ("unconfirmed", report.unconfirmed),
        ("duplicates", report.duplicates),
        ("out of order", report.out_of_order),
        ("foreign", report.foreign),
    ];
    for (what, count) in wrong.into_iter().filter(|(_, count)| *count > 0) {
        line += &format!(", {count} {what}");
    }
    line
}

fn per_second(run: &Run, measure: Measure) -> f64 {
    match measure {
        Measure::Confirmed => run.report.confirmed.per_second,
        Measure::Received | Measure::EndToEndP99 => run.report.received.per_second,
    }
}

fn messages(run: &Run, measure: Measure) -> f64 {
    per_second(run, measure) * run.report.measured_seconds
}

fn confirm_p99(run: &Run) -> f64 {
    ms(run.report.confirm_latency.map(|latency| latency.p99_us))
}

fn end_to_end_p99(run: &Run) -> f64 {
    ms(run.report.end_to_end_latency.map(|latency| latency.p99_us))
}

fn ms(us: Option<u64>) -> f64 {
    us.unwrap_or(0) as f64 / 1e3
}
