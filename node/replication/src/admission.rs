//! Whether this node may vote and acknowledge.
//!
//! A voter that has lost its disk has also forgotten what it voted for and acknowledged; if it went on as if new, an
//! entry that it had acknowledged could be lost with one further failure. So a node without data takes no part until
//! either the founder of a new group asks it to (founding.rs), or the master of an existing one admits it, after taking
//! it out of the voters if it was one. The admission is on disk before the node answers anything.

use std::io;

use bytes::Bytes;
use ferrymq_journal::Journal;
use tokio::sync::watch;

use crate::log_store::{cell, put_cell};

/// See the file's head. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Admission {
    journal: Journal,
    admitted: watch::Sender<bool>,
}

impl Admission {
    /// A node with a log or a vote has been admitted before; so has one with the mark.
    pub(crate) fn new(journal: Journal) -> Admission {
        let has_data = journal.log_state().last.is_some() || journal.cell(cell::VOTE).is_some();
        let admitted = has_data || journal.cell(cell::ADMITTED).is_some();
        Admission {
            journal,
            admitted: watch::Sender::new(admitted),
        }
    }

    pub(crate) fn is_given(&self) -> bool {
        *self.admitted.borrow()
    }

    /// Puts the admission on disk, then takes part.
    pub(crate) async fn give(&self) -> io::Result<()> {
        if !self.is_given() {
            put_cell(&self.journal, cell::ADMITTED, Bytes::from_static(b"1")).await?;
            self.admitted.send_replace(true);
        }
        Ok(())
    }
}
