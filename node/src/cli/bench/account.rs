//! The result of a run, for people and for programs.

use std::fmt::Write;

use ferrymq_bench::{Latency, Report};
use serde_json::{Value, json};

use super::{
    nodes::{Cost, Readings, costs},
    place::Place,
};
use crate::cli::output::{Table, size};

/// A report with what it cost.
pub(super) struct Account<'a> {
    place: &'a str,
    report: &'a Report,
    costs: Vec<Cost>,
}

impl<'a> Account<'a> {
    pub(super) fn new(place: &'a Place, report: &'a Report, readings: &[Readings; 2]) -> Self {
        let messages = if report.load.producers > 0 {
            report.confirmed
        } else {
            report.received
        };
        Self {
            place: &place.told,
            report,
            costs: costs(readings, messages.per_second),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "place": self.place, "report": self.report, "costs": self.costs })
    }

    pub(super) fn table(&self) -> String {
        let parts = [
            self.heading(),
            self.counts(),
            self.latencies(),
            self.flaws(),
            self.costs(),
        ];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("\n")
    }

    fn heading(&self) -> String {
        let load = &self.report.load;
        let mut text = format!("{}\n", self.place);
        let _ = write!(
            text,
            "{} producers, {} consumers, {} bytes, {}, {} {}, ",
            load.producers,
            load.consumers,
            load.size,
            if load.persistent {
                "persistent"
            } else {
                "non-persistent"
            },
            load.destinations,
            match (load.topic, load.destinations) {
                (false, 1) => "queue",
                (false, _) => "queues",
                (true, 1) => "topic",
                (true, _) => "topics",
            },
        );
        let _ = match load.rate {
            Some(rate) => write!(text, "{rate} messages/s in windows of {}", load.window),
            None => write!(text, "windows of {}", load.window),
        };
        if load.transaction > 0 {
            let _ = write!(text, ", transactions of {}", load.transaction);
        }
        let _ = writeln!(text, "; measured for {:.1} s", self.report.measured_seconds);
        text
    }

    fn counts(&self) -> String {
        let (load, report) = (&self.report.load, self.report);
        let mut table = Table::new(&["", "MESSAGES", "PER SECOND", "BODIES"]);
        let rows = [
            ("sent", report.sent, load.producers),
            ("confirmed", report.confirmed, load.producers),
            ("received", report.received, load.consumers),
        ];
        for (name, count, who) in rows {
            if who > 0 {
                let bytes = count.per_second * load.size as f64;
                table.row(vec![
                    name.to_owned(),
                    count.messages.to_string(),
                    format!("{:.0}", count.per_second),
                    format!("{}/s", size(bytes as u64)),
                ]);
            }
        }
        table.to_string()
    }

    fn latencies(&self) -> String {
        let mut table = Table::new(&["LATENCY, ms", "P50", "P90", "P99", "P99.9", "MAX"]);
        let rows = [
            ("send to confirm", self.report.confirm_latency),
            ("end to end", self.report.end_to_end_latency),
        ];
        for (name, latency) in rows {
            if let Some(latency) = latency {
                table.row(latency_row(name, &latency));
            }
        }
        if table.is_empty() {
            String::new()
        } else {
            table.to_string()
        }
    }

    /// One line, or nothing where nothing was to be found wrong.
    fn flaws(&self) -> String {
        let report = self.report;
        let mut told = Vec::new();
        if let Some(lost) = report.lost {
            told.push(format!("{lost} lost"));
        }
        if report.load.consumers > 0 && report.load.producers > 0 {
            told.push(format!("{} doubled", report.duplicates));
            told.push(format!("{} out of order", report.out_of_order));
        }
        let rare = [
            (report.unconfirmed, "never confirmed"),
            (report.unsent, "due and not sent in time"),
            (report.foreign, "not from this load"),
        ];
        let rare = rare.into_iter().filter(|(count, _)| *count > 0);
        told.extend(rare.map(|(count, what)| format!("{count} {what}")));
        if told.is_empty() {
            return String::new();
        }
        let mut line = told.join(", ");
        if report.drain_seconds >= 0.1 {
            let _ = write!(line, "; {:.1} s until all had arrived", report.drain_seconds);
        }
        format!("{line}\n")
    }

    fn costs(&self) -> String {
        let mut table = Table::new(&[
            "NODE",
            "ROLE",
            "CPU",
            "PER MESSAGE",
            "WRITTEN PER MESSAGE",
            "SYNCS/S",
            "MEMORY",
        ]);
        for cost in &self.costs {
            let per_message = |value: Option<f64>, unit: &str| or_dash(value.map(|value| format!("{value:.1} {unit}")));
            let written = cost.bytes_written_per_message.map(|bytes| {
                let times = bytes / self.report.load.size as f64;
                format!("{bytes:.0} B ({times:.2} x body)")
            });
            table.row(vec![
                cost.name.clone(),
                cost.role.clone(),
                or_dash(cost.cpus.map(|cpus| format!("{:.0} %", cpus * 100.0))),
                per_message(cost.cpu_us_per_message, "us"),
                or_dash(written),
                or_dash(cost.syncs_per_second.map(|syncs| format!("{syncs:.0}"))),
                or_dash(cost.rss_bytes.map(size)),
            ]);
        }
        table.to_string()
    }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn latency_row(name: &str, latency: &Latency) -> Vec<String> {
    let percentiles = [
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p999_us,
        latency.max_us,
    ];
    let cells = percentiles.map(|micros| format!("{:.2}", micros as f64 / 1e3));
    [name.to_owned()].into_iter().chain(cells).collect()
}

