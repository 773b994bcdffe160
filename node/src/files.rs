//! File descriptors: as many as the system lets this process have, and some of them kept from clients. Whatever clients
//! do, the journal, the other nodes and the operator get theirs.

use ferrymq_conf::Node;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for other nodes (64 of them unproven), links and attempts at them, the admin port and the runtime.
const RESERVED: u64 = 512;

/// The soft limit of this process; none where it has none.
pub(crate) fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Raises the soft limit to the hard one, and says how many client connections there may be.
pub(crate) fn connections_max(node: &Node) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
    let wanted = node.limits.connections_max as usize;
    let Some(files_max) = open_files_max() else {
        return wanted;
    };
    let segments = node.store.limit_bytes / node.store.segment_bytes;
    // A slave needs two for each client: the client's own, and one to the master.
    let per_client = if node.is_alone() { 1 } else { 2 };
    let possible = possible(files_max, segments, per_client);
    if possible < wanted {
        tracing::warn!(
            files_max,
            "{possible} client connections are possible at one time, not {wanted}: raise the limit of open files (ulimit \
             -n, LimitNOFILE= in a systemd unit), or lower [limits] connections or [store] limit"
        );
    }
    wanted.min(possible)
}

/// Each segment of the journal may be open; where there are not enough for all that could be, half is for clients.
fn possible(files_max: u64, segments: u64, per_client: u64) -> usize {
    let left = files_max.saturating_sub(RESERVED + segments).max(files_max / 2);
    (left / per_client).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_journal_and_the_others_leave() {
        assert_eq!(possible(20_000, 1_600, 1), 17_888);
        assert_eq!(possible(20_000, 1_600, 2), 8_944);
        assert_eq!(possible(1_024, 1_600, 1), 512);
        assert_eq!(possible(1, 1, 2), 1);
    }
}
