//! What every agent is given: what to announce, where to report, and when to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::announcement::{Announcement, NotForUs, TagKey};
use crate::peers::{Report, Source};
use crate::stats::Counters;

/// What every agent is given. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// What this node says.
    pub(crate) me: watch::Receiver<Announcement>,
    /// Whether it says anything, or only listens.
    pub(crate) announce: bool,
    pub(crate) key: Option<TagKey>,
    pub(crate) reports: mpsc::Sender<Report>,
    /// Changes when a node was heard for the first time.
    pub(crate) newcomers: watch::Receiver<u64>,
    pub(crate) counters: Arc<Counters>,
    /// Becomes true, or its sender is dropped, when the agent shall say goodbye and end.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Surroundings {
    /// Ends when the agent shall stop.
    pub(crate) async fn stopped(&mut self) {
        // An error means that the sender is gone, which also says to stop.
        let _ = self.stop.wait_for(|stop| *stop).await;
    }

    /// Reports what was read, unless this node said it itself. Never waits: who floods us with announcements must not
    /// hold up the agent, and what is dropped will be said again.
    pub(crate) fn hear(&self, read: Result<Announcement, NotForUs>, source: Source, lifetime: Duration) {
        if let Some(announcement) = self.believe(read) {
            let lifetime = Some(lifetime);
            if self
                .reports
                .try_send(Report::Heard {
                    announcement,
                    source,
                    lifetime,
                })
                .is_err()
            {
                Counters::add(&self.counters.table_full, 1);
            }
        }
    }

    /// As [`hear`](Self::hear), for what is said once and holds until it is taken back.
    pub(crate) async fn hear_surely(&self, read: Result<Announcement, NotForUs>, source: Source) {
        if let Some(announcement) = self.believe(read) {
            self.report_surely(Report::Heard {
                announcement,
                source,
                lifetime: None,
            })
            .await;
        }
    }

    /// Waits until the table takes the report.
    pub(crate) async fn report_surely(&self, report: Report) {
        // Fails only while discovery is being dropped.
        let _ = self.reports.send(report).await;
    }

    /// Counts what was read, and passes on what another node of the mesh said.
    fn believe(&self, read: Result<Announcement, NotForUs>) -> Option<Announcement> {
        match read {
            Ok(announcement) if self.me.borrow().is_same_node(&announcement) => None,
            Ok(announcement) => {
                Counters::add(&self.counters.received, 1);
                Some(announcement)
            }
            Err(NotForUs::Foreign | NotForUs::OtherMesh) => None,
            Err(NotForUs::Malformed | NotForUs::Version) => {
                Counters::add(&self.counters.malformed, 1);
                None
            }
            Err(NotForUs::Unauthenticated) => {
                Counters::add(&self.counters.unauthenticated, 1);
                None
            }
        }
    }
}
