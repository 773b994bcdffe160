//! Whether this node may vote and acknowledge.
//!
//! A voter that has lost its disk has also forgotten what it voted for and acknowledged; if it went on as if new, an
//! entry that it had acknowledged could be lost with one further failure. So a node without data takes no part until
//! either the founder of a new group asks it to (founding.rs), or the master of an existing one admits it, after taking
//! it out of the voters if it was one. The admission is on disk before the node answers anything.
//!
//! A node whose data went back (meeting.rs) has forgotten as much. It loses its admission, which is on disk, too, and gets
//! it in the same way.

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
    /// A node with a log or a vote has been admitted before; so has one with the mark. But none that has lost it since.
    pub(crate) fn new(journal: Journal) -> Admission {
        let has_data = journal.log_state().last.is_some() || journal.cell(cell::VOTE).is_some();
        let mark = journal.cell(cell::ADMITTED);
        let admitted = mark.as_deref().map_or(has_data, |mark| mark != LOST);
        Admission {
            journal,
            admitted: watch::Sender::new(admitted),
        }
    }

    pub(crate) fn is_given(&self) -> bool {
        *self.admitted.borrow()
    }

    /// Whether it was given and lost again, and not merely not given yet.
    pub(crate) fn is_lost(&self) -> bool {
        !self.is_given() && self.journal.cell(cell::ADMITTED).as_deref() == Some(LOST)
    }

    /// Puts the admission on disk, then takes part.
    pub(crate) async fn give(&self) -> io::Result<()> {
        if !self.is_given() {
            put_cell(&self.journal, cell::ADMITTED, Bytes::from_static(GIVEN)).await?;
            self.admitted.send_replace(true);
        }
        Ok(())
    }

    /// Takes part no more, and puts that on disk.
    pub(crate) async fn lose(&self) -> io::Result<()> {
        self.admitted.send_replace(false);
        put_cell(&self.journal, cell::ADMITTED, Bytes::from_static(LOST)).await
    }

    /// Waits until this node takes no part.
    pub(crate) async fn until_lost(&self) {
        // Ends with an error when the sender is gone, which is in here.
        let _ = self.admitted.subscribe().wait_for(|admitted| !admitted).await;
    }
}

const GIVEN: &[u8] = b"1";
const LOST: &[u8] = b"0";
