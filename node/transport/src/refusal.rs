//! Counts the connections that were turned away, by reason, and logs one a minute.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::throttle::Throttle;

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The other side does not know the mesh secret, or exactly one side has one.
    BadSecret,
    /// Its certificate is not signed by a trusted authority, or it trusts not ours, or TLS failed otherwise.
    Untrusted,
    /// Its certificate is trusted but does not carry the name that it claims.
    WrongName,
    /// It belongs to another group, or looks for one.
    WrongGroup,
    /// It looks for another node.
    WrongNode,
    /// It speaks another version of the handshake.
    Version,
    /// It does not speak the handshake at all.
    Garbage,
    /// It did not finish the handshake in time, or went away during it.
    Unfinished,
    /// Neither secret nor TLS is configured and it does not come from this machine.
    NotLoopback,
    /// Too many connections were in their handshake already.
    Busy,
    /// It had not proven itself within a fair moment and gave its place to a newcomer.
    Yielded,
}

/// Counters of refused connections, one for each [`Refusal`].
#[derive(Debug)]
pub struct Refusals {
    counts: [AtomicU64; ALL.len()],
    log: Throttle,
}

impl Refusals {
    /// Starts at zero.
    pub fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; ALL.len()],
            log: Throttle::new(LOG_PERIOD),
        }
    }

    /// How many were refused for this reason.
    pub fn count(&self, why: Refusal) -> u64 {
        self.counts[why as usize].load(Ordering::Relaxed)
    }

    /// How many were refused in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Every reason with its count, in a fixed order, for the metrics page.
    pub fn counts(&self) -> impl Iterator<Item = (Refusal, u64)> {
        ALL.into_iter().map(|why| (why, self.count(why)))
    }

    /// What bounds the log lines about strangers.
    pub(crate) fn log(&self) -> &Throttle {
        &self.log
    }

    pub(crate) fn note(&self, why: Refusal, from: SocketAddr, port: &'static str, detail: &dyn std::fmt::Display) {
        self.counts[why as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.log.pass() {
            tracing::warn!(%from, port, reason = why.as_str(), suppressed, "connection refused: {detail}");
        }
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self::new()
    }
}

impl Refusal {
    /// A short name for a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadSecret => "bad_secret",
            Self::Untrusted => "untrusted",
            Self::WrongName => "wrong_name",
            Self::WrongGroup => "wrong_group",
            Self::WrongNode => "wrong_node",
            Self::Version => "version",
            Self::Garbage => "garbage",
            Self::Unfinished => "unfinished",
            Self::NotLoopback => "not_loopback",
            Self::Busy => "busy",
            Self::Yielded => "yielded",
        }
    }
}

/// In the order of the enum, so that a reason is its place here.
const ALL: [Refusal; 11] = [
    Refusal::BadSecret,
    Refusal::Untrusted,
    Refusal::WrongName,
    Refusal::WrongGroup,
    Refusal::WrongNode,
    Refusal::Version,
    Refusal::Garbage,
    Refusal::Unfinished,
    Refusal::NotLoopback,
    Refusal::Busy,
    Refusal::Yielded,
];

const LOG_PERIOD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_count() {
        for (place, why) in ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
        }
        let refusals = Refusals::new();
        let from = SocketAddr::from(([127, 0, 0, 1], 9));
        refusals.note(Refusal::Busy, from, "peer", &"x");
        refusals.note(Refusal::Busy, from, "peer", &"x");
        refusals.note(Refusal::Garbage, from, "peer", &"x");
        assert_eq!(
            (
                refusals.count(Refusal::Busy),
                refusals.count(Refusal::Garbage),
                refusals.total()
            ),
            (2, 1, 3)
        );
        assert_eq!(refusals.counts().filter(|(_, n)| *n > 0).count(), 2);
    }
}
