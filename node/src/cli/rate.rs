//! Counting messages against the clock, with a bar on the terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::size;

/// Messages and bytes since the start.
#[derive(Debug)]
pub(crate) struct Rate {
    started: Instant,
    /// When the last messages were marked, and how many there were; the time after it is waiting.
    last: Instant,
    marked: u64,
    pub(crate) messages: u64,
    bytes: u64,
    bar: ProgressBar,
}

/// How often the bar is drawn anew, at most.
const DRAWS_PER_SECOND: u8 = 10;

impl Rate {
    /// A count that ends at `total`, or has no end. The bar is drawn only on a terminal, on standard error.
    pub(crate) fn new(total: Option<u64>, bar: bool) -> Self {
        let target = if bar {
            ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(total, target);
        let form = match total {
            Some(_) => "{bar:32} {human_pos} of {human_len}, {per_sec}, {eta} left",
            None => "{spinner} {human_pos}, {per_sec}",
        };
        bar.set_style(ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let now = Instant::now();
        Self {
            started: now,
            last: now,
            marked: 0,
            messages: 0,
            bytes: 0,
            bar,
        }
    }

    pub(crate) fn count(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
        // The clock and the bar are looked at now and then only.
        if self.messages.is_multiple_of(64) {
            self.bar.set_position(self.messages);
        }
    }

    /// The work has got this far; call it where it may be the last time. Without news it changes nothing.
    pub(crate) fn mark(&mut self) {
        if self.messages > self.marked {
            self.marked = self.messages;
            self.last = Instant::now();
        }
        self.bar.set_position(self.messages);
    }

    /// The work ends now, whenever the last message was counted.
    pub(crate) fn end(&mut self) {
        self.last = Instant::now();
        self.bar.set_position(self.messages);
    }

    /// A line above the bar, on standard error.
    pub(crate) fn tell(&self, line: String) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.last - self.started
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed().as_secs_f64().max(1e-9)
    }

    /// `10000 messages (9.8 MiB) in 0.52 s: 19230 messages/s, 18.8 MiB/s`
    pub(crate) fn summary(&self) -> String {
        let seconds = self.elapsed().as_secs_f64().max(1e-9);
        format!(
            "{} messages ({}) in {seconds:.2} s: {:.0} messages/s, {}/s",
            self.messages,
            size(self.bytes),
            self.per_second(),
            size((self.bytes as f64 / seconds) as u64)
        )
    }
}
