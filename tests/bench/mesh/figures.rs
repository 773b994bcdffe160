//! What a trial found, the table of all trials, and the checks over them: the cost per group must not grow faster than the
//! number of its neighbours.

use serde::Serialize;

use crate::{network::Cost, shape::Shape};

/// One trial's result.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) shape: Shape,
    pub(crate) groups: usize,
    pub(crate) links: usize,
    /// Simulated time until everybody knew everything, from the first link on.
    pub(crate) formed_ms: f64,
    /// Bytes of demand sent until then, by all groups.
    pub(crate) formed_bytes: u64,
    pub(crate) single: Single,
    pub(crate) burst: Burst,
    pub(crate) memory: Memory,
    pub(crate) hashes_per_group_s: f64,
    pub(crate) hash_bytes_per_group_s: f64,
    /// Real time that the trial took.
    pub(crate) wall_s: f64,
    pub(crate) violations: Vec<String>,
}

/// What one change costs that is alone. `_per_neighbour`: of the group for which it is worst, what it sends, hears and
/// computes, divided by the number of its neighbours.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Single {
    /// Sent by all groups together.
    pub(crate) deltas: f64,
    pub(crate) rows: f64,
    pub(crate) bytes: f64,
    pub(crate) cpu_us: f64,
    pub(crate) rows_per_neighbour: f64,
    pub(crate) bytes_per_neighbour: f64,
    pub(crate) cpu_us_per_neighbour: f64,
    /// Divided by its neighbours and the rows that its own node is told: a destination's rows are told together, so those
    /// of a destination that all groups want are as many as there are groups, even at the end of a line.
    pub(crate) cpu_us_per_neighbour_and_row: f64,
    /// Rows told to a node, of the group for which they are most.
    pub(crate) node_rows: f64,
    /// Simulated time until everybody knew.
    pub(crate) converged_ms_p50: f64,
    pub(crate) converged_ms_max: f64,
}

/// What one change of many costs.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Burst {
    pub(crate) changes: usize,
    pub(crate) deltas: f64,
    pub(crate) rows: f64,
    pub(crate) bytes: f64,
    pub(crate) cpu_us: f64,
    /// Simulated time from the last change on.
    pub(crate) converged_ms: f64,
}

/// What a group's mesh holds in memory.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Memory {
    pub(crate) kib_mean: f64,
    pub(crate) kib_worst: f64,
    /// Rows of other groups' demand that it has to know.
    pub(crate) rows_mean: f64,
    /// Of the group for which it is worst: bytes for each neighbour and for each group or row that there is to know of.
    pub(crate) bytes_per_neighbour_row: f64,
}

/// How much more a cost per neighbour may be among more groups. Paths in messages grow with the way.
const GROWTH_MAX: f64 = 1.5;
/// The same for processor time, which caches and neighbours on the machine disturb.
const CPU_GROWTH_MAX: f64 = 4.0;

impl Figures {
    pub(crate) fn new(shape: Shape, groups: usize) -> Self {
        Self {
            shape,
            groups,
            links: shape.links(groups),
            formed_ms: 0.0,
            formed_bytes: 0,
            single: Single::default(),
            burst: Burst::default(),
            memory: Memory::default(),
            hashes_per_group_s: 0.0,
            hash_bytes_per_group_s: 0.0,
            wall_s: 0.0,
            violations: Vec::new(),
        }
    }

