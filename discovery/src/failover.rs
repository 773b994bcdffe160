//! `failover:(…)`, with which a client is told the nodes to connect to. Options and defaults are ActiveMQ's
//! (FailoverTransport.java).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::{NODE_SCHEMES, NodeAddress, unknown_scheme};
use crate::options::{UriOption, Written};
use crate::scan::{Scan, UriError};
use crate::uri::parse_list;

/// The nodes that a client may connect to, and how it behaves when the connection is lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FailoverUri {
    /// In the order written.
    pub nodes: Vec<NodeAddress>,
    /// Whether it was written with `failover:`. A plain `tcp://h:p` is connected to once, without retry.
    pub failover: bool,
    /// How to fail over.
    pub options: FailoverOptions,
    /// Options that were tolerated without effect.
    pub warnings: Vec<String>,
}

/// How a client fails over.
#[derive(Debug, Clone, PartialEq)]
pub struct FailoverOptions {
    /// `initialReconnectDelay`, milliseconds before the first retry.
    pub initial_reconnect_delay_ms: u64,
    /// `maxReconnectDelay`, milliseconds that the delay grows to.
    pub max_reconnect_delay_ms: u64,
    /// `useExponentialBackOff`: whether the delay grows.
    pub use_exponential_back_off: bool,
    /// `backOffMultiplier` (also `reconnectDelayExponent`): by what it grows each time.
    pub back_off_multiplier: f64,
    /// `maxReconnectAttempts`: `None` for ever, 0 for no retry.
    pub max_reconnect_attempts: Option<u64>,
    /// `startupMaxReconnectAttempts`: the same until the first success.
    pub startup_max_reconnect_attempts: Option<u64>,
    /// `randomize`: whether the nodes are tried in random order.
    pub randomize: bool,
    /// `timeout`: milliseconds after which a send that waits for a connection fails; `None` for never.
    pub timeout_ms: Option<u64>,
    /// `priorityBackup`: whether to return to the first node, or to `priorityURIs`, when it is back.
    pub priority_backup: bool,
    /// `warnAfterReconnectAttempts`: failed attempts between two warnings.
    pub warn_after_reconnect_attempts: u64,
}

impl Default for FailoverOptions {
    fn default() -> Self {
        Self {
            initial_reconnect_delay_ms: 10,
            max_reconnect_delay_ms: 30_000,
            use_exponential_back_off: true,
            back_off_multiplier: 2.0,
            max_reconnect_attempts: None,
            startup_max_reconnect_attempts: None,
            randomize: true,
            timeout_ms: None,
            priority_backup: false,
            warn_after_reconnect_attempts: 10,
        }
    }
}

impl FailoverUri {
    /// Reads `failover:(…)?…`, `failover://(…)`, `failover:tcp://h:p` or `tcp://h:p`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its column and a cure.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let mut scan = Scan::new(text);
        scan.skip_spaces();
        let scheme = scan.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '_'));
        if scheme.text.is_empty() || !scan.take(":") {
            return Err(scan.error("missing scheme", "write for example failover:(tcp://host:port)"));
        }
        let mut warnings = Vec::new();
        let (nodes, failover) = match scheme.text {
            "failover" => (parse_list("failover", &mut scan, &mut warnings, 0)?.concat(), true),
            node if NODE_SCHEMES.contains(&node) => (vec![NodeAddress::parse_rest(node, &mut scan)?], false),
            _ => return Err(unknown_scheme(scheme, &[&["failover"], &NODE_SCHEMES[..]].concat())),
        };
        let mut options = FailoverOptions::default();
        for option in UriOption::parse_all(&mut scan)? {
            if option.is_tolerated() || UNSUPPORTED.contains(&option.name.text) {
                warnings.push(option.warning());
            } else if !options.take(&option)? {
                return Err(option.unknown(&[&NAMES, &UNSUPPORTED]));
            }
        }
        scan.skip_spaces();
        match scan.peek() {
            None => Ok(Self {
                nodes,
                failover,
                options,
                warnings,
            }),
            Some(c) => Err(scan.error(format!("unexpected '{c}'"), "the URI should end here")),
        }
    }
}

