//! The picture of a run: throughput and latency over time, as SVG.
//!
//! Two panels one above the other share the time axis. Throughput is linear from 0; latency is logarithmic, since its
//! percentiles lie decades apart. What was not measured (warm-up, drain) has a grey ground.

use std::fmt::Write;

use crate::report::{Latency, Phase, Report, Sample};

/// Draws the run.
pub fn svg(report: &Report) -> String {
    let end = report.samples.last().map_or(1.0, |sample| sample.to_seconds).max(1e-3);
    let mut picture = Picture {
        out: String::new(),
        end,
        sample_seconds_min: (report.load.sample_every.as_secs_f64() / 2.0).min(end / 10.0),
    };
    picture.begin(report);
    let throughput = Panel::throughput(report);
    let latency = Panel::latency(report);
    for panel in [&throughput, &latency] {
        picture.panel(panel, &report.samples);
    }
    picture.time_axis();
    picture.out.push_str("</svg>\n");
    picture.out
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 620.0;
/// Where the panels begin and end, from the left.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 780.0;

/// Colours that differ in lightness too.
const BLUE: &str = "#1b6ca8";
const GREEN: &str = "#4aa564";
const RED: &str = "#c8412b";
const ORANGE: &str = "#e39b2d";

/// A line of a panel.
struct Line {
    name: &'static str,
    colour: &'static str,
    dashed: bool,
    /// A value for each sample; none where there was nothing.
    values: Vec<Option<f64>>,
}

struct Panel {
    title: &'static str,
    top: f64,
    bottom: f64,
    lines: Vec<Line>,
    /// The values at the bottom and at the top.
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Where the axis has marks, and what they say.
    marks: Vec<(f64, String)>,
}

struct Picture {
    out: String,
    /// The end of the time axis, in seconds.
    end: f64,
    /// Shorter samples are not drawn.
    sample_seconds_min: f64,
}

impl Panel {
    fn throughput(report: &Report) -> Self {
        let line = |name, colour, dashed, value: fn(&Sample) -> f64| Line {
            name,
            colour,
            dashed,
            values: report.samples.iter().map(|sample| Some(value(sample))).collect(),
        };
        let mut lines = Vec::new();
        if report.load.producers > 0 {
            lines.push(line("confirmed", BLUE, false, |s| s.confirmed_per_second));
        }
        if report.load.consumers > 0 {
            lines.push(line("received", ORANGE, true, |s| s.received_per_second));
        }
        let (_, highest) = span(&lines);
        let step = round_step(highest / 4.0);
        let high = (highest / step).ceil().max(1.0) * step;
        let marks = (0..).map(|at| f64::from(at) * step);
        let marks = marks.take_while(|value| *value <= high * 1.0001);
        Self {
            title: "messages per second",
            top: 84.0,
            bottom: 300.0,
            lines,
            low: 0.0,
            high,
            logarithmic: false,
            marks: marks.map(|value| (value, mark(value, high))).collect(),
        }
    }

    fn latency(report: &Report) -> Self {
        type Kind = fn(&Sample) -> Option<Latency>;
        let line = |name, colour, dashed, kind: Kind, value: fn(&Latency) -> u64| Line {
            name,
            colour,
            dashed,
            values: report
                .samples
                .iter()
                .map(|sample| kind(sample).map(|latency| value(&latency).max(1) as f64))
                .collect(),
        };
        let mut lines = Vec::new();
        if report.load.producers > 0 {
            let kind: Kind = |sample| sample.confirm_latency;
            lines.push(line("p99 to confirm", RED, false, kind, |l| l.p99_us));
            lines.push(line("p50 to confirm", BLUE, false, kind, |l| l.p50_us));
        }
        if report.load.producers > 0 && report.load.consumers > 0 {
            let kind: Kind = |sample| sample.end_to_end_latency;
            lines.push(line("p99 end to end", ORANGE, true, kind, |l| l.p99_us));
            lines.push(line("p50 end to end", GREEN, true, kind, |l| l.p50_us));
        }
        let (lowest, highest) = span(&lines);
        let low = 10f64.powf(lowest.clamp(1.0, 1e9).log10().floor());
        let high = 10f64.powf(highest.clamp(1.0, 1e9).log10().ceil()).max(low * 10.0);
        let marks = (0..).map(|at| low * 10f64.powi(at));
        let marks = marks.take_while(|value| *value <= high * 1.0001);
        Self {
            title: "latency (logarithmic)",
            top: 350.0,
            bottom: 566.0,
            lines,
            low,
            high,
            logarithmic: true,
            marks: marks.map(|value| (value, duration(value))).collect(),
        }
    }

    /// From the top of the picture.
    fn y(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.bottom - share.clamp(0.0, 1.0) * (self.bottom - self.top)
    }
}

impl Picture {
    fn begin(&mut self, report: &Report) {
        let load = &report.load;
        let _ = writeln!(
            self.out,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="13" fill="#222">"##
        );
        let _ = writeln!(self.out, r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>"##);
        let kind = if load.topic { "topic" } else { "queue" };
        let persistent = if load.persistent {
            "persistent"
        } else {
            "non-persistent"
        };
        let pace = match load.rate {
            Some(rate) => format!("at {} messages/s", count(rate)),
            None => format!("window {}", load.window),
        };
        let title = format!(
            "{} producers, {} consumers, {} bytes, {persistent}, {kind}, {pace}",
            load.producers, load.consumers, load.size
        );
        self.text(LEFT, 28.0, "start", r##" font-size="16" font-weight="600""##, &title);
        let mut figures = Vec::new();
        if load.producers > 0 {
            figures.push(format!("{} confirmed/s", count(report.confirmed.per_second)));
        }
        if load.consumers > 0 {
            figures.push(format!("{} received/s", count(report.received.per_second)));
        }
        let latencies = [
            ("to confirm", report.confirm_latency),
            ("end to end", report.end_to_end_latency),
        ];
        for (name, latency) in latencies {
            if let Some(latency) = latency {
                let (p50, p99) = (duration(latency.p50_us as f64), duration(latency.p99_us as f64));
                figures.push(format!("{name} p50 {p50}, p99 {p99}"));
            }
        }
        self.text(LEFT, 50.0, "start", r##" fill="#555""##, &figures.join(" · "));
    }

    fn panel(&mut self, panel: &Panel, samples: &[Sample]) {
        self.text(LEFT, panel.top - 10.0, "start", r##" font-weight="600""##, panel.title);
        self.ground(panel, samples);
        for (value, name) in &panel.marks {
            let y = panel.y(*value);
            let _ = writeln!(
                self.out,
                r##"<path d="M{LEFT} {y:.1}H{RIGHT}" stroke="#ddd" fill="none"/>"##
            );
            self.text(LEFT - 8.0, y + 4.0, "end", r##" fill="#555""##, name);
        }
        for line in &panel.lines {
            self.line(panel, line, samples);
        }
        self.legend(panel);
    }

    /// Grey where nothing was measured.
    fn ground(&mut self, panel: &Panel, samples: &[Sample]) {
        for (phase, name) in [(Phase::WarmUp, "warm-up"), (Phase::Draining, "drain")] {
            let mut part = samples.iter().filter(|sample| sample.phase == phase);
            let Some(first) = part.next() else { continue };
            let last = part.next_back().unwrap_or(first);
            let (from, to) = (self.x(first.from_seconds), self.x(last.to_seconds));
            let (width, height) = (to - from, panel.bottom - panel.top);
            let _ = writeln!(
                self.out,
                r##"<rect x="{from:.1}" y="{}" width="{width:.1}" height="{height}" fill="#f1f1f1"/>"##,
                panel.top
            );
            if width > 50.0 {
                self.text(
                    from + 6.0,
                    panel.top + 16.0,
                    "start",
                    r##" fill="#888" font-size="11""##,
                    name,
                );
            }
        }
    }

    /// One polyline for each unbroken row of values; each value stands in the middle of its sample.
    fn line(&mut self, panel: &Panel, line: &Line, samples: &[Sample]) {
        let mut path = String::new();
        let mut drawing = false;
        for (sample, value) in samples.iter().zip(&line.values) {
            // A few messages at the end of a phase make no rate.
            let is_whole = sample.to_seconds - sample.from_seconds > self.sample_seconds_min;
            let Some(value) = value.filter(|_| is_whole) else {
                drawing = false;
                continue;
            };
            let x = self.x((sample.from_seconds + sample.to_seconds) / 2.0);
            let _ = write!(path, "{}{x:.1} {:.1}", if drawing { 'L' } else { 'M' }, panel.y(value));
            // A point without neighbours is to be seen as well.
            if !drawing {
                path.push_str("h0.1");
            }
            drawing = true;
        }
        let dashes = if line.dashed {
            r##" stroke-dasharray="6 3""##
        } else {
            ""
        };
        let _ = writeln!(
            self.out,
            r##"<path d="{path}" stroke="{}" stroke-width="2" stroke-linejoin="round" stroke-linecap="round" fill="none"{dashes}/>"##,
            line.colour
        );
    }

    fn legend(&mut self, panel: &Panel) {
        let (from, to) = (RIGHT + 16.0, RIGHT + 44.0);
        for (at, line) in panel.lines.iter().enumerate() {
            let y = panel.top + 12.0 + at as f64 * 22.0;
            let dashes = if line.dashed {
                r##" stroke-dasharray="6 3""##
            } else {
                ""
            };
            let _ = writeln!(
                self.out,
                r##"<path d="M{from} {y}H{to}" stroke="{}" stroke-width="2" fill="none"{dashes}/>"##,
                line.colour
            );
            self.text(to + 8.0, y + 4.0, "start", "", line.name);
        }
    }

    fn time_axis(&mut self) {
        let (top, step) = (566.0, round_step(self.end / 8.0));
        let mut at = 0.0;
        while at <= self.end * 1.0001 {
            let x = self.x(at);
            let _ = writeln!(self.out, r##"<path d="M{x:.1} {top}v6" stroke="#888" fill="none"/>"##);
            self.text(x, top + 20.0, "middle", r##" fill="#555""##, &plain(at));
            at += step;
        }
        let middle = (LEFT + RIGHT) / 2.0;
        self.text(middle, top + 40.0, "middle", r##" fill="#555""##, "seconds");
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (seconds / self.end).clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, style: &str, text: &str) {
        let _ = writeln!(
            self.out,
            r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}"{style}>{text}</text>"##
        );
    }
}

/// The smallest and the largest value.
fn span(lines: &[Line]) -> (f64, f64) {
    let values = lines.iter().flat_map(|line| line.values.iter().flatten());
    let (low, high) = values.fold((f64::MAX, 0.0), |(low, high): (f64, f64), value| {
        (low.min(*value), high.max(*value))
    });
    (low.min(high), high)
}

/// 1, 2 or 5 times a power of ten: the next above `step`.
fn round_step(step: f64) -> f64 {
    let decade = 10f64.powf(step.max(1e-3).log10().floor());
    let fits = [1.0, 2.0, 5.0].into_iter().map(|factor| factor * decade);
    fits.into_iter().find(|fit| *fit >= step).unwrap_or(10.0 * decade)
}

/// Of an axis up to `high`, whose marks have the same unit.
fn mark(value: f64, high: f64) -> String {
    if (1e4..1e6).contains(&high) && value > 0.0 {
        format!("{}k", plain(value / 1e3))
    } else {
        count(value)
    }
}

/// `12.5k`
fn count(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", plain(value / 1e6)),
        1e4.. => format!("{}k", plain(value / 1e3)),
        _ => plain(value),
    }
}

/// From microseconds: `1.5 ms`
fn duration(micros: f64) -> String {
    match micros {
        1e6.. => format!("{} s", plain(micros / 1e6)),
        1e3.. => format!("{} ms", plain(micros / 1e3)),
        _ => format!("{} µs", plain(micros)),
    }
}

/// Three digits that mean something, and no zeros behind the point.
fn plain(value: f64) -> String {
    let text = match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let counts = [0.0, 2.5, 9999.0, 12_345.0, 2_000_000.0].map(count);
        assert_eq!(counts, ["0", "2.5", "9999", "12.3k", "2M"]);
        let durations = [1.0, 250.0, 1500.0, 20_000_000.0].map(duration);
        assert_eq!(durations, ["1 µs", "250 µs", "1.5 ms", "20 s"]);
        assert_eq!(
            [0.0, 5000.0, 10_000.0].map(|value| mark(value, 1e4)),
            ["0", "5k", "10k"]
        );
        assert_eq!(mark(500.0, 1500.0), "500");
        assert_eq!([0.3, 3.0, 12.0, 1000.0].map(round_step), [0.5, 5.0, 20.0, 1000.0]);
    }
}
