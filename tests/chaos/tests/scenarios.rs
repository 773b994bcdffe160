//! Every scenario once, in its short form, those of a family on one field.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::path::PathBuf;

use ferrymq_chaos::{
    field::{Field, Options},
    figures, random,
    run::{self, Ground},
    scenarios,
};
use ferrymq_tests::{Discovery, late, skip};

fn family(name: &str) {
    if let Some(why) = Field::missing() {
        return skip::skipped(&format!("chaos {name}"), &why);
    }
    let options = Options {
        discovery: Discovery::Static,
        program: PathBuf::from(env!("CARGO_BIN_EXE_chaos")),
    };
    let scenarios = scenarios::named(&[name.to_owned()]).unwrap();
    let seed = random::any_seed();
    println!("again, with the same bytes damaged: tests/chaos/run {name} --seed {seed}");
    let outcomes = run::each(&mut Ground::new(options), &scenarios, seed, true);
    for outcome in &outcomes {
        outcome.skipped.iter().for_each(|why| skip::skipped(&outcome.name, why));
        let late = outcome.late_before.iter();
        late.for_each(|breach| late::told(&outcome.name, &breach.text));
    }
    println!("{}", figures::table(&outcomes));
    assert_eq!(outcomes.len(), scenarios.len());
    assert_eq!(figures::broken(&outcomes), 0, "promises were broken, see above");
}

#[test]
fn processes_that_die_hang_or_leave() {
    family("processes");
}

#[test]
fn networks_that_fail() {
    family("network");
}

#[test]
fn power_that_goes() {
    family("power");
}

#[test]
fn bytes_that_change_on_disk() {
    family("damage");
}

#[test]
fn disks_that_fail() {
    family("disks");
}

#[test]
fn clocks_memory_and_processors() {
    family("limits");
}

#[test]
fn members_that_change() {
    family("members");
}

#[test]
fn the_end_of_a_line() {
    family("line");
}
