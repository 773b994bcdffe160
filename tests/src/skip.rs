//! What this machine cannot do is told and counted, never passed silently.

use std::{env, fs::OpenOptions, io::Write};

/// Tells that a test is skipped, and why. The line is also appended to the file that `FERRYMQ_SKIPPED` names, which the
/// test command counts and shows at its end.
///
/// # Panics
/// Where `FERRYMQ_SKIP_NOTHING` is set: there every test must run.
#[track_caller]
pub fn skipped(test: &str, why: &str) {
    let line = format!("skipped: {test}: {why}");
    assert!(env::var_os("FERRYMQ_SKIP_NOTHING").is_none(), "{line}");
    println!("{line}");
    if let Some(path) = env::var_os("FERRYMQ_SKIPPED") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .expect("the file of skipped tests can be written");
    }
}
