//! The run while it goes on: a line on the terminal, on standard error.

use std::io::{IsTerminal, stderr};

use ferrymq_bench::{Latency, Load, Phase, Sample};
use indicatif::{ProgressBar, ProgressStyle};

/// A bar for the time, and the figures of the last second; nothing where no person is looking.
pub(super) struct Screen {
    bar: Option<ProgressBar>,
}

impl Screen {
    pub(super) fn new(load: &Load) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let (length, form) = match load.messages_max {
                // How long it will take is not known.
                Some(_) => (0, "{spinner} {elapsed} {msg}"),
                None => ((load.warm_up + load.duration).as_millis(), "{bar:24} {elapsed} {msg}"),
            };
            let style = ProgressStyle::with_template(form).expect("the template is a good one");
            ProgressBar::new(u64::try_from(length).unwrap_or(u64::MAX)).with_style(style)
        });
        Self { bar }
    }

    pub(super) fn show(&self, sample: &Sample) {
        let Some(bar) = &self.bar else { return };
        let millis = (sample.to_seconds * 1e3) as u64;
        match bar.length() {
            Some(length) if length > 0 => bar.set_position(millis.min(length)),
            _ => bar.tick(),
        }
        bar.set_message(line(sample));
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(sample: &Sample) -> String {
    let phase = match sample.phase {
        Phase::WarmUp => "warming up",
        Phase::Measuring => "measuring",
        Phase::Draining => "draining",
    };
    let latency = |name, latency: Option<Latency>| {
        latency.map_or(String::new(), |latency| {
            let millis = |micros| micros as f64 / 1e3;
            format!(
                "; {name} p50 {:.1} p99 {:.1} ms",
                millis(latency.p50_us),
                millis(latency.p99_us)
            )
        })
    };
    format!(
        "{phase}: {:.0}/s confirmed, {:.0}/s received{}{}",
        sample.confirmed_per_second,
        sample.received_per_second,
        latency("confirm", sample.confirm_latency),
        latency("end to end", sample.end_to_end_latency),
    )
}
