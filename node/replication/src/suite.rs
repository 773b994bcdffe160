//! openraft's own test suite for storage, run on the journal.

use std::sync::Arc;

use ferrymq_broker::Settings;
use ferrymq_journal::Journal;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::sync::mpsc;

use crate::log_store::LogStore;
use crate::replica::{DiskBounds, Replica};
use crate::state_machine::StateMachine;
use crate::types::Types;

struct InTempDir;

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for InTempDir {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<Types>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = ferrymq_journal::Config {
            segment_bytes: 1024 * 1024,
            ..ferrymq_journal::Config::new(dir.path().join("journal"))
        };
        let journal = Journal::open(config).expect("a new journal");
        let (events, _) = mpsc::unbounded_channel();
        let replica = Replica::open(
            journal.clone(),
            dir.path().join("state"),
            DiskBounds::NONE,
            Settings::default(),
            events,
        )
        .expect("a new replica");
        let replica: Arc<Replica> = replica;
        Ok((dir, LogStore::new(journal, 4 * 1024 * 1024), StateMachine::new(replica)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_suite_passes() {
    Suite::test_all(InTempDir).await.expect("every test of the suite");
}
