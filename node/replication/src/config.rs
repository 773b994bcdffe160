//! What a group is told at start: who is in it, when it acknowledges, its timers and bounds. Checked as a whole, with a
//! cure in every error.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A node's number within its group: at least 1, never used twice in the life of a group.
pub type NodeId = u64;

/// Where a node is reached. Kept in the group's replicated membership, so that every node knows every other's doors.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeAddress {
    /// `host:port` of the peer port (inside the group).
    pub peer: String,
    /// Client doors by protocol, e.g. `"stomp"` → `host:port`.
    #[serde(default)]
    pub clients: BTreeMap<String, String>,
    /// `host:port` of the QUIC endpoint that other groups link to.
    #[serde(default)]
    pub link: Option<String>,
    /// `host:port` of the console.
    #[serde(default)]
    pub admin: Option<String>,
    /// The node is being added by an operator and does not vote yet: it goes again if it does not get that far.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub provisional: bool,
}

impl NodeAddress {
    /// A node of which only the peer port is known.
    pub fn new(peer: impl Into<String>) -> NodeAddress {
        NodeAddress {
            peer: peer.into(),
            ..NodeAddress::default()
        }
    }
}

/// When a persistent send counts as acknowledged (P1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// A majority has synced it to disk.
    #[default]
    QuorumDisk,
    /// A majority has it in memory and in the operating system's cache. Survives killed processes, not a power loss of
    /// a majority at once.
    QuorumMem,
    /// This node has synced it. Not supported yet, see [`ConfigError::SyncUnsupported`].
    LocalDisk,
    /// This node has it in memory. Not supported yet, see [`ConfigError::SyncUnsupported`].
    LocalMem,
}

impl Sync {
    /// Whether the journal calls `fdatasync`.
    pub fn to_disk(self) -> bool {
        matches!(self, Sync::QuorumDisk | Sync::LocalDisk)
    }

    /// The name as configured and shown in status.
    pub fn name(self) -> &'static str {
        match self {
            Sync::QuorumDisk => "quorum_disk",
            Sync::QuorumMem => "quorum_mem",
            Sync::LocalDisk => "local_disk",
            Sync::LocalMem => "local_mem",
        }
    }
}

/// What [`crate::Group::start`] is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The group's stable name.
    pub group: String,
    /// This node's number.
    pub node: NodeId,
    /// Who founds the group. Only read while the group is not founded; afterwards the replicated membership counts.
    pub members: BTreeMap<NodeId, NodeAddress>,
    /// Where the state files `snapshot-*.state` lie; usually beside the journal's directory, not inside it.
    pub dir: PathBuf,
    /// When a send is acknowledged.
    pub sync: Sync,
    /// The master's pulse.
    pub heartbeat_ms: u64,
    /// Least random wait before a slave that misses the master stands for election.
    pub election_timeout_min_ms: u64,
    /// Greatest random wait; also how long a slave that has heard the master votes for nobody else.
    pub election_timeout_max_ms: u64,
    /// Whether slaves replace a master whose connections have ended and whose port refuses new ones without waiting
    /// for the election timeout. To be turned off where something between the nodes resets and refuses connections.
    pub fast_failover: bool,
    /// Bytes of commands in one proposal.
    pub batch_bytes_max: usize,
    /// Commands in one proposal.
    pub batch_commands_max: usize,
    /// Proposals that are not yet applied; the next batch gathers meanwhile.
    pub batches_in_flight_max: usize,
    /// Take a snapshot after that many bytes of log.
    pub snapshot_log_bytes: u64,
    /// Take a snapshot after that many log entries, whichever comes first.
    pub snapshot_log_entries: u64,
    /// Bytes of log that stay readable behind a snapshot, so that a slave that lags a little needs no snapshot.
    pub log_keep_bytes: u64,
    /// Append requests without an answer, per slave.
    pub append_requests_max: usize,
    /// Bytes of entries in one append request.
    pub append_bytes_max: usize,
    /// No message is stored when only three times so much is left on the disk: at least one segment of the journal. Three
    /// quarters of it are left by everything else but votes, and half of it by slaves, since an append that finds no room for another
    /// segment would stop the replica.
    pub disk_reserve_bytes: u64,
    /// Where no more is free on the disk, what was consumed is let go of at once; more than where producers begin to wait.
    pub disk_short_bytes: u64,
    /// Bytes that the journal shall take on disk; where it has nearly as much, what was consumed is let go of at once.
    pub store_limit_bytes: u64,
    /// How long a message that only moves the commit index waits for a real append to carry it.
    pub commit_hold_ms: u64,
    /// Time-out for a connection to a peer.
    pub dial_timeout_ms: u64,
    /// A node that is being added and gives no sign of life for so long is taken out again.
    pub join_patience_ms: u64,
    /// How long sending a snapshot may take in all.
    pub snapshot_timeout_ms: u64,
    /// How often sparse segments are looked for.
    pub stragglers_interval_ms: u64,
}

