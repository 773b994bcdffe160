//! A client that we did not write: unmodified stomp.py from PyPI, whose suite in tests/clients/python runs against a
//! mesh of two groups.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{path::Path, process::Command};

use ferrymq_tests::{Discovery, Mesh, binary, python, skip};

fn suite(python: &Path, mesh: &Mesh) -> std::process::Output {
    let addresses = |group: usize| {
        let group = &mesh.groups[group];
        // Slaves first: the harder way (P10).
        let master = group.master();
        let mut nodes: Vec<usize> = (0..group.nodes.len()).collect();
        nodes.sort_by_key(|at| *at == master);
        nodes
            .iter()
            .map(|at| group.nodes[*at].address())
            .collect::<Vec<_>>()
            .join(",")
    };
    Command::new(python)
        .args(["-m", "unittest", "discover", "--verbose", "--start-directory"])
        .arg(binary::workspace().join("tests/clients/python"))
        .env("FERRYMQ_NORTH", addresses(0))
        .env("FERRYMQ_SOUTH", addresses(1))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python can be started")
}

/// The whole suite against two groups that find each other in this way.
fn speaks_with_a_mesh(test: &str, discovery: Discovery) {
    let python = match python::interpreter() {
        Ok(python) => python,
        Err(why) => return skip::skipped(test, &why),
    };
    let mesh = Mesh::two_groups(test, discovery);
    let output = suite(&python, &mesh);
    let told = String::from_utf8_lossy(&output.stderr);
    println!("{told}");
    assert!(output.status.success(), "{told}");
    // A suite that finds no tests ends well, too.
    let ran = told
        .lines()
        .find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse::<u32>().ok());
    assert!(ran.is_some_and(|ran| ran >= 8), "{told}");
}

#[test]
fn stomp_py_speaks_with_a_mesh() {
    speaks_with_a_mesh("python-static", Discovery::Static);
}

#[test]
fn stomp_py_speaks_with_a_mesh_found_by_multicast() {
    speaks_with_a_mesh("python-multicast", Discovery::Multicast);
}

#[test]
fn stomp_py_speaks_with_a_mesh_found_by_mdns() {
    speaks_with_a_mesh("python-mdns", Discovery::Mdns);
}
