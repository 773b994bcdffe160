//! The URIs that ActiveMQ users write, those that they mistype, and what they are told then.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;

use ferrymq_discovery::{FailoverUri, MdnsUri, MulticastUri, Uri};

/// The entries of a static URI, nodes joined by `+`.
fn lists(text: &str) -> Vec<String> {
    match Uri::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")) {
        Uri::Static(uri) => uri
            .lists
            .iter()
            .map(|list| {
                list.iter()
                    .map(|node| format!("{}:{}", node.host, node.port))
                    .collect::<Vec<_>>()
                    .join("+")
            })
            .collect(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn fixed_lists_in_every_spelling() {
    for (text, expected) in [
        ("static:(tcp://a:61617,tcp://b:61618)", &["a:61617", "b:61618"][..]),
        ("static:(tcp://a:61617, tcp://b:61618)", &["a:61617", "b:61618"]),
        ("  static://( tcp://a:1 ,\n ssl://b:2 ) ", &["a:1", "b:2"]),
        ("static:{tcp://a:1,tcp://b:2}", &["a:1", "b:2"]),
        ("static:tcp://a:1", &["a:1"]),
        ("static:tcp://a:1,tcp://b:2?maxReconnectDelay=5", &["a:1", "b:2"]),
        (
            "static:(tcp://a:1/,nio://b:2,quic://c:3,auto+nio+ssl://d:4)",
            &["a:1", "b:2", "c:3", "d:4"],
        ),
        (
            "static:(tcp://[::1]:1,tcp://10.0.0.1:2,tcp://under_score.example.com:65535)",
            &["::1:1", "10.0.0.1:2", "under_score.example.com:65535"],
        ),
        ("masterslave:(tcp://m:1,tcp://s:2,tcp://t:3)", &["m:1+s:2+t:3"]),
        ("static:(failover:(tcp://a:1,tcp://b:2))", &["a:1+b:2"]),
        (
            "static:(failover:(tcp://a:1,tcp://b:2)?maxReconnectAttempts=0&timeout=3000,tcp://c:3)",
            &["a:1+b:2", "c:3"],
        ),
        ("static:(failover://{tcp://a:1,tcp://b:2})", &["a:1+b:2"]),
        (
            "static:(masterslave:(tcp://a:1,tcp://b:2),masterslave:(tcp://c:1,tcp://d:2))",
            &["a:1+b:2", "c:1+d:2"],
        ),
        ("failover:(tcp://a:1,tcp://b:2)", &["a:1+b:2"]),
        ("tcp://a:61617", &["a:61617"]),
        (
            "static:(tcp://a:1?wireFormat.maxInactivityDuration=0&keepAlive=true,tcp://b:2)",
            &["a:1", "b:2"],
        ),
    ] {
        assert_eq!(lists(text), expected, "{text}");
    }
}

#[test]
fn options_are_read_and_harmless_ones_warned_about() {
    let text = "static:(tcp://a:1)?initialReconnectDelay=5&amp;maxReconnectDelay=6&useExponentialBackOff=FALSE\
                &backOffMultiplier=1.5&maxReconnectAttempts=-1&minConnectTime=7&randomize=false&wireFormat.x=1";
    let Uri::Static(uri) = Uri::parse(text).unwrap() else {
        panic!("{text}")
    };
    let reconnect = &uri.reconnect;
    assert_eq!(
        (reconnect.initial_reconnect_delay_ms, reconnect.max_reconnect_delay_ms),
        (5, 6)
    );
    assert_eq!(
        (reconnect.back_off_multiplier, reconnect.max_reconnect_attempts),
        (1.5, -1)
    );
    assert_eq!(
        (
            reconnect.min_connect_time_ms,
            reconnect.use_exponential_back_off,
            reconnect.randomize
        ),
        (7, false, false)
    );
    assert_eq!(
        uri.warnings,
        [format!(
            "option 'wireFormat.x' at column {} has no effect",
            text.find("wire").unwrap() + 1
        )]
    );
}

#[test]
fn multicast_and_mdns() {
    let default = MulticastUri::default();
    assert_eq!((default.address, default.port), (Ipv4Addr::new(239, 255, 2, 3), 6155));
    for (text, expected) in [
        ("multicast://default", default.clone()),
        ("multicast:default", default.clone()),
        (
            "multicast://default?group=x&timeToLive=4&loopBackMode=true&keepAliveInterval=700&networkInterface=eth1",
            MulticastUri {
                group: "x".to_owned(),
                time_to_live: 4,
                loop_back_mode: true,
                keep_alive_interval_ms: 700,
                interface: Some("eth1".to_owned()),
                ..default.clone()
            },
        ),
        (
            "multicast://239.255.2.9:6199?group=y",
            MulticastUri {
                address: Ipv4Addr::new(239, 255, 2, 9),
                port: 6199,
                group: "y".to_owned(),
                ..default.clone()
            },
        ),
    ] {
        assert_eq!(Uri::parse(text), Ok(Uri::Multicast(expected)), "{text}");
    }
    for (text, group) in [
        ("mdns:", "default"),
        ("mdns://", "default"),
        ("mdns://default", "default"),
        ("mdns://?group=z", "z"),
        ("zeroconf:_activemq_development.", "activemq_development"),
        ("zeroconf://_x", "x"),
    ] {
        let expected = MdnsUri {
            group: group.to_owned(),
            interface: None,
        };
        assert_eq!(Uri::parse(text), Ok(Uri::Mdns(expected)), "{text}");
    }
}

#[test]
fn what_is_displayed_reads_back_the_same() {
    for text in [
        "static:(tcp://a:61617,ssl://[::1]:61618)?initialReconnectDelay=5&backOffMultiplier=1.5&randomize=false",
        "static:(failover:(tcp://a:1,tcp://b:2),tcp://c:3)",
        "multicast://default",
        "multicast://239.255.2.9:6199?group=y&timeToLive=2&interface=eth0&maxReconnectDelay=9",
        "mdns://default?interface=lo",
    ] {
        let uri = Uri::parse(text).unwrap();
        assert_eq!(uri.to_string(), text);
        assert_eq!(Uri::parse(&uri.to_string()), Ok(uri));
    }
    for text in [
        "failover:(tcp://a:61613,tcp://b:61613)?initialReconnectDelay=20&maxReconnectAttempts=3&timeout=50&randomize=false",
        "tcp://a:61613",
    ] {
        assert_eq!(FailoverUri::parse(text).unwrap().to_string(), text);
    }
}

/// Text, column, and the whole message with its cure.
const GOLDEN_ERRORS: &[(&str, usize, &str)] = &[
    (
        "static:(tcp://[::g]:1)",
        18,
        "missing ] at column 18; close the IPv6 address",
    ),
    (
        "static:(tcp://a:t3533)",
        17,
        "port 't3533' at column 17 is not a number between 1 and 65535; did you mean 3533?",
    ),
    (
        "static:(tcp://a:70000)",
        17,
        "port '70000' at column 17 is not a number between 1 and 65535; write a number in that range",
    ),
    (
        "static:(tcp://a:,tcp://b:1)",
        17,
        "port '' at column 17 is not a number between 1 and 65535; write the number of the port after the colon",
    ),
    ("static:(tcp://a)", 16, "missing port at column 16; write tcp://a:61616"),
    (
        "static:(tcp://:1)",
        15,
        "missing host at column 15; write the node's name or IP address before the colon",
    ),
    (
        "static:(tcp:a:1)",
        13,
        "missing // after 'tcp:' at column 13; write tcp://host:port",
    ),
    (
        "static:(tcp://a:1,tcp://b:2",
        28,
        "missing ) at column 28; the list was opened at column 8",
    ),
    (
        "static:(tcp://a:1}",
        18,
        "missing ) at column 18; the list was opened at column 8",
    ),
    (
        "static:{tcp://a:1",
        18,
        "missing } at column 18; the list was opened at column 8",
    ),
    (
        "static:(tcp://a:1))",
        19,
        "unexpected ')' at column 19; the URI should end here",
    ),
    (
        "static:(tcp://a:1 tcp://b:1)",
        19,
        "unexpected 't' at column 19; write a comma between addresses or )",
    ),
    (
        "static:()",
        9,
        "the list is empty at column 9; write static:(tcp://host:port,tcp://host:port)",
    ),
    (
        "static:(tcp://a:1,)",
        19,
        "missing address at column 19; write static:(tcp://host:port,tcp://host:port)",
    ),
    (
        "static:(a:61616)",
        9,
        "missing scheme of 'a:61616' at column 9; write tcp://a:61616",
    ),
    ("static:(a)", 9, "missing scheme of 'a' at column 9; write tcp://a"),
    (
        "static:(tpc://a:1)",
        9,
        "unknown scheme 'tpc' at column 9, did you mean 'tcp'?",
    ),
    (
        "mutlicast://default",
        1,
        "unknown scheme 'mutlicast' at column 1, did you mean 'multicast'?",
    ),
    (
        "carrier-pigeon://a:1",
        1,
        "unknown scheme 'carrier-pigeon' at column 1, known are static, masterslave, failover, multicast, mdns, \
         zeroconf, tcp, ssl, nio, quic, auto, nio+ssl, auto+nio, auto+ssl, auto+nio+ssl, tcp+ssl",
    ),
    (
        "",
        1,
        "missing scheme at column 1; write for example static:(tcp://host:port)",
    ),
    (
        "static:(tcp://a:1)?maxReconectDelay=5",
        20,
        "unknown option 'maxReconectDelay' at column 20; did you mean 'maxReconnectDelay'?",
    ),
    (
        "static:(tcp://a:1)?randomize",
        29,
        "option 'randomize' has no value at column 29; write randomize=value",
    ),
    (
        "static:(tcp://a:1)?randomize=yes",
        30,
        "randomize: 'yes' at column 30 is neither true nor false",
    ),
    (
        "static:(tcp://a:1)?maxReconnectDelay=-5",
        38,
        "maxReconnectDelay: '-5' at column 38 is not a whole number from 0 to 86400000",
    ),
    (
        "static:(tcp://a:1)?",
        20,
        "missing option name at column 20; write name=value after ? and &",
    ),
    (
        "multicast://10.0.0.1",
        13,
        "'10.0.0.1' at column 13 is not an IPv4 multicast address (224.0.0.0 to 239.255.255.255); write \
         multicast://default or for example multicast://239.255.2.3:6155",
    ),
    (
        "multicast://default:x",
        21,
        "port 'x' at column 21 is not a number between 1 and 65535; ActiveMQ's is 6155",
    ),
    (
        "multicast://default?gruop=x",
        21,
        "unknown option 'gruop' at column 21; did you mean 'group'?",
    ),
    (
        "static:(tcp://[1:2]:1)",
        16,
        "'1:2' at column 16 is not an IPv6 address; write it as in [::1]",
    ),
    (
        "static:(tcp://[::1:1)",
        21,
        "missing ] at column 21; close the IPv6 address",
    ),
    (
        "static:(tcp://a%b:1)",
        16,
        "'%' at column 16 cannot stand in a host; write a name or an IP address",
    ),
];

/// CVE-2022-41678, CVE-2026-49434: in ActiveMQ a URI could start a broker with a configuration from anywhere. Here a list
/// has nothing but addresses in it, however deep something else is put.
#[test]
fn what_would_start_or_load_something_is_refused_at_any_depth() {
    let schemes = [
        "vm",
        "http",
        "https",
        "file",
        "jar",
        "xbean",
        "properties",
        "broker",
        "ldap",
        "rmi",
        "jndi",
        "peer",
        "discovery",
        "fanout",
    ];
    let refused = |text: &str, scheme: &str, error: &str| {
        let column = text.find(&format!("{scheme}:")).unwrap() + 1;
        let expected = format!("unknown scheme '{scheme}' at column {column}");
        assert!(error.starts_with(&expected), "{text}: {error}");
    };
    for scheme in schemes {
        for before_and_after in [
            "|",
            "static:(|)",
            "static:|",
            "static:{tcp://a:1,|}",
            "masterslave:(tcp://a:1,|)",
            "static:(masterslave:(|,tcp://a:1))",
            "static:(tcp://a:1,static:(failover:(tcp://b:1,|)))",
        ] {
            let text = before_and_after.replace('|', &format!("{scheme}://b:1?brokerConfig=xbean:http://c/d.xml"));
            refused(&text, scheme, &Uri::parse(&text).unwrap_err().to_string());
        }
        for before_and_after in ["|", "failover:(|)", "failover:(tcp://a:1,|)"] {
            let text = before_and_after.replace('|', &format!("{scheme}://b:1?brokerConfig=xbean:http://c/d.xml"));
            refused(&text, scheme, &FailoverUri::parse(&text).unwrap_err().to_string());
        }
    }
    let hidden = "static:(tcp://a:1?brokerConfig=xbean:http://c/d.xml)";
    let error = Uri::parse(hidden).unwrap_err().to_string();
    assert!(
        error.starts_with("unknown option 'brokerConfig' at column 19"),
        "{error}"
    );
}

#[test]
fn golden_errors() {
    for (text, column, message) in GOLDEN_ERRORS {
        let error = Uri::parse(text).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.column),
            (*message, *column),
            "{text}"
        );
    }
}

