//! All scenarios, one file per family. To add one, add a row to a table; a new fault goes below `faults/`.

pub mod damage;
pub mod disks;
pub mod limits;
pub mod line;
pub mod members;
pub mod network;
pub mod power;
pub mod processes;

use crate::scenario::Scenario;

/// The families by name.
pub const FAMILIES: &[(&str, &[Scenario])] = &[
    ("processes", processes::SCENARIOS),
    ("network", network::SCENARIOS),
    ("power", power::SCENARIOS),
    ("damage", damage::SCENARIOS),
    ("disks", disks::SCENARIOS),
    ("limits", limits::SCENARIOS),
    ("members", members::SCENARIOS),
    ("line", line::SCENARIOS),
];

/// Scenarios that show where a promise does not hold yet (docs/RELIABILITY.md), and which one. They are played where they are
/// named; neither families nor random runs have them. Whoever mends it takes the row out: nothing else is to be done.
pub const AWAITED: &[(&str, &str)] = &[(
    "restore-east",
    "what a group had taken over, and delivered, before it was put back comes again without the redelivered mark",
)];

fn is_awaited(scenario: &Scenario) -> bool {
    AWAITED.iter().any(|(name, _)| *name == scenario.name)
}

/// The scenarios of these names; a name is a scenario's or a family's. All of them, where none is given, but for those that are
/// [awaited](AWAITED) and not named themselves.
///
/// # Errors
/// With the name that is nobody's.
pub fn named(names: &[String]) -> Result<Vec<&'static Scenario>, String> {
    if names.is_empty() {
        let all = FAMILIES.iter().flat_map(|(_, scenarios)| *scenarios);
        return Ok(all.filter(|scenario| !is_awaited(scenario)).collect());
    }
    let mut found = Vec::new();
    for name in names {
        let of = |family: &str, scenario: &Scenario| name == scenario.name || (name == family && !is_awaited(scenario));
        let before = found.len();
        for (family, scenarios) in FAMILIES {
            found.extend(scenarios.iter().filter(|scenario| of(family, scenario)));
        }
        if found.len() == before {
            return Err(format!("{name} is neither a scenario nor a family; --list shows all"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn bounds_can_be_missed() {
        for scenario in named(&[]).expect("no name is wrong") {
            // A strike that takes its own time is longer than any pause that it allows.
            let can_miss = |pause_ms_max: u64| scenario.hold_ms == 0 || pause_ms_max < scenario.hold_ms;
            assert!(scenario.pause_ms_max.is_none_or(can_miss), "{}", scenario.name);
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        let all = named(&[]).expect("no name is wrong");
        let names: BTreeSet<&str> = all.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(
            names
                .iter()
                .all(|name| named(&[(*name).to_owned()]).is_ok_and(|found| found.len() == 1))
        );
        let awaited: Vec<String> = AWAITED.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert!(
            awaited
                .iter()
                .all(|name| named(std::slice::from_ref(name)).is_ok_and(|found| found.len() == 1))
        );
        assert!(awaited.iter().all(|name| !names.contains(&**name)));
        assert_eq!(
            named(&["power".to_owned()]).map(|found| found.len()),
            Ok(power::SCENARIOS.len())
        );
        assert!(named(&["nothing".to_owned()]).is_err());
    }
}
