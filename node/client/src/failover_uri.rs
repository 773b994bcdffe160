//! `failover:(tcp://a:61613,tcp://b:61613)?option=…` → [`Endpoints`]. The language is discovery's.

use std::time::Duration;

use ferrymq_discovery::FailoverUri;

use crate::{
    endpoints::{Endpoints, SECURE},
    error::ConnectError,
    options::Options,
};

impl Endpoints {
    /// Reads the URI; its pauses are bounded by the options.
    ///
    /// # Errors
    /// Where it cannot be understood, with the column and the cure, or asks for what is not offered.
    pub(crate) fn parse(uri: &str, options: &Options) -> Result<Self, ConnectError> {
        let parsed = FailoverUri::parse(uri).map_err(|error| ConnectError::Uri(error.to_string()))?;
        for warning in &parsed.warnings {
            tracing::warn!(uri, "{warning}");
        }
        let known = |scheme: &str| PLAIN.contains(&scheme) || ENCRYPTED.contains(&scheme);
        if let Some(node) = parsed.nodes.iter().find(|node| !known(&node.scheme)) {
            let text = format!("{node}: this client speaks TCP only; write tcp:// or ssl://");
            return Err(ConnectError::Uri(text));
        }
        let wanted = parsed.options;
        let passes = |attempts: Option<u64>| attempts.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        // Without `failover:` there is one address and one attempt, as in ActiveMQ.
        let once = (!parsed.failover).then_some(0);
        Ok(Self {
            addresses: parsed
                .nodes
                .iter()
                .map(|node| address(&node.scheme, &node.host, node.port))
                .collect(),
            randomize: wanted.randomize,
            initial_delay: Duration::from_millis(wanted.initial_reconnect_delay_ms),
            delay_max: Duration::from_millis(wanted.max_reconnect_delay_ms).min(options.reconnect_delay_max),
            multiplier: if wanted.use_exponential_back_off {
                wanted.back_off_multiplier
            } else {
                1.0
            },
            passes_max: once.or(passes(wanted.max_reconnect_attempts)),
            startup_passes_max: once.or(passes(wanted.startup_max_reconnect_attempts)),
            send_timeout: wanted.timeout_ms.map(Duration::from_millis),
        })
    }
}

/// Schemes that mean plain TCP.
const PLAIN: [&str; 4] = ["tcp", "nio", "auto", "stomp"];
/// Schemes that mean TLS.
const ENCRYPTED: [&str; 4] = ["ssl", "tcp+ssl", "nio+ssl", "auto+ssl"];

fn address(scheme: &str, host: &str, port: u16) -> String {
    let before = if ENCRYPTED.contains(&scheme) { SECURE } else { "" };
    let bare = host.trim_matches(['[', ']']);
    if bare.contains(':') {
        format!("{before}[{bare}]:{port}")
    } else {
        format!("{before}{bare}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::Random;

    fn parse(uri: &str) -> Endpoints {
        Endpoints::parse(uri, &Options::default()).unwrap()
    }

    #[test]
    fn the_documented_options_count_and_pauses_are_bounded() {
        let endpoints = parse(
            "failover:(tcp://a:1, nio://[::1]:2)?randomize=false&initialReconnectDelay=100&backOffMultiplier=3\
             &maxReconnectAttempts=7&startupMaxReconnectAttempts=2&timeout=3000",
        );
        assert_eq!(endpoints.addresses, ["a:1", "[::1]:2"]);
        let mut random = Random::new();
        assert_eq!(endpoints.order(None, &mut random), ["a:1", "[::1]:2"]);
        assert_eq!(endpoints.order(Some("a:1"), &mut random), ["[::1]:2", "a:1"]);
        assert_eq!(
            (endpoints.passes_max(true), endpoints.passes_max(false)),
            (Some(2), Some(7))
        );
        assert_eq!(endpoints.send_timeout, Some(Duration::from_millis(3_000)));
        for (pass, most_ms) in [
            (1, 100),
            (2, 300),
            (3, 900),
            (4, 2_000),
            (1_000, 2_000),
            (u32::MAX, 2_000),
        ] {
            let pause = endpoints.pause(pass, &mut random).as_millis();
            assert!((most_ms / 2..=most_ms).contains(&pause), "{pass}: {pause} of {most_ms}");
        }
        assert_eq!(parse("failover:(tcp://a:1)").passes_max(true), None);
        assert_eq!(parse("tcp://a:1").passes_max(true), Some(0));
    }

    #[test]
    fn what_is_encrypted_is_told_apart() {
        let endpoints = parse("failover:(ssl://a:1,tcp://b:2,nio+ssl://[::1]:3)?randomize=false");
        assert_eq!(endpoints.addresses, ["ssl://a:1", "b:2", "ssl://[::1]:3"]);
        assert!(endpoints.wants_tls() && !parse("tcp://a:1").wants_tls());
    }

    #[test]
    fn a_random_order_keeps_every_address_and_puts_the_lost_one_last() {
        let endpoints = parse("failover:(tcp://a:1,tcp://b:1,tcp://c:1)");
        let mut random = Random::new();
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let order = endpoints.order(Some("b:1"), &mut random);
            assert_eq!(order[2], "b:1");
            firsts.insert(order[0].clone());
            let mut sorted = order;
            sorted.sort();
            assert_eq!(sorted, ["a:1", "b:1", "c:1"]);
        }
        assert_eq!(firsts.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (uri, told) in [
            ("failover:(tcp://a:x)", "port"),
            ("failover:(tcp://a:1)?randomise=true", "randomize"),
            ("failover:(quic://a:1)", "TCP only"),
        ] {
            let error = Endpoints::parse(uri, &Options::default()).unwrap_err().to_string();
            assert!(error.contains(told), "{uri}: {error}");
        }
    }
}
