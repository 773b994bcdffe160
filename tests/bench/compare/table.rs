//! The rows as a table, for a terminal or for a Markdown file.

use crate::{
    conditions::Conditions,
    scenario::Measure,
    spread::Spread,
    summary::{OTHERS_SHARE_MAX, Row},
};

/// How the table is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Columns of even width.
    Text,
    /// To be pasted into a document.
    Markdown,
}

/// From fewer pairs nothing is said about a target.
const PAIRS_MIN: usize = 5;

const HEAD: [&str; 9] = [
    "Scenario",
    "Load",
    "Ours",
    "Peer",
    "Ratio",
    "Target",
    "Confirmed p50 / p99 ms",
    "Received p50 / p99 ms",
    "CPU µs/msg",
];

/// The whole answer: conditions, one table for each pair of brokers, and what went wrong.
pub(crate) fn draw(rows: &[Row], conditions: &Conditions, form: Form) -> String {
    let mut text = String::new();
    for line in conditions.lines() {
        text += &match form {
            Form::Text => format!("{line}\n"),
            Form::Markdown => format!("- {line}\n"),
        };
    }
    let same_sides = |one: &Row, other: &Row| {
        (one.ours.durability, one.peer.durability) == (other.ours.durability, other.peer.durability)
    };
    for set in rows.chunk_by(same_sides) {
        let Some(first) = set.first() else { continue };
        let sides = [&first.ours, &first.peer].map(|side| format!("{}: {}", side.broker, side.durability));
        text += &match form {
            Form::Text => format!("\n{}\n{}\n", sides[0], sides[1]),
            Form::Markdown => format!("\n{}.\n{}.\n\n", sides[0], sides[1]),
        };
        let cells: Vec<[String; 9]> = set.iter().map(cells).collect();
        text += &match form {
            Form::Text => columns(&cells),
            Form::Markdown => markdown(&cells),
        };
        for row in set {
            for remark in remarks(row) {
                text += &format!(
                    "{}{}: {remark}\n",
                    if form == Form::Markdown { "\n" } else { "" },
                    row.name
                );
            }
        }
    }
    text += "\nMedians with [least – greatest]. The ratio is that of the two runs of a pair, above 1 where we are ahead; \
             where a rate is given, it is the ratio of the received p99. Latencies and CPU: ours | peer; CPU is of all \
             servers together.\n";
    text
}

fn cells(row: &Row) -> [String; 9] {
    if row.runs.is_empty() {
        let mut cells = [const { String::new() }; 9];
        cells[0] = row.name.to_owned();
        cells[1] = row.load.clone();
        cells[2] = "–".to_owned();
        return cells;
    }
    let (ours, peer) = (&row.ours, &row.peer);
    let both = |p50: fn(&crate::summary::Side) -> Spread, p99: fn(&crate::summary::Side) -> Spread| {
        let side = |side| format!("{} / {}", brief(p50(side).median), brief(p99(side).median));
        if p99(ours).median == 0.0 {
            return "–".to_owned();
        }
        format!("{} | {}", side(ours), side(peer))
    };
    [
        row.name.to_owned(),
        row.load.clone(),
        thousands(ours.per_second),
        thousands(peer.per_second),
        format!("{:.2} [{:.2} – {:.2}]", row.ratio.median, row.ratio.min, row.ratio.max),
        target(row),
        both(|side| side.confirm_p50_ms, |side| side.confirm_p99_ms),
        both(|side| side.end_to_end_p50_ms, |side| side.end_to_end_p99_ms),
        format!(
            "{} | {}",
            brief(ours.cpu_us_per_message.median),
            brief(peer.cpu_us_per_message.median)
        ),
    ]
}

fn target(row: &Row) -> String {
    if row.target == 0.0 {
        return "–".to_owned();
    }
    if row.runs.len() < PAIRS_MIN {
        return format!("{}", row.target);
    }
    let reached = if row.ratio.median >= row.target {
        "reached"
    } else {
        "missed"
    };
    format!("{} {reached}", row.target)
}

/// What a reader must know beside the figures.
fn remarks(row: &Row) -> Vec<String> {
    let mut remarks: Vec<String> = row.problem.iter().cloned().collect();
    for side in [&row.ours, &row.peer] {
        let counts = [
            ("lost", side.lost),
            ("received twice", side.duplicates),
            ("out of order", side.out_of_order),
        ];
        let wrong = counts.iter().filter(|(_, count)| *count > 0);
        let words: Vec<String> = wrong.map(|(what, count)| format!("{count} {what}")).collect();
        if !words.is_empty() {
            remarks.push(format!("{}: {}", side.broker, words.join(", ")));
        }
        let others = side.others_share;
        if others.median > OTHERS_SHARE_MAX {
            remarks.push(format!(
                "other programs used {:.0} % of the machine beside {} [{:.0} – {:.0}]",
                others.median * 100.0,
                side.broker,
                others.min * 100.0,
                others.max * 100.0
            ));
        }
    }
    if row.measure == Measure::Received && !row.runs.is_empty() && row.confirm_p99_ratio.median < 1.0 {
        remarks.push(format!(
            "our confirmed p99 is higher: the peer's is {:.2} of it [{:.2} – {:.2}]",
            row.confirm_p99_ratio.median, row.confirm_p99_ratio.min, row.confirm_p99_ratio.max
        ));
    }
    remarks
}

/// `12.3k [11.0 – 13.1]`.
fn thousands(spread: Spread) -> String {
    let k = |value: f64| brief(value / 1e3);
    format!("{}k [{} – {}]", k(spread.median), k(spread.min), k(spread.max))
}

/// About three digits.
fn brief(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn columns(rows: &[[String; 9]]) -> String {
    let head = HEAD.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for row in all() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn markdown(rows: &[[String; 9]]) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "·")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = line(&HEAD.map(str::to_owned));
    text += &format!("|{}\n", "---|".repeat(HEAD.len()));
    rows.iter().for_each(|row| text += &line(row));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_about_three_digits() {
        let spread = Spread {
            median: 12_345.0,
            min: 999.0,
            max: 123_456.0,
        };
        assert_eq!(thousands(spread), "12.3k [1.00 – 123]");
    }

    #[test]
    fn columns_are_even() {
        let row = |first: &str| std::array::from_fn(|at| if at == 0 { first.to_owned() } else { "µ".to_owned() });
        let text = columns(&[row("a"), row("a long name")]);
        let at = |line: &str| line.chars().position(|c| c == 'µ');
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(at(lines[0]), at(lines[1]));
        assert!(
            markdown(&[row("a")])
                .lines()
                .all(|line| line.matches('|').count() == HEAD.len() + 1)
        );
    }
}