impl FailoverOptions {
    /// Stores the option if it is one of these; `Ok(false)` if not.
    pub(crate) fn take(&mut self, option: &UriOption<'_>) -> Result<bool, UriError> {
        let attempts = || {
            option
                .integer(-1..=i64::from(i32::MAX))
                .map(|number| u64::try_from(number).ok())
        };
        match option.name.text {
            "initialReconnectDelay" => self.initial_reconnect_delay_ms = option.millis()?,
            "maxReconnectDelay" => self.max_reconnect_delay_ms = option.millis()?,
            "useExponentialBackOff" => self.use_exponential_back_off = option.bool()?,
            "backOffMultiplier" | "reconnectDelayExponent" => self.back_off_multiplier = option.multiplier()?,
            "maxReconnectAttempts" => self.max_reconnect_attempts = attempts()?,
            "startupMaxReconnectAttempts" => self.startup_max_reconnect_attempts = attempts()?,
            "randomize" => self.randomize = option.bool()?,
            "timeout" => self.timeout_ms = option.millis_or_none()?,
            "priorityBackup" => self.priority_backup = option.bool()?,
            "warnAfterReconnectAttempts" => {
                self.warn_after_reconnect_attempts = option.integer(0..=i64::from(i32::MAX))?.unsigned_abs();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn written(&self) -> Vec<String> {
        let default = Self::default();
        let or_none = |value: &Option<u64>| value.map_or("-1".to_owned(), |value| value.to_string());
        let mut out = Written::default();
        out.add(
            "initialReconnectDelay",
            &self.initial_reconnect_delay_ms,
            &default.initial_reconnect_delay_ms,
        );
        out.add(
            "maxReconnectDelay",
            &self.max_reconnect_delay_ms,
            &default.max_reconnect_delay_ms,
        );
        out.add(
            "useExponentialBackOff",
            &self.use_exponential_back_off,
            &default.use_exponential_back_off,
        );
        out.add(
            "backOffMultiplier",
            &self.back_off_multiplier,
            &default.back_off_multiplier,
        );
        for (name, value) in [
            ("maxReconnectAttempts", &self.max_reconnect_attempts),
            ("startupMaxReconnectAttempts", &self.startup_max_reconnect_attempts),
            ("timeout", &self.timeout_ms),
        ] {
            out.add(name, &or_none(value), &or_none(&None));
        }
        out.add("randomize", &self.randomize, &default.randomize);
        out.add("priorityBackup", &self.priority_backup, &default.priority_backup);
        let warn = (
            &self.warn_after_reconnect_attempts,
            &default.warn_after_reconnect_attempts,
        );
        out.add("warnAfterReconnectAttempts", warn.0, warn.1);
        out.0
    }
}

impl FromStr for FailoverUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for FailoverUri {
    type Error = UriError;

    fn try_from(text: String) -> Result<Self, UriError> {
        Self::parse(&text)
    }
}

impl From<FailoverUri> for String {
    fn from(uri: FailoverUri) -> Self {
        uri.to_string()
    }
}

/// In the shortest form that reads back as the same, warnings apart.
impl fmt::Display for FailoverUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        if self.failover {
            write!(f, "failover:({nodes})")?
        } else {
            f.write_str(&nodes)?
        }
        let options = self.options.written();
        if options.is_empty() {
            Ok(())
        } else {
            write!(f, "?{}", options.join("&"))
        }
    }
}

const NAMES: [&str; 11] = [
    "initialReconnectDelay",
    "maxReconnectDelay",
    "useExponentialBackOff",
    "backOffMultiplier",
    "reconnectDelayExponent",
    "maxReconnectAttempts",
    "startupMaxReconnectAttempts",
    "randomize",
    "timeout",
    "priorityBackup",
    "warnAfterReconnectAttempts",
];

/// Options of ActiveMQ's client that ours has no use for.
const UNSUPPORTED: [&str; 11] = [
    "backup",
    "backupPoolSize",
    "priorityURIs",
    "trackMessages",
    "maxCacheSize",
    "trackTransactionProducers",
    "updateURIsSupported",
    "updateURIsURL",
    "reconnectSupported",
    "rebalanceUpdateURIs",
    "nested",
];
