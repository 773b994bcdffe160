//! The `?name=value&…` of a URI: each value checked, each name known, and an unknown one answered with the nearest.

use std::ops::RangeInclusive;

use crate::scan::{Piece, Scan, UriError, nearest};

/// How to come back after a lost connection. Names and meanings are ActiveMQ's; the defaults of a static list.
#[derive(Debug, Clone, PartialEq)]
pub struct ReconnectOptions {
    /// `initialReconnectDelay`, milliseconds before the first retry.
    pub initial_reconnect_delay_ms: u64,
    /// `maxReconnectDelay`, milliseconds that the delay grows to.
    pub max_reconnect_delay_ms: u64,
    /// `useExponentialBackOff`: whether the delay grows.
    pub use_exponential_back_off: bool,
    /// `backOffMultiplier` (also `reconnectDelayExponent`): by what it grows each time.
    pub back_off_multiplier: f64,
    /// `maxReconnectAttempts`: −1 for ever; 0 also for ever, as in ActiveMQ's static and multicast agents.
    pub max_reconnect_attempts: i64,
    /// `minConnectTime`: a connection that held for fewer milliseconds counts as a failed attempt.
    pub min_connect_time_ms: u64,
    /// `randomize`: whether a list is tried in random order.
    pub randomize: bool,
}

/// The defaults of SimpleDiscoveryAgent.java.
impl Default for ReconnectOptions {
    fn default() -> Self {
        Self {
            initial_reconnect_delay_ms: 1_000,
            max_reconnect_delay_ms: 30_000,
            use_exponential_back_off: true,
            back_off_multiplier: 2.0,
            max_reconnect_attempts: 0,
            min_connect_time_ms: 5_000,
            randomize: true,
        }
    }
}

/// Names that [`ReconnectOptions::take`] knows.
pub(crate) const RECONNECT_NAMES: [&str; 8] = [
    "initialReconnectDelay",
    "maxReconnectDelay",
    "useExponentialBackOff",
    "backOffMultiplier",
    "reconnectDelayExponent",
    "maxReconnectAttempts",
    "minConnectTime",
    "randomize",
];

impl ReconnectOptions {
    /// Stores the option if it is one of these; `Ok(false)` if not.
    pub(crate) fn take(&mut self, option: &UriOption<'_>) -> Result<bool, UriError> {
        match option.name.text {
            "initialReconnectDelay" => self.initial_reconnect_delay_ms = option.millis()?,
            "maxReconnectDelay" => self.max_reconnect_delay_ms = option.millis()?,
            "useExponentialBackOff" => self.use_exponential_back_off = option.bool()?,
            "backOffMultiplier" | "reconnectDelayExponent" => self.back_off_multiplier = option.multiplier()?,
            "maxReconnectAttempts" => self.max_reconnect_attempts = option.integer(-1..=i64::from(i32::MAX))?,
            "minConnectTime" => self.min_connect_time_ms = option.millis()?,
            "randomize" => self.randomize = option.bool()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Those that differ from `defaults`, as they are written.
    pub(crate) fn written(&self, defaults: &Self) -> Vec<String> {
        let mut out = Written::default();
        out.add(
            "initialReconnectDelay",
            &self.initial_reconnect_delay_ms,
            &defaults.initial_reconnect_delay_ms,
        );
        out.add(
            "maxReconnectDelay",
            &self.max_reconnect_delay_ms,
            &defaults.max_reconnect_delay_ms,
        );
        out.add(
            "useExponentialBackOff",
            &self.use_exponential_back_off,
            &defaults.use_exponential_back_off,
        );
        out.add(
            "backOffMultiplier",
            &self.back_off_multiplier,
            &defaults.back_off_multiplier,
        );
        out.add(
            "maxReconnectAttempts",
            &self.max_reconnect_attempts,
            &defaults.max_reconnect_attempts,
        );
        out.add(
            "minConnectTime",
            &self.min_connect_time_ms,
            &defaults.min_connect_time_ms,
        );
        out.add("randomize", &self.randomize, &defaults.randomize);
        out.0
    }
}

/// Collects `name=value` for options that differ from their default.
#[derive(Default)]
pub(crate) struct Written(pub(crate) Vec<String>);

impl Written {
    pub(crate) fn add<T: PartialEq + ToString>(&mut self, name: &str, value: &T, default: &T) {
        if value != default {
            self.0.push(format!("{name}={}", value.to_string()));
        }
    }
}

/// One `name=value`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UriOption<'a> {
    pub(crate) name: Piece<'a>,
    pub(crate) value: Piece<'a>,
}

impl<'a> UriOption<'a> {
    /// Reads all options if a `?` comes next.
    pub(crate) fn parse_all(scan: &mut Scan<'a>) -> Result<Vec<Self>, UriError> {
        let mut options = Vec::new();
        if !scan.take("?") {
            return Ok(options);
        }
        loop {
            // Written so in activemq.xml, from where it may have been pasted.
            scan.take("amp;");
            let name = scan.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
            if name.text.is_empty() {
                return Err(scan.error("missing option name", "write name=value after ? and &"));
            }
            if !scan.take("=") {
                return Err(scan.error(
                    format!("option '{}' has no value", name.text),
                    format!("write {}=value", name.text),
                ));
            }
            let value = scan.take_while(|c| !matches!(c, '&' | ',' | '(' | ')' | '{' | '}') && !c.is_whitespace());
            options.push(Self { name, value });
            if !scan.take("&") {
                return Ok(options);
            }
        }
    }

