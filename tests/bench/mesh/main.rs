//! `mesh-scale`: demand among 10, 100 and 1,000 groups. The routing and demand code of `ferrymq-forwarding` runs as it is,
//! over a network that is simulated; consumers churn; the cost per group and neighbour is measured and checked.

mod churn;
mod figures;
mod knowledge;
mod network;
mod rng;
mod shape;
mod trial;

use std::{alloc::System, process::ExitCode};

use cap::Cap;
use clap::{Parser, ValueEnum};
use serde_json::json;

use figures::Figures;
use shape::Shape;
use trial::Load;

/// Counts what is allocated, for the memory of each group.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What demand costs as a mesh grows: a simulation with the real routing code.
#[derive(Debug, Parser)]
struct Args {
    /// Shapes of the mesh.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Shape::ALL)]
    shapes: Vec<Shape>,
    /// Numbers of groups, ascending.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000])]
    groups: Vec<usize>,
    /// Most groups of a full mesh: there every group hears of every other one from every neighbour, so that all together
    /// hold rows by the third power of their number. More groups are cut to this.
    #[arg(long, default_value_t = 100)]
    full_max: usize,
    /// Changes of demand one by one, and as many in a burst.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// Destinations that each group wants at the beginning.
    #[arg(long, default_value_t = 3)]
    wanted: usize,
    /// Destinations that every group wants.
    #[arg(long, default_value_t = 1)]
    shared: usize,
    /// Shortest latency of a link, in milliseconds.
    #[arg(long, default_value_t = 1)]
    latency_ms_min: u64,
    /// Longest latency of a link, in milliseconds.
    #[arg(long, default_value_t = 20)]
    latency_ms_max: u64,
    /// Links over which demand is passed on, as configured by default; in a longer line the far end does not know.
    #[arg(long, default_value_t = 16)]
    hops_max: usize,
    /// The same seed gives the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Few groups: takes seconds.
    #[arg(long)]
    quick: bool,
    /// How to tell it.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let all = run(&args);
    let violations = figures::violations(&all);
    match args.output {
        Format::Table => figures::print(&all),
        Format::Json => println!("{:#}", json!({ "trials": all, "violations": violations })),
    }
    violations
        .iter()
        .for_each(|violation| eprintln!("VIOLATED {violation}"));
    if violations.is_empty() {
        eprintln!("All groups knew everything in time, and no cost grew faster than the number of neighbours.");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(args: &Args) -> Vec<Figures> {
    let load = Load {
        seed: args.seed,
        changes: if args.quick { args.changes.min(50) } else { args.changes }.max(1),
        wanted: args.wanted,
        shared: args.shared,
        latency_ms: (args.latency_ms_min, args.latency_ms_max.max(args.latency_ms_min)),
        hops_max: args.hops_max,
    };
    let sizes: &[usize] = if args.quick { &[5, 10] } else { &args.groups };
    let mut all = Vec::new();
    for &shape in &args.shapes {
        let mut last = 0;
        for &size in sizes {
            let most = if shape == Shape::Full {
                args.full_max
            } else {
                usize::MAX
            };
            let groups = size.clamp(2, most.max(2));
            if groups == last {
                continue;
            }
            if groups < size {
                eprintln!("{} {size}: cut to {groups} groups, see --full-max", shape.name());
            }
            last = groups;
            all.push(trial::run(shape, groups, load));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_trials_keep_every_promise() {
        let all = run(&Args::parse_from(["mesh-scale", "--quick"]));
        assert_eq!(all.len(), 6);
        let violations = figures::violations(&all);
        // Times of the wall clock prove nothing beside other tests.
        let proven: Vec<_> = violations
            .iter()
            .filter(|text| !text.contains("processor time"))
            .collect();
        assert!(proven.is_empty(), "{proven:#?}");
    }
}
