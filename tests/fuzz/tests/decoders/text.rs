//! What people write: configuration files and URIs.

use ferrymq_discovery::{FailoverUri, Uri};
use ferrymq_fuzz::Target;

const ALONE: &str = "node = 1\ngroup = \"north\"\ndata = \"/var/lib/ferrymq\"\n";

const FULL: &str = r#"node = 2
group = "north"
data = "/var/lib/ferrymq"

[members]
1 = "10.0.0.1:61617"
2 = { peer = "10.0.0.2:61617", stomp = "b:61613", link = "b:61618", admin = "b:8161" }
3 = "10.0.0.3:61617"

[listen]
stomp = "0.0.0.0:61613"
peer = "10.0.0.2:61617"
link = "[::]:61618"
admin = "off"

[mesh]
secret = "a secret of sixteen bytes or more"
connectors = ["static:(tcp://10.0.1.1:61618,tcp://10.0.1.2:61618)", "multicast://default?group=x", "mdns:"]

[[connector]]
name = "south"
uri = "masterslave:(tcp://a:1,tcp://b:2)"
excluded = ["queue://LOCAL.>", "topic://*.x"]
included = ["queue://>"]

[store]
sync = "quorum_mem"
segment = "64MiB"
limit = "100GiB"
reserve = "1 GiB"

[limits]
frame = "1MiB"
connections = 5_000
memory = "256MiB"
dead_letter_queue = "queue://DLQ"
expired_to_dead_letter = false

[timers]
heartbeat = "60ms"
election_min = "250 ms"
election_max = "1.5s"

[log]
level = "info,ferrymq=debug"
"#;

#[test]
fn fuzz_configuration() {
    Target::new("configuration")
        .seeds([ALONE, FULL])
        .words([
            "[",
            "[[",
            "]",
            "]]",
            "{",
            "}",
            "=",
            "\"",
            "\"\"\"",
            "'",
            ",",
            "\n",
            "#",
            ".",
            "[limits]\n",
            "[listen]\n",
            "memory = ",
            "\"1MiB\"",
            "\"99999999999999999999GiB\"",
            "1e999",
            "-1",
            "0x7fffffffffffffff",
            "\\u0000",
            "a.b.c = 1\n",
            "true",
            "1979-05-27T07:32:00Z",
            "ü",
            "[[connector]]\n",
            "uri = \"static:(",
            "x = [",
            "{a={",
        ])
        .bytes_max(32 << 10)
        // Each problem is a text of its own, with its line.
        .allocates(4_000, 1 << 20)
        .takes(20_000, 500)
        .rounds(1_500)
        .run(|input| {
            let Ok(text) = std::str::from_utf8(input) else {
                return "not text".into();
            };
            match ferrymq_conf::read("fuzz.toml", text, []) {
                Ok(loaded) => format!("good, {} warnings", loaded.warnings.len().min(4)),
                Err(problems) => {
                    assert!(!problems.0.is_empty(), "refused without a word");
                    let shown = problems.to_string();
                    assert!(!shown.contains("a secret of sixteen"), "a secret is shown: {shown}");
                    let first = &problems.0[0].text;
                    format!(
                        "{} {}",
                        problems.0.len().min(4),
                        first.chars().take(24).collect::<String>()
                    )
                }
            }
        });
}

#[test]
fn fuzz_uris() {
    Target::new("uris")
        .seeds([
            "static:(tcp://a:61617, tcp://[::1]:61618)?initialReconnectDelay=5&useExponentialBackOff=false",
            "static:(masterslave:(tcp://a:1,tcp://b:2),failover:(tcp://c:1,tcp://d:2)?timeout=3000)",
            "multicast://239.255.2.9:6199?group=x&timeToLive=2&interface=eth0&loopBackMode=true",
            "mdns:name",
            "failover:(tcp://a:1,ssl://b:2)?randomize=false&maxReconnectDelay=100&nested.keepAlive=true",
            "auto+nio+ssl://h:1?wireFormat.maxInactivityDuration=0",
        ])
        .words([
            "static:(",
            "failover:(",
            "masterslave:(",
            "multicast://",
            "mdns:",
            "tcp://",
            "(",
            ")",
            "{",
            "}",
            ",",
            "?",
            "&",
            "=",
            ":",
            "//",
            "[",
            "]",
            "%41",
            "%",
            " ",
            "65536",
            "99999999999999999999",
            "group=",
            "timeout=",
            "ü",
            "\u{0}",
            "static:",
        ])
        .bytes_max(16 << 10)
        .allocates(2_000, 256 << 10)
        .run(|input| {
            let Ok(text) = std::str::from_utf8(input) else {
                return "not text".into();
            };
            let short = |text: String| text.chars().take(30).collect::<String>();
            let found = match Uri::parse(text) {
                Ok(uri) => {
                    let written = uri.to_string();
                    let again = Uri::parse(&written).unwrap_or_else(|error| panic!("{written:?}: {error}"));
                    assert_eq!(again.to_string(), written, "what is written reads as something else");
                    written.split(':').next().unwrap_or("").to_owned()
                }
                Err(error) => short(error.to_string()),
            };
            let client = match FailoverUri::parse(text) {
                Ok(uri) => {
                    let written = uri.to_string();
                    let again = FailoverUri::parse(&written).unwrap_or_else(|error| panic!("{written:?}: {error}"));
                    assert_eq!(again.to_string(), written, "what is written reads as something else");
                    "failover".to_owned()
                }
                Err(error) => short(error.to_string()),
            };
            found + &client
        });
}