impl Config {
    /// The defaults for a node of a group.
    pub fn new(
        group: impl Into<String>,
        node: NodeId,
        members: BTreeMap<NodeId, NodeAddress>,
        dir: impl Into<PathBuf>,
    ) -> Config {
        Config {
            group: group.into(),
            node,
            members,
            dir: dir.into(),
            sync: Sync::QuorumDisk,
            heartbeat_ms: 60,
            election_timeout_min_ms: 250,
            election_timeout_max_ms: 400,
            fast_failover: true,
            batch_bytes_max: 1024 * 1024,
            batch_commands_max: 4096,
            batches_in_flight_max: 2,
            snapshot_log_bytes: 256 * 1024 * 1024,
            snapshot_log_entries: 200_000,
            log_keep_bytes: 64 * 1024 * 1024,
            append_requests_max: 4,
            append_bytes_max: 4 * 1024 * 1024,
            disk_reserve_bytes: 64 * 1024 * 1024,
            disk_short_bytes: 512 * 1024 * 1024,
            store_limit_bytes: u64::MAX,
            commit_hold_ms: 2,
            dial_timeout_ms: 1_000,
            join_patience_ms: 10_000,
            snapshot_timeout_ms: 600_000,
            stragglers_interval_ms: 5_000,
        }
    }

    /// Checks the values against each other.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let name_holds = (1..=64).contains(&self.group.len())
            && self
                .group
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !name_holds {
            return Err(ConfigError::GroupName(self.group.clone()));
        }
        if self.node == 0 || self.members.contains_key(&0) {
            return Err(ConfigError::NodeZero);
        }
        if matches!(self.sync, Sync::LocalDisk | Sync::LocalMem) && self.members.len() > 1 {
            return Err(ConfigError::SyncUnsupported(self.sync.name()));
        }
        self.validate_timers()?;
        let positive = [
            ("batch_bytes_max", self.batch_bytes_max as u64),
            ("batch_commands_max", self.batch_commands_max as u64),
            ("batches_in_flight_max", self.batches_in_flight_max as u64),
            ("snapshot_log_bytes", self.snapshot_log_bytes),
            ("snapshot_log_entries", self.snapshot_log_entries),
            ("append_requests_max", self.append_requests_max as u64),
            ("append_bytes_max", self.append_bytes_max as u64),
            ("dial_timeout_ms", self.dial_timeout_ms),
            ("snapshot_timeout_ms", self.snapshot_timeout_ms),
            ("stragglers_interval_ms", self.stragglers_interval_ms),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((setting, _)) => Err(ConfigError::Zero(setting)),
            None => Ok(()),
        }
    }

    /// A slave must be able to miss one heartbeat without standing for election: two heartbeats and the library's own
    /// tick (13/64 of one) have to fit into the least election timeout.
    fn validate_timers(&self) -> Result<(), ConfigError> {
        if self.heartbeat_ms == 0 {
            return Err(ConfigError::Zero("heartbeat_ms"));
        }
        let least_ms = self.heartbeat_ms * 2 + self.heartbeat_ms * 13 / 64 + 1;
        if self.election_timeout_min_ms <= least_ms {
            return Err(ConfigError::ElectionTooEager {
                election_timeout_min_ms: self.election_timeout_min_ms,
                heartbeat_ms: self.heartbeat_ms,
                least_ms: least_ms + 1,
            });
        }
        if self.election_timeout_max_ms <= self.election_timeout_min_ms {
            return Err(ConfigError::ElectionRange {
                min_ms: self.election_timeout_min_ms,
                max_ms: self.election_timeout_max_ms,
            });
        }
        if self.commit_hold_ms >= self.heartbeat_ms {
            return Err(ConfigError::CommitHold {
                commit_hold_ms: self.commit_hold_ms,
                heartbeat_ms: self.heartbeat_ms,
            });
        }
        Ok(())
    }
}

