//! Time-outs apart from broken promises: on a machine that others slow down a bound of time may be missed, and is then
//! tried once more, which is told; a lost message, a second master or memory past its bound fails at once and for good.
//!
//! What says "not within" is a time-out ([`crate::wait`] does); everything else that panics is not.

use std::{
    any::Any,
    env, fs,
    fs::OpenOptions,
    io::Write,
    panic,
    path::{Path, PathBuf},
    sync::Once,
};

/// Whether a failure is only that something took too long.
pub fn is_late(text: &str) -> bool {
    text.starts_with("not within ")
}

/// What a panic has said.
pub fn text(why: &(dyn Any + Send)) -> String {
    let text = why.downcast_ref::<String>().cloned();
    let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it panicked without a word".into())
}

/// Tells that something was too late once and is tried again. The line is also appended to the file that `FERRYMQ_LATE`
/// names, which the test command shows at its end.
///
/// # Panics
/// Where that file cannot be written.
pub fn told(test: &str, why: &str) {
    let line = format!("too late once: {test}: {}", why.lines().next().unwrap_or_default());
    println!("{line}");
    if let Some(path) = env::var_os("FERRYMQ_LATE") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .expect("the file of late tests can be written");
    }
}

/// For tests that the test runner runs again (`retries` in `.config/nextest.toml`): from here on, a panic of this process
/// that is no time-out leaves a mark below `target/`, with which the second try fails before it begins.
///
/// # Panics
/// In a second try, where the first one has broken a promise.
#[track_caller]
pub fn only_lateness_is_tried_again() {
    static ONCE: Once = Once::new();
    let Some(mark) = mark() else { return };
    if let Ok(why) = fs::read_to_string(&mark) {
        panic!("a promise was broken in the first try, which counts: {why}");
    }
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |told| {
            if let Some(why) = text_of(told).filter(|why| !is_late(why)) {
                leave(&mark, &why);
            }
            usual(told);
        }));
    });
}

fn text_of(told: &panic::PanicHookInfo<'_>) -> Option<String> {
    let text = told.payload_as_str();
    // A panic without words is none of lateness.
    Some(text.unwrap_or("it panicked without a word").to_owned())
}

fn leave(mark: &Path, why: &str) {
    let made = mark.parent().map_or(Ok(()), fs::create_dir_all);
    if let Err(error) = made.and_then(|()| fs::write(mark, why)) {
        eprintln!("{}: {error}", mark.display());
    }
}

/// One for each test of each run; none where the runner does not say which it is.
fn mark() -> Option<PathBuf> {
    let run = env::var("NEXTEST_RUN_ID").ok()?;
    let binary = env::current_exe().ok()?;
    // It runs each test in a process of its own, and names it.
    let test = env::args().skip_while(|word| word != "--exact").nth(1)?;
    let name = format!("{}-{}", binary.file_name()?.to_string_lossy(), test.replace("::", "-"));
    Some(binary.ancestors().nth(3)?.join("broken-for-good").join(run).join(name))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn said(fails: impl FnOnce() + panic::UnwindSafe) -> String {
        text(&*panic::catch_unwind(fails).expect_err("it fails"))
    }

    #[test]
    fn only_a_wait_that_took_too_long_is_late() {
        let wait = || {
            crate::wait_until("nothing", Duration::ZERO, || false);
        };
        assert!(is_late(&said(wait)));
        assert!(!is_late(&said(|| panic!("a promise was broken"))));
        assert!(!is_late(&said(|| panic!("lost: not within "))));
        assert!(!is_late(&said(|| assert_eq!(1, 2))));
        assert!(!is_late(&said(|| panic::panic_any(7))));
    }
}