#[test]
fn no_text_panics() {
    let texts = GOLDEN_ERRORS.iter().map(|(text, ..)| *text).chain([
        "static:(failover:(tcp://a:1,tcp://b:2)?x=1,tcp://c:3)?randomize=false",
        "multicast://239.255.2.9:6199?group=ü",
        "failover:(tcp://ä:1)",
    ]);
    for text in texts {
        for (at, c) in text.char_indices() {
            let _ = (Uri::parse(&text[..at]), FailoverUri::parse(&text[..at]));
            for other in ["(", ")", "?", ":", "ß", "\u{0}", ""] {
                let changed = format!("{}{other}{}", &text[..at], &text[at + c.len_utf8()..]);
                let _ = (Uri::parse(&changed), FailoverUri::parse(&changed));
            }
        }
    }
    let deep = format!("static:{}", "(failover:".repeat(10_000));
    assert!(Uri::parse(&deep).unwrap_err().message.starts_with("too many lists"));
    let long = format!("static:({})", vec!["tcp://a:1"; 257].join(","));
    assert!(
        Uri::parse(&long)
            .unwrap_err()
            .message
            .starts_with("more than 256 addresses")
    );
}

#[test]
fn failover_defaults_are_those_of_activemq() {
    let uri = FailoverUri::parse("failover:(tcp://a:61613,tcp://b:61613)").unwrap();
    let options = &uri.options;
    assert_eq!(
        (options.initial_reconnect_delay_ms, options.max_reconnect_delay_ms),
        (10, 30_000)
    );
    assert_eq!(
        (
            options.use_exponential_back_off,
            options.back_off_multiplier,
            options.randomize
        ),
        (true, 2.0, true)
    );
    assert_eq!(
        (
            options.max_reconnect_attempts,
            options.startup_max_reconnect_attempts,
            options.timeout_ms
        ),
        (None, None, None)
    );
    assert!(uri.failover && !options.priority_backup && uri.warnings.is_empty());
}