/// Why a [`Config`] cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The name does not match `[A-Za-z0-9._-]{1,64}`.
    #[error("group name '{0}' is not 1 to 64 characters of A-Z a-z 0-9 . _ -; choose such a name")]
    GroupName(String),
    /// Zero means "any node" on the wire.
    #[error("node id 0 is reserved; number the nodes of a group from 1")]
    NodeZero,
    /// The log acknowledges by majority only.
    #[error(
        "sync = \"{0}\" is not supported in a group of several nodes yet: its log acknowledges by majority; \
         use \"quorum_disk\" or \"quorum_mem\""
    )]
    SyncUnsupported(&'static str),
    /// A bound of nothing.
    #[error("{0} is 0; set it to at least 1")]
    Zero(&'static str),
    /// The election would start before a heartbeat can be missed.
    #[error(
        "election_timeout_min_ms = {election_timeout_min_ms} is too short for heartbeat_ms = {heartbeat_ms}: one lost \
         heartbeat would depose the master; set it to at least {least_ms}"
    )]
    ElectionTooEager {
        /// As configured.
        election_timeout_min_ms: u64,
        /// As configured.
        heartbeat_ms: u64,
        /// The least that works.
        least_ms: u64,
    },
    /// The random range is empty, so that all slaves would stand at once.
    #[error("election_timeout_max_ms = {max_ms} must exceed election_timeout_min_ms = {min_ms}")]
    ElectionRange {
        /// As configured.
        min_ms: u64,
        /// As configured.
        max_ms: u64,
    },
    /// Holding back commits longer than a heartbeat would look like silence.
    #[error("commit_hold_ms = {commit_hold_ms} must be shorter than heartbeat_ms = {heartbeat_ms}")]
    CommitHold {
        /// As configured.
        commit_hold_ms: u64,
        /// As configured.
        heartbeat_ms: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("orders", 1, BTreeMap::from([(1, NodeAddress::new("a:1"))]), "data")
    }

    #[test]
    fn defaults_hold() {
        assert_eq!(config().validate(), Ok(()));
    }

    #[test]
    fn an_eager_election_is_refused_with_a_cure_that_works() {
        let mut config = Config {
            election_timeout_min_ms: 100,
            ..config()
        };
        let Err(ConfigError::ElectionTooEager { least_ms, .. }) = config.validate() else {
            panic!("accepted")
        };
        config.election_timeout_min_ms = least_ms;
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn bad_values_name_themselves() {
        assert_eq!(
            Config {
                batch_bytes_max: 0,
                ..config()
            }
            .validate(),
            Err(ConfigError::Zero("batch_bytes_max"))
        );
        assert_eq!(Config { node: 0, ..config() }.validate(), Err(ConfigError::NodeZero));
        assert!(matches!(
            Config {
                group: "a b".into(),
                ..config()
            }
            .validate(),
            Err(ConfigError::GroupName(_))
        ));
        let upside_down = Config {
            election_timeout_max_ms: 250,
            ..config()
        };
        assert!(matches!(upside_down.validate(), Err(ConfigError::ElectionRange { .. })));
        assert!(matches!(
            Config {
                commit_hold_ms: 60,
                ..config()
            }
            .validate(),
            Err(ConfigError::CommitHold { .. })
        ));
    }

    #[test]
    fn local_sync_needs_a_group_of_one() {
        let mut config = Config {
            sync: Sync::LocalDisk,
            ..config()
        };
        assert_eq!(
            config.validate(),
            Ok(()),
            "with one node, local and quorum are the same"
        );
        config.members.insert(2, NodeAddress::new("b:1"));
        assert_eq!(config.validate(), Err(ConfigError::SyncUnsupported("local_disk")));
    }
}
