//! Python with the clients of `tests/clients/python`, for tests with programs that we did not write.

use std::{fs::File, path::PathBuf, process::Command};

use crate::binary;

/// The interpreter of a virtual environment with what requirements.txt names, made once.
///
/// # Errors
/// Where there is no Python, or the packages cannot be had: why.
pub fn interpreter() -> Result<PathBuf, String> {
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