#[test]
fn failover_options_are_read() {
    let uri = FailoverUri::parse(
        "failover:(tcp://a:61613,tcp://b:61613)?randomize=false&initialReconnectDelay=10&maxReconnectDelay=30000\
         &maxReconnectAttempts=-1&startupMaxReconnectAttempts=0&timeout=3000&useExponentialBackOff=true\
         &backOffMultiplier=2.0&nested.wireFormat.cacheEnabled=false&trackMessages=true&priorityBackup=true",
    )
    .unwrap();
    assert_eq!(
        uri.nodes.iter().map(|node| node.host.as_str()).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(
        (uri.options.startup_max_reconnect_attempts, uri.options.timeout_ms),
        (Some(0), Some(3000))
    );
    assert!(!uri.options.randomize && uri.options.priority_backup);
    assert_eq!(uri.warnings.len(), 2, "{:?}", uri.warnings);

    let plain = FailoverUri::parse("tcp://h:1").unwrap();
    assert!(!plain.failover && plain.nodes.len() == 1);
    for (text, message) in [
        (
            "failover:(tcp://a:1)?randomise=true",
            "unknown option 'randomise' at column 22; did you mean 'randomize'?",
        ),
        (
            "fialover:(tcp://a:1)",
            "unknown scheme 'fialover' at column 1, did you mean 'failover'?",
        ),
        (
            "failover:(tcp://a:1)x",
            "unexpected 'x' at column 21; the URI should end here",
        ),
    ] {
        assert_eq!(FailoverUri::parse(text).unwrap_err().to_string(), message);
    }
}