#[cfg(test)]
mod tests {
    use ferrymq_bench::{Load, report::Count};

    use super::*;

    fn report() -> Report {
        let count = |messages| Count {
            messages,
            per_second: messages as f64 / 10.0,
        };
        Report {
            load: Load {
                transaction: 5,
                ..Load::default()
            },
            measured_seconds: 10.0,
            sent: count(20_010),
            confirmed: count(20_000),
            received: count(19_990),
            confirm_latency: Some(Latency {
                messages: 20_000,
                mean_us: 1600.0,
                p50_us: 1500,
                p90_us: 2500,
                p99_us: 9000,
                p999_us: 20_000,
                max_us: 30_250,
            }),
            end_to_end_latency: None,
            unsent: 0,
            unconfirmed: 0,
            lost: Some(0),
            duplicates: 2,
            out_of_order: 0,
            foreign: 7,
            drain_seconds: 1.5,
            samples: Vec::new(),
        }
    }

    #[test]
    fn a_person_reads_what_was_asked_measured_and_paid() {
        let report = report();
        let account = Account {
            place: "here",
            report: &report,
            costs: vec![Cost {
                name: "north1".to_owned(),
                role: "master".to_owned(),
                cpus: Some(0.5),
                cpu_us_per_message: Some(250.0),
                bytes_written_per_message: Some(1126.4),
                syncs_per_second: None,
                rss_bytes: Some(3 << 20),
            }],
        };
        assert_eq!(
            account.table(),
            "here\n\
             1 producers, 1 consumers, 1024 bytes, persistent, 1 queue, windows of 1, transactions of 5; measured for \
             10.0 s\n\
             \n           MESSAGES  PER SECOND  BODIES\n\
             sent       20010     2001        2.0 MiB/s\n\
             confirmed  20000     2000        2.0 MiB/s\n\
             received   19990     1999        2.0 MiB/s\n\
             \n\
             LATENCY, ms      P50   P90   P99   P99.9  MAX\n\
             send to confirm  1.50  2.50  9.00  20.00  30.25\n\
             \n\
             0 lost, 2 doubled, 0 out of order, 7 not from this load; 1.5 s until all had arrived\n\
             \n\
             NODE    ROLE    CPU   PER MESSAGE  WRITTEN PER MESSAGE   SYNCS/S  MEMORY\n\
             north1  master  50 %  250.0 us     1126 B (1.10 x body)  -        3.0 MiB\n"
        );
        let json = account.json();
        assert_eq!(json["report"]["confirmed"]["messages"], 20_000);
        assert_eq!(json["costs"][0]["cpu_us_per_message"], 250.0);
    }

    #[test]
    fn producing_alone_owes_nothing_to_consumers() {
        let mut report = report();
        report.load.consumers = 0;
        (report.lost, report.foreign) = (None, 0);
        let account = Account {
            place: "here",
            report: &report,
            costs: Vec::new(),
        };
        let text = account.table();
        assert!(!text.contains("received") && !text.contains("lost"), "{text}");
    }
}
