//! The account at the end: what was promised, what was seen, and whether they agree.

use std::time::Duration;

use serde_json::{Value, json};

use super::{DemoArgs, faults::Kill, ledger::Counts, traffic::Traffic};

/// See the module.
#[derive(Debug)]
pub(super) struct Report {
    messages: u64,
    size: u32,
    discovery: String,
    sent: u64,
    acknowledged: u64,
    refused: u64,
    counts: Counts,
    kills: Vec<Kill>,
    took: Duration,
    delivering: Duration,
    longest_pause: Duration,
    finished: bool,
}

impl Report {
    pub(super) fn new(args: &DemoArgs, traffic: &Traffic, kills: Vec<Kill>, took: Duration, finished: bool) -> Self {
        Self {
            messages: args.messages,
            size: args.size,
            discovery: format!("{:?}", args.discovery).to_lowercase(),
            sent: traffic.sent(),
            acknowledged: traffic.acknowledged(),
            refused: traffic.refused(),
            counts: traffic.counts(),
            kills,
            took,
            delivering: traffic.delivering(),
            longest_pause: traffic.longest_pause(),
            finished,
        }
    }

    /// Acknowledged and never delivered. Exact once everything is drained, otherwise what is still under way counts too.
    fn lost(&self) -> u64 {
        self.acknowledged.saturating_sub(self.counts.received)
    }

    /// Whether every promise was kept, within the time.
    pub(super) fn kept(&self) -> bool {
        let Counts {
            doubled,
            damaged,
            disordered,
            ..
        } = self.counts;
        self.finished && self.lost() == 0 && doubled == 0 && damaged == 0 && disordered == 0
    }

    fn per_second(&self) -> u64 {
        let seconds = self.delivering.as_secs_f64();
        if seconds > 0.0 {
            (self.counts.received as f64 / seconds) as u64
        } else {
            0
        }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let counts = &self.counts;
        let mut rows = vec![
            ("sent", self.sent, ""),
            ("acknowledged", self.acknowledged, "stored by a majority of north (P1)"),
            ("received", counts.received, "different messages, at south"),
            (
                "lost",
                self.lost(),
                if self.finished {
                    "acknowledged, never received (P2)"
                } else {
                    "or still under way"
                },
            ),
            (
                "doubled",
                counts.doubled,
                "after a confirmed acknowledgement, or without the mark (P3, P4, P5)",
            ),
            (
                "out of order",
                counts.disordered,
                "first received after a later one (P6)",
            ),
            ("damaged", counts.damaged, "unknown, or with another body (P9)"),
            (
                "redelivered",
                counts.redelivered,
                "marked as such, as they must be after a failure (P3)",
            ),
        ];
        if self.refused > 0 {
            rows.push((
                "refused",
                self.refused,
                "sends that the broker did not take, and said so",
            ));
        }
        let mut text = String::from("\n");
        for (name, number, meaning) in rows {
            text += &format!("{name:>14} {number:>12}   {meaning}\n");
        }
        for kill in &self.kills {
            text += &format!("{:>14}   {}\n", kill.group, kill.told());
        }
        text += &format!(
            "{:>14}   {} ms without a delivery\n",
            "longest pause",
            self.longest_pause.as_millis()
        );
        text += &format!(
            "{:>14}   {:.1} s, {} messages of {} bytes a second\n",
            "took",
            self.took.as_secs_f64(),
            self.per_second(),
            self.size
        );
        text += match (self.kept(), self.finished) {
            (true, _) => "\nEvery promise was kept.\n",
            (false, true) => "\nA PROMISE WAS BROKEN.\n",
            (false, false) => "\nTHE TIME WAS UP before every message was accounted for.\n",
        };
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let counts = &self.counts;
        let ms = |time: Duration| time.as_millis() as u64;
        json!({
            "messages": self.messages,
            "size_bytes": self.size,
            "discovery": self.discovery,
            "sent": self.sent,
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "received": counts.received,
            "lost": self.lost(),
            "doubled": counts.doubled,
            "out_of_order": counts.disordered,
            "damaged": counts.damaged,
            "redelivered": counts.redelivered,
            "kills": self.kills.iter().map(|kill| json!({
                "group": kill.group,
                "killed": kill.killed,
                "successor": kill.successor,
                "elected_ms": ms(kill.elected),
                "first_acknowledged_send_ms": kill.sends.map(ms),
                "first_delivery_ms": kill.deliveries.map(ms),
            })).collect::<Vec<_>>(),
            "longest_pause_ms": ms(self.longest_pause),
            "took_ms": ms(self.took),
            "messages_per_second": self.per_second(),
            "finished": self.finished,
            "kept": self.kept(),
        })
    }
}
