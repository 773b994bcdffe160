//! The program under test: `FERRYMQ_BIN`, or built once per run in the profile of the test itself.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The path of the `ferrymq` program.
///
/// # Panics
/// Where it cannot be built.
pub fn ferrymq() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("FERRYMQ_BIN") {
        Some(path) => {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "FERRYMQ_BIN names {}, which is no file", path.display());
            path.canonicalize().expect("an existing file has a full path")
        }
        None => build(),
    })
}

/// The workspace's root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
}

/// Builds with the lock of the target directory held: nextest starts each test as a process of its own, several at a
/// time, and one build is enough for all of them.
fn build() -> PathBuf {
    // …/target/debug/deps/topic-hash
    let test = env::current_exe().expect("a test knows its own path");
    let profile_dir = test
        .parent()
        .and_then(Path::parent)
        .expect("a test lies in target/PROFILE/deps");
    let target_dir = profile_dir.parent().expect("target/PROFILE lies in target");
    // Apart from cargo's own place, which any other build replaces by a program without crash points.
    let binary_dir = profile_dir.join("under-test");
    let binary = binary_dir.join("ferrymq");

    let lock = File::create(target_dir.join("ferrymq-tests.lock")).expect("a lock file can be made in target");
    lock.lock().expect("a lock can be waited for");
    let run = env::var("NEXTEST_RUN_ID").ok();
    let built = target_dir.join("ferrymq-tests.built");
    if run.is_some() && fs::read_to_string(&built).ok() == run {
        return binary;
    }
    let mut cargo = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo
        .current_dir(workspace())
        .args(["build", "--quiet", "--package", "ferrymq", "--features", "crash-points"])
        .arg("--target-dir")
        .arg(target_dir);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // What cargo has set for this test would make build scripts believe that something changed.
    for (name, _) in env::vars() {
        let ours = [
            "CARGO_MANIFEST",
            "CARGO_PKG",
            "CARGO_CRATE",
            "CARGO_BIN",
            "CARGO_PRIMARY",
            "NEXTEST",
            "LD_LIBRARY",
        ];
        if ours.iter().any(|prefix| name.starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "cargo build -p ferrymq has failed");
    put_aside(&profile_dir.join("ferrymq"), &binary_dir);
    if let Some(run) = run {
        fs::write(built, run).expect("a note can be written in target");
    }
    binary
}

/// Copies under a name of its own first: a node may be running from the one that is there.
fn put_aside(built: &Path, dir: &Path) {
    fs::create_dir_all(dir).expect("a directory can be made in target");
    let part = dir.join("ferrymq.part");
    fs::copy(built, &part).expect("the program can be copied");
    fs::rename(&part, dir.join("ferrymq")).expect("the program can be put in its place");
}
