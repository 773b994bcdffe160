//! Wrong files and what they are answered with. Each file of tests/wrong holds its own expectation below the line
//! `# expected`, one comment line for each problem.

#![allow(clippy::unwrap_used)] // Also in what the tests share, where the lint does not see that it is one.

use std::path::Path;

#[test]
fn wrong_files_are_answered_with_places_and_cures() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 10, "the files are there");
    let mut failed = String::new();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let (_, expected) = text
            .split_once("# expected\n")
            .expect("each file tells its expectation");
        let expected: Vec<&str> = expected.lines().map(|line| line.trim_start_matches("# ")).collect();
        let found = match ferrymq_conf::read(name, &text, []) {
            Err(problems) => problems.to_string(),
            Ok(loaded) => loaded
                .warnings
                .iter()
                .map(|warning| format!("warning: {warning}"))
                .collect::<Vec<_>>()
                .join("\n"),
        };
        if found.lines().collect::<Vec<_>>() != expected {
            failed += &format!("--- {name}\n{found}\n");
        }
    }
    assert!(failed.is_empty(), "found, where something else was expected:\n{failed}");
}
