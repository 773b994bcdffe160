//! Seeds that failed once, each with a line on what it found. They are run before all others, for ever.

/// A seed and what it found.
pub const THAT_FAILED: &[(u64, &str)] = &[
    (
        1097,
        "a failed sync of the directory was only logged, and a half-made segment kept the next start from succeeding; \
         see tests/failed_syncs.rs",
    ),
    (
        2596,
        "a client that did not read got what an ended loop of the master had handed out, after the next loop on the same \
         node had handed it to others",
    ),
];
