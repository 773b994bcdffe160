//! What the members' wall clocks show, as the master asks it once a second: messages live by the group's clock, which goes
//! by all of them, and not by its master's.
//!
//! A clock is told as what it shows more than this machine's time since its boot does, which no jump of a wall clock
//! changes. The way of question and answer makes it uncertain by half of what both take.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::join_all;
use rustix::time::{ClockId, clock_gettime};

use crate::config::NodeId;
use crate::group::Inner;
use crate::rpc::{Rpc, unexpected};
use crate::wire::kind;

/// How often members are asked.
const EVERY: Duration = Duration::from_secs(1);
/// Later answers tell too little.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// A member that has not answered for so long does not count.
const AGE_MAX_MS: i64 = 5_000;

/// Milliseconds since this machine's boot, suspensions included. Never goes back and never jumps.
pub fn boot_ms() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}

/// Milliseconds since 1970 by this machine's wall clock.
fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// The wall clocks of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clocks {
    /// Voters of the group, this node included.
    pub voters: usize,
    /// Those that have told their clocks lately, this node included, in the order of their numbers.
    pub members: Vec<MemberClock>,
}

/// The wall clock of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberClock {
    /// Whose.
    pub node: NodeId,
    /// Milliseconds since 1970 by that clock, less [`boot_ms`] of this machine at the same moment.
    pub from_boot_ms: i64,
    /// How far that may be wrong, in milliseconds.
    pub error_ms: u64,
}

/// What the others have told.
#[derive(Default)]
pub(crate) struct Told(Mutex<BTreeMap<NodeId, Answer>>);

struct Answer {
    clock: MemberClock,
    at_boot_ms: i64,
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Answer>> {
        self.0.lock().expect("no code panics under this lock")
    }
}

/// A member's answer.
pub(crate) fn answer() -> Bytes {
    Bytes::copy_from_slice(&wall_ms().to_le_bytes())
}

/// All clocks, as of the last answers.
pub(crate) fn collect(inner: &Inner) -> Clocks {
    let now = boot_ms();
    let told = inner.clocks.lock();
    let own = MemberClock {
        node: inner.config.node,
        from_boot_ms: wall_ms() - now,
        error_ms: 0,
    };
    let others = told.values().filter(|answer| now - answer.at_boot_ms <= AGE_MAX_MS);
    let mut members: Vec<MemberClock> = others.map(|answer| answer.clock).chain([own]).collect();
    members.sort_by_key(|clock| clock.node);
    Clocks {
        voters: inner.lease.voters(),
        members,
    }
}

/// Asks the others for as long as this node is master.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut role = inner.role.subscribe();
    let mut asked = BTreeMap::new();
    loop {
        let is_master = role.borrow_and_update().is_master();
        if is_master {
            ask_all(&inner, &mut asked).await;
        } else {
            asked.clear();
            inner.clocks.lock().clear();
        }
        tokio::select! {
            changed = role.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(EVERY), if is_master => {}
        }
    }
}

async fn ask_all(inner: &Inner, asked: &mut BTreeMap<NodeId, (String, Rpc)>) {
    let membership = inner.membership();
    let voters: BTreeMap<NodeId, String> = membership
        .voter_ids()
        .filter(|voter| *voter != inner.config.node)
        .filter_map(|voter| Some((voter, membership.get_node(&voter)?.peer.clone())))
        .collect();
    asked.retain(|voter, (address, _)| voters.get(voter) == Some(address));
    inner.clocks.lock().retain(|voter, _| voters.contains_key(voter));
    for (voter, address) in voters {
        asked
            .entry(voter)
            .or_insert_with(|| (address.clone(), Rpc::new(inner.dial.clone(), voter, address)));
    }
    let asks = asked.iter_mut().map(|(&node, (_, rpc))| async move {
        if let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_MAX, ask(node, rpc)).await {
            inner.clocks.lock().insert(node, answer);
        }
    });
    join_all(asks).await;
}

async fn ask(node: NodeId, rpc: &mut Rpc) -> io::Result<Answer> {
    let asked_ms = boot_ms();
    match rpc.ask(kind::CLOCK, &[]).await? {
        (kind::ANSWER, answer) => {
            let at_boot_ms = boot_ms();
            let wall_ms = answer
                .as_ref()
                .try_into()
                .map(i64::from_le_bytes)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            Ok(measured(node, wall_ms, asked_ms, at_boot_ms))
        }
        (other, _) => Err(unexpected(other)),
    }
}

/// The member looked at its clock at some moment between question and answer.
fn measured(node: NodeId, wall_ms: i64, asked_ms: i64, at_boot_ms: i64) -> Answer {
    let half_ms = (at_boot_ms - asked_ms).max(0) / 2;
    Answer {
        clock: MemberClock {
            node,
            from_boot_ms: wall_ms - (asked_ms + half_ms),
            // Clocks are told in whole milliseconds.
            error_ms: half_ms as u64 + 1,
        },
        at_boot_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_there_and_back_makes_a_clock_uncertain_by_half_of_it() {
        let answer = measured(2, 1_000_060, 500, 540);
        assert_eq!(
            answer.clock,
            MemberClock {
                node: 2,
                from_boot_ms: 999_540,
                error_ms: 21,
            }
        );
        // Wherever between question and answer it looked, the truth is within the error.
        for looked_ms in 500..=540 {
            let truth = 1_000_060 - looked_ms;
            assert!((truth - answer.clock.from_boot_ms).unsigned_abs() <= answer.clock.error_ms);
        }
    }
}
