//! A client that we did not write: unmodified stomp.py from PyPI, whose suite in tests/clients/python runs against a
//! mesh of two groups.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use ferrymq_tests::{Discovery, Mesh, binary, skip};

/// The interpreter of a virtual environment with what requirements.txt names, made once; why not, otherwise.
fn python() -> Result<PathBuf, String> {
    let clients = binary::workspace().join("tests/clients/python");
    let requirements = clients.join("requirements.txt");
    let target = std::env::current_exe()
        .ok()
        .and_then(|test| Some(test.ancestors().nth(3)?.to_owned()));
    let venv = target
        .ok_or("the target directory is not known")?
        .join("python-clients");
    std::fs::create_dir_all(&venv).map_err(|error| error.to_string())?;
    let lock = File::create(venv.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let python = venv.join("bin/python");
    let done = venv.join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).map_err(|error| error.to_string())?;
    if std::fs::read_to_string(&done).ok().as_deref() != Some(&*wanted) {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(&requirements))?;
        std::fs::write(&done, wanted).map_err(|error| error.to_string())?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{command:?}: {}",
        told.lines().last().unwrap_or("no reason given")
    ))
}

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
    let python = match python() {
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
