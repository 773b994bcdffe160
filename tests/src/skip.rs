//! What this machine cannot do is told and counted, never passed silently.

use std::{env, fs::OpenOptions, io::Write};

/// Tells that a test is skipped, and why. The line is also appended to the file that `FERRYMQ_SKIPPED` names, which the
/// test command counts and shows at its end.
///
/// # Panics
/// Where `FERRYMQ_SKIP_NOTHING` is set: there every test must run.
#[track_caller]
pub fn skipped(test: &str, why: &str) {
    let line = line(test, why);
    assert!(env::var_os("FERRYMQ_SKIP_NOTHING").is_none(), "{line}");
    note(&line);
}

/// Tells that a test is left out since nobody asked for it; `why` says how to. Listed as in [`skipped`], and never wrong.
pub fn left_out(test: &str, why: &str) {
    note(&line(test, why));
}

fn line(test: &str, why: &str) -> String {
    format!("skipped: {test}: {why}")
}

fn note(line: &str) {
    println!("{line}");
    if let Some(path) = env::var_os("FERRYMQ_SKIPPED") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .expect("the file of skipped tests can be written");
    }
}
