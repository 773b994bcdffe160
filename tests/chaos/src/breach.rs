//! What was wrong in a scenario, told apart: a promise that was broken, and a bound of time that was missed, which a
//! machine with much else to do may miss once.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use ferrymq_tests::late;

/// One thing that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// What.
    pub text: String,
    /// It took too long, or masters changed too often; nothing else.
    pub is_late: bool,
}

impl Breach {
    /// What a thread that panicked has said.
    pub fn of_panic(text: String) -> Self {
        let is_late = late::is_late(&text);
        Self { text, is_late }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_late { "late: " } else { "" };
        write!(f, "{kind}{}", self.text)
    }
}

/// All of one scenario; known also to whoever judges when the scenario itself has panicked.
#[derive(Debug, Clone, Default)]
pub struct Breaches(Arc<Mutex<Vec<Breach>>>);

impl Breaches {
    fn lock(&self) -> MutexGuard<'_, Vec<Breach>> {
        self.0.lock().expect("no thread panics while it notes something")
    }

    /// A promise was broken.
    pub fn broken(&self, text: String) {
        self.lock().push(Breach { text, is_late: false });
    }

    /// Something took too long.
    pub fn late(&self, text: String) {
        self.lock().push(Breach { text, is_late: true });
    }

    /// All so far, in order.
    pub fn all(&self) -> Vec<Breach> {
        self.lock().clone()
    }
}