    /// Costs per neighbour, by name, with the growth allowed.
    fn costs_per_neighbour(&self) -> [(&'static str, f64, f64); 5] {
        let hashes = self.hashes_per_group_s * self.groups as f64 / (2 * self.links) as f64;
        [
            ("rows per change", self.single.rows_per_neighbour, GROWTH_MAX),
            ("bytes per change", self.single.bytes_per_neighbour, GROWTH_MAX),
            (
                "processor time per change, told row",
                self.single.cpu_us_per_neighbour_and_row,
                CPU_GROWTH_MAX,
            ),
            ("memory per row", self.memory.bytes_per_neighbour_row, GROWTH_MAX),
            ("hashes per second", hashes, GROWTH_MAX),
        ]
    }
}

impl Single {
    /// From what each group has spent in each batch of changes, and the sorted times until all knew.
    pub(crate) fn new(shape: Shape, batches: &[Vec<Cost>], per_batch: usize, took_us: &[u64]) -> Self {
        let groups = batches.first().map_or(0, Vec::len);
        let changes = (per_batch * batches.len()).max(1) as f64;
        let all: Cost = batches.iter().flatten().copied().sum();
        let mut worst = Self::default();
        for group in 0..groups {
            let per = |of: &dyn Fn(&Cost) -> u64| {
                let neighbours = shape.neighbours(group, groups).max(1) as f64;
                let mut values: Vec<u64> = batches.iter().map(|batch| of(&batch[group])).collect();
                values.sort_unstable();
                let (sum, median) = (values.iter().sum::<u64>() as f64, values[values.len() / 2] as f64);
                (sum / changes / neighbours, median / per_batch as f64 / neighbours)
            };
            worst.rows_per_neighbour = worst.rows_per_neighbour.max(per(&|cost| cost.rows).0);
            worst.bytes_per_neighbour = worst.bytes_per_neighbour.max(per(&|cost| cost.bytes).0);
            let cpu_us = per(&|cost| cost.cpu_ns).1 / 1e3;
            let (neighbours, node_rows) = (
                shape.neighbours(group, groups).max(1) as f64,
                per(&|cost| cost.node_rows).0,
            );
            worst.cpu_us_per_neighbour = worst.cpu_us_per_neighbour.max(cpu_us);
            worst.node_rows = worst.node_rows.max(node_rows * neighbours);
            worst.cpu_us_per_neighbour_and_row = worst.cpu_us_per_neighbour_and_row.max(cpu_us / (1.0 + node_rows));
        }
        let at = |part: usize| took_us.get(part).copied().unwrap_or(0) as f64 / 1e3;
        Self {
            deltas: all.deltas_out as f64 / changes,
            rows: all.rows as f64 / 2.0 / changes,
            bytes: all.bytes as f64 / 2.0 / changes,
            cpu_us: all.cpu_ns as f64 / 1e3 / changes,
            converged_ms_p50: at(took_us.len() / 2),
            converged_ms_max: at(took_us.len().saturating_sub(1)),
            ..worst
        }
    }
}

impl Burst {
    pub(crate) fn new(cost: &Cost, changes: usize, converged_ms: f64) -> Self {
        let count = changes.max(1) as f64;
        Self {
            changes,
            deltas: cost.deltas_out as f64 / count,
            rows: cost.rows as f64 / 2.0 / count,
            bytes: cost.bytes as f64 / 2.0 / count,
            cpu_us: cost.cpu_ns as f64 / 1e3 / count,
            converged_ms,
        }
    }
}

impl Memory {
    /// From (bytes, rows to know, neighbours) of each group.
    pub(crate) fn new(held: &[(f64, usize, usize)]) -> Self {
        let groups = held.len().max(1) as f64;
        let per_row = |(bytes, rows, neighbours): &(f64, usize, usize)| {
            // Each group that is there is a row too.
            bytes / (*neighbours).max(1) as f64 / (*rows as f64 + groups)
        };
        Self {
            kib_mean: held.iter().map(|(bytes, ..)| bytes).sum::<f64>() / groups / 1024.0,
            kib_worst: held.iter().map(|(bytes, ..)| *bytes).fold(0.0, f64::max) / 1024.0,
            rows_mean: held.iter().map(|(_, rows, _)| *rows as f64).sum::<f64>() / groups,
            bytes_per_neighbour_row: held.iter().map(per_row).fold(0.0, f64::max),
        }
    }
}

/// Everything that is wrong, of each trial and between trials of one shape.
pub(crate) fn violations(all: &[Figures]) -> Vec<String> {
    let mut found = Vec::new();
    for figures in all {
        let name = format!("{} {}", figures.shape.name(), figures.groups);
        found.extend(
            figures
                .violations
                .iter()
                .map(|violation| format!("{name}: {violation}")),
        );
    }
    for shape in Shape::ALL {
        let trials: Vec<&Figures> = all.iter().filter(|figures| figures.shape == shape).collect();
        for pair in trials.windows(2) {
            let costs = pair[0]
                .costs_per_neighbour()
                .into_iter()
                .zip(pair[1].costs_per_neighbour());
            for ((what, few, growth_max), (_, many, _)) in costs {
                if many > few * growth_max {
                    found.push(format!(
                        "{}: {what} and neighbour grow from {few:.2} with {} groups to {many:.2} with {}",
                        shape.name(),
                        pair[0].groups,
                        pair[1].groups
                    ));
                }
            }
        }
    }
    found
}

/// The table for people.
pub(crate) fn print(all: &[Figures]) {
    println!(
        "One change alone: what all groups send and compute for it; of the worst group, per neighbour (n) of it, and rows that\nits own node is told; simulated time until all know."
    );
    println!(
        "{:>11} {:>7} {:>8} {:>8} {:>9} {:>9} | {:>7} {:>7} {:>8} {:>6} {:>9} | {:>8} {:>8}",
        "shape",
        "links",
        "deltas",
        "rows",
        "bytes",
        "cpu µs",
        "rows/n",
        "bytes/n",
        "cpu µs/n",
        "told",
        "µs/n+told",
        "p50 ms",
        "max ms"
    );
    for figures in all {
        let single = &figures.single;
        println!(
            "{:>6} {:>4} {:>7} {:>8.1} {:>8.1} {:>9.0} {:>9.1} | {:>7.2} {:>7.1} {:>8.2} {:>6.1} {:>9.2} | {:>8.1} {:>8.1}",
            figures.shape.name(),
            figures.groups,
            figures.links,
            single.deltas,
            single.rows,
            single.bytes,
            single.cpu_us,
            single.rows_per_neighbour,
            single.bytes_per_neighbour,
            single.cpu_us_per_neighbour,
            single.node_rows,
            single.cpu_us_per_neighbour_and_row,
            single.converged_ms_p50,
            single.converged_ms_max,
        );
    }
    println!();
    println!("Many changes in two seconds; memory; hashes while nothing changes; the beginning.");
    println!(
        "{:>11} {:>8} {:>8} {:>9} {:>9} {:>8} | {:>8} {:>8} {:>7} {:>8} | {:>8} {:>8} | {:>8} {:>10} {:>7}",
        "shape",
        "deltas",
        "rows",
        "bytes",
        "cpu µs",
        "conv ms",
        "mean KiB",
        "max KiB",
        "rows",
        "B/row/n",
        "hashes/s",
        "bytes/s",
        "form ms",
        "form bytes",
        "wall s"
    );
    for figures in all {
        let (burst, memory) = (&figures.burst, &figures.memory);
        println!(
            "{:>6} {:>4} {:>8.1} {:>8.1} {:>9.0} {:>9.1} {:>8.1} | {:>8.0} {:>8.0} {:>7.0} {:>8.0} | {:>8.1} {:>8.0} | {:>8.0} {:>10} {:>7.1}",
            figures.shape.name(),
            figures.groups,
            burst.deltas,
            burst.rows,
            burst.bytes,
            burst.cpu_us,
            burst.converged_ms,
            memory.kib_mean,
            memory.kib_worst,
            memory.rows_mean,
            memory.bytes_per_neighbour_row,
            figures.hashes_per_group_s,
            figures.hash_bytes_per_group_s,
            figures.formed_ms,
            figures.formed_bytes,
            figures.wall_s,
        );
    }
}