    pub(crate) fn bool(&self) -> Result<bool, UriError> {
        match self.value.text {
            text if text.eq_ignore_ascii_case("true") => Ok(true),
            text if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(self.wrong("is neither true nor false")),
        }
    }

    pub(crate) fn integer(&self, range: RangeInclusive<i64>) -> Result<i64, UriError> {
        let number = self.value.text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            self.wrong(&format!(
                "is not a whole number from {} to {}",
                range.start(),
                range.end()
            ))
        })
    }

    /// A time from 0 to a day.
    pub(crate) fn millis(&self) -> Result<u64, UriError> {
        self.integer(0..=MILLIS_MAX).map(i64::unsigned_abs)
    }

    /// A time from 0 to a day, or −1 for none.
    pub(crate) fn millis_or_none(&self) -> Result<Option<u64>, UriError> {
        self.integer(-1..=MILLIS_MAX).map(|millis| u64::try_from(millis).ok())
    }

    pub(crate) fn multiplier(&self) -> Result<f64, UriError> {
        let number = self
            .value
            .text
            .parse::<f64>()
            .ok()
            .filter(|number| (1.0..=100.0).contains(number));
        number.ok_or_else(|| self.wrong("is not a number from 1 to 100"))
    }

    pub(crate) fn text(&self) -> String {
        self.value.text.to_owned()
    }

    /// Options for the wire of ActiveMQ's own clients and bridges, without meaning here.
    pub(crate) fn is_tolerated(&self) -> bool {
        let name = self.name.text;
        ["wireFormat.", "nested.", "socket.", "transport.", "jms."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || TOLERATED.contains(&name)
    }

    pub(crate) fn warning(&self) -> String {
        format!(
            "option '{}' at column {} has no effect",
            self.name.text, self.name.column
        )
    }

    pub(crate) fn unknown(&self, known: &[&[&str]]) -> UriError {
        let known = known.concat();
        let cure = match nearest(self.name.text, &known) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("known are {}", known.join(", ")),
        };
        self.name.error(format!("unknown option '{}'", self.name.text), cure)
    }

    fn wrong(&self, what: &str) -> UriError {
        let (name, value) = (self.name.text, self.value.text);
        self.value.error(format!("{name}: '{value}' @ {what}"), "")
    }
}

/// Options of ActiveMQ's TCP transport and network connectors that are often written and harmless to ignore.
const TOLERATED: [&str; 10] = [
    "keepAlive",
    "soTimeout",
    "connectionTimeout",
    "tcpNoDelay",
    "trace",
    "daemon",
    "useLocalHost",
    "socketBufferSize",
    "ioBufferSize",
    "soLinger",
];

const MILLIS_MAX: i64 = 24 * 3600 * 1000;
