//! The URIs with which a node is told where to look for others, as ActiveMQ users write them.
//!
//! ```text
//! static:(tcp://a:61617, tcp://b:61617)?opts   static://(…)   static:tcp://a:1   static:{…}
//! masterslave:(tcp://m:1,tcp://s:1)   static:(failover:(tcp://a:1,tcp://b:1))   tcp://a:1
//! multicast://default?group=x   multicast://239.255.2.9:6199   mdns://   mdns:name   zeroconf:_name.
//! ```

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::{NODE_SCHEMES, NodeAddress, unknown_scheme};
use crate::failover::FailoverOptions;
use crate::options::{RECONNECT_NAMES, ReconnectOptions, UriOption, Written};
use crate::scan::{Scan, UriError};

/// Where to look for other groups. Read from and written as its text in configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Uri {
    /// A fixed list.
    Static(StaticUri),
    /// Announcements by UDP multicast.
    Multicast(MulticastUri),
    /// Announcements by mDNS.
    Mdns(MdnsUri),
}

/// A fixed list of groups.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StaticUri {
    /// One entry for each group: the nodes of it that are known. A plain list has one node in each entry; nodes of
    /// the same group in different entries do no harm, as they are merged when they have answered.
    pub lists: Vec<Vec<NodeAddress>>,
    /// How to come back.
    pub reconnect: ReconnectOptions,
    /// Options that were tolerated without effect.
    pub warnings: Vec<String>,
}

/// Where to announce and listen by multicast.
#[derive(Debug, Clone, PartialEq)]
pub struct MulticastUri {
    /// The multicast address.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// `group`: only nodes with the same one see each other.
    pub group: String,
    /// `timeToLive`: how many routers may pass it on, plus 1.
    pub time_to_live: u8,
    /// `loopBackMode`. As in Java, `true` *disables* the loop, so that nodes on one machine do not see each other.
    pub loop_back_mode: bool,
    /// `keepAliveInterval`, milliseconds between announcements; a node expires after ten times this.
    pub keep_alive_interval_ms: u64,
    /// `interface` (also `networkInterface`, `joinNetworkInterface`): name or address of the only one to use.
    pub interface: Option<String>,
    /// How to come back.
    pub reconnect: ReconnectOptions,
}

/// Where to announce and listen by mDNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MdnsUri {
    /// Only nodes with the same one see each other.
    pub group: String,
    /// `interface`: name or address of the only one to use.
    pub interface: Option<String>,
}

impl Default for MulticastUri {
    fn default() -> Self {
        Self {
            address: MULTICAST_ADDRESS,
            port: MULTICAST_PORT,
            group: DEFAULT.to_owned(),
            time_to_live: 1,
            loop_back_mode: false,
            keep_alive_interval_ms: 500,
            interface: None,
            reconnect: ReconnectOptions::default(),
        }
    }
}

impl Uri {
    /// Reads a URI.
    ///
    /// # Errors
    /// The first thing that is wrong, with its column and a cure.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let mut scan = Scan::new(text);
        scan.skip_spaces();
        let scheme = scan.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '_'));
        if scheme.text.is_empty() || !scan.take(":") {
            return Err(scan.error("missing scheme", "write for example static:(tcp://host:port)"));
        }
        let uri = match scheme.text {
            "static" | "masterslave" | "failover" => Self::Static(StaticUri::parse_rest(scheme.text, &mut scan)?),
            "multicast" => Self::Multicast(MulticastUri::parse_rest(&mut scan)?),
            "mdns" | "zeroconf" => Self::Mdns(MdnsUri::parse_rest(&mut scan)?),
            node if NODE_SCHEMES.contains(&node) => {
                let node = NodeAddress::parse_rest(node, &mut scan)?;
                let mut uri = StaticUri {
                    lists: vec![vec![node]],
                    ..StaticUri::default()
                };
                uri.parse_options(&mut scan)?;
                Self::Static(uri)
            }
            _ => return Err(unknown_scheme(scheme, &[&SCHEMES[..], &NODE_SCHEMES].concat())),
        };
        scan.skip_spaces();
        match scan.peek() {
            None => Ok(uri),
            Some(c) => Err(scan.error(format!("unexpected '{c}'"), "the URI should end here")),
        }
    }
}

impl StaticUri {
    fn parse_rest(scheme: &str, scan: &mut Scan<'_>) -> Result<Self, UriError> {
        let mut uri = Self::default();
        if scheme != "static" {
            // As MasterSlaveDiscoveryAgent rewrites its list.
            uri.reconnect.randomize = false;
        }
        let items = parse_list(scheme, scan, &mut uri.warnings, 0)?;
        uri.lists = if scheme == "static" {
            items
        } else {
            vec![items.concat()]
        };
        uri.parse_options(scan)?;
        Ok(uri)
    }

    fn parse_options(&mut self, scan: &mut Scan<'_>) -> Result<(), UriError> {
        for option in UriOption::parse_all(scan)? {
            if option.is_tolerated() {
                self.warnings.push(option.warning());
            } else if !self.reconnect.take(&option)? {
                return Err(option.unknown(&[&RECONNECT_NAMES]));
            }
        }
        Ok(())
    }
}

/// Reads `(a,b,…)`, `{a,b,…}`, either after `//`, or bare `a,b,…`; each item a node or a list of one group's nodes.
pub(crate) fn parse_list(
    scheme: &str,
    scan: &mut Scan<'_>,
    warnings: &mut Vec<String>,
    depth: usize,
) -> Result<Vec<Vec<NodeAddress>>, UriError> {
    if depth > DEPTH_MAX {
        return Err(scan.error("too many lists within lists", "one list of lists is enough"));
    }
    scan.take("//");
    scan.skip_spaces();
    let opened = scan.column();
    let close = match (scan.take("("), scan.take("{")) {
        (true, _) => Some(")"),
        (_, true) => Some("}"),
        _ => None,
    };
    let mut items = Vec::new();
    loop {
        scan.skip_spaces();
        if scan.peek().is_none_or(|c| matches!(c, ',' | ')' | '}' | '?')) {
            let what = if items.is_empty() && scan.peek() != Some(',') {
                "the list is empty"
            } else {
                "missing address"
            };
            return Err(scan.error(what, format!("write {scheme}:(tcp://host:port,tcp://host:port)")));
        }
        items.push(parse_item(scan, warnings, close.is_some(), depth)?);
        if items.iter().map(Vec::len).sum::<usize>() > NODES_MAX {
            return Err(scan.error(format!("more than {NODES_MAX} addresses"), "use multicast or mdns"));
        }
        scan.skip_spaces();
        if scan.take(",") {
            continue;
        }
        let Some(close) = close else { return Ok(items) };
        if scan.take(close) {
            return Ok(items);
        }
        return Err(match scan.peek() {
            None | Some(')' | '}') => scan.error(
                format!("missing {close}"),
                format!("the list was opened at column {opened}"),
            ),
            Some(c) => scan.error(
                format!("unexpected '{c}'"),
                format!("write a comma between addresses or {close}"),
            ),
        });
    }
}

fn parse_item(
    scan: &mut Scan<'_>,
    warnings: &mut Vec<String>,
    enclosed: bool,
    depth: usize,
) -> Result<Vec<NodeAddress>, UriError> {
    let scheme = scan.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '_' | '.'));
    if scheme.text.is_empty() || !scan.take(":") {
        let cure = format!(
            "write tcp://{}",
            if scheme.text.is_empty() {
                "host:port"
            } else {
                scheme.text
            }
        );
        return Err(scheme.error(format!("missing scheme of '{}'", scheme.text), cure));
    }
    let nodes = match scheme.text {
        "failover" | "masterslave" | "static" => parse_list(scheme.text, scan, warnings, depth + 1)?.concat(),
        node if NODE_SCHEMES.contains(&node) => vec![NodeAddress::parse_rest(node, scan)?],
        // tcp was forgotten: host:port was read as scheme:rest.
        host if scan.peek().is_some_and(|c| c.is_ascii_digit()) => {
            let port = scan.take_while(|c| c.is_ascii_digit());
            let cure = format!("write tcp://{host}:{}", port.text);
            return Err(scheme.error(format!("missing scheme of '{host}:{}'", port.text), cure));
        }
        _ => {
            return Err(unknown_scheme(
                scheme,
                &[&["failover", "masterslave"], &NODE_SCHEMES[..]].concat(),
            ));
        }
    };
    if enclosed {
        for option in UriOption::parse_all(scan)? {
            let known = ReconnectOptions::default().take(&option)? || FailoverOptions::default().take(&option)?;
            if !known && !option.is_tolerated() {
                return Err(option.unknown(&[&RECONNECT_NAMES]));
            }
            warnings.push(option.warning());
        }
    }
    Ok(nodes)
}

impl MulticastUri {
    fn parse_rest(scan: &mut Scan<'_>) -> Result<Self, UriError> {
        let mut uri = Self::default();
        scan.take("//");
        let host = scan.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '[' | '_'));
        if !matches!(host.text, "" | DEFAULT) {
            let address = host.text.parse::<Ipv4Addr>().ok().filter(Ipv4Addr::is_multicast);
            uri.address = address.ok_or_else(|| {
                host.error(
                    format!(
                        "'{}' @ is not an IPv4 multicast address (224.0.0.0 to 239.255.255.255)",
                        host.text
                    ),
                    "write multicast://default or for example multicast://239.255.2.3:6155",
                )
            })?;
        }
        if scan.take(":") {
            let port = scan.take_while(|c| !matches!(c, '?' | '/') && !c.is_whitespace());
            uri.port = port.text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                port.error(
                    format!("port '{}' @ is not a number between 1 and 65535", port.text),
                    format!("ActiveMQ's is {MULTICAST_PORT}"),
                )
            })?;
        }
        scan.take("/");
        for option in UriOption::parse_all(scan)? {
            match option.name.text {
                "group" => uri.group = group(&option)?,
                "timeToLive" => uri.time_to_live = option.integer(0..=255)? as u8,
                "loopBackMode" => uri.loop_back_mode = option.bool()?,
                "keepAliveInterval" => uri.keep_alive_interval_ms = option.integer(10..=3_600_000)?.unsigned_abs(),
                "interface" | "networkInterface" | "joinNetworkInterface" => uri.interface = Some(option.text()),
                _ if uri.reconnect.take(&option)? => {}
                _ => return Err(option.unknown(&[&MULTICAST_NAMES, &RECONNECT_NAMES])),
            }
        }
        Ok(uri)
    }
}

impl MdnsUri {
    fn parse_rest(scan: &mut Scan<'_>) -> Result<Self, UriError> {
        scan.take("//");
        let name = scan.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        scan.take("/");
        let group_name = name.text.trim_start_matches('_').trim_end_matches('.');
        let mut uri = Self {
            group: if group_name.is_empty() { DEFAULT } else { group_name }.to_owned(),
            interface: None,
        };
        if uri.group.len() > GROUP_BYTES_MAX {
            return Err(name.error("the name is too long", format!("at most {GROUP_BYTES_MAX} characters")));
        }
        for option in UriOption::parse_all(scan)? {
            match option.name.text {
                "group" => uri.group = group(&option)?,
                "interface" | "networkInterface" => uri.interface = Some(option.text()),
                _ => return Err(option.unknown(&[&MDNS_NAMES])),
            }
        }
        Ok(uri)
    }
}

fn group(option: &UriOption<'_>) -> Result<String, UriError> {
    let text = option.text();
    if text.is_empty() || text.len() > GROUP_BYTES_MAX {
        return Err(option.value.error(
            "group is empty or too long",
            format!("1 to {GROUP_BYTES_MAX} characters"),
        ));
    }
    Ok(text)
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Uri {
    type Error = UriError;

    fn try_from(text: String) -> Result<Self, UriError> {
        Self::parse(&text)
    }
}

impl From<Uri> for String {
    fn from(uri: Uri) -> Self {
        uri.to_string()
    }
}

/// In the shortest form that reads back as the same, warnings apart.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = match self {
            Self::Static(uri) => {
                f.write_str("static:(")?;
                for (place, list) in uri.lists.iter().enumerate() {
                    let comma = if place > 0 { "," } else { "" };
                    let nodes = list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                    if list.len() == 1 {
                        write!(f, "{comma}{nodes}")?
                    } else {
                        write!(f, "{comma}failover:({nodes})")?
                    }
                }
                f.write_str(")")?;
                uri.reconnect.written(&ReconnectOptions::default())
            }
            Self::Multicast(uri) => {
                let default = MulticastUri::default();
                if (uri.address, uri.port) == (default.address, default.port) {
                    write!(f, "multicast://{DEFAULT}")?;
                } else {
                    write!(f, "multicast://{}:{}", uri.address, uri.port)?;
                }
                let mut out = Written::default();
                out.add("group", &uri.group, &default.group);
                out.add("timeToLive", &uri.time_to_live, &default.time_to_live);
                out.add("loopBackMode", &uri.loop_back_mode, &default.loop_back_mode);
                out.add(
                    "keepAliveInterval",
                    &uri.keep_alive_interval_ms,
                    &default.keep_alive_interval_ms,
                );
                out.add("interface", &uri.interface.clone().unwrap_or_default(), &String::new());
                out.0.extend(uri.reconnect.written(&default.reconnect));
                out.0
            }
            Self::Mdns(uri) => {
                write!(f, "mdns://{}", uri.group)?;
                uri.interface
                    .iter()
                    .map(|interface| format!("interface={interface}"))
                    .collect()
            }
        };
        if options.is_empty() {
            Ok(())
        } else {
            write!(f, "?{}", options.join("&"))
        }
    }
}

const DEFAULT: &str = "default";
/// What `multicast://default` stands for in ActiveMQ (MulticastDiscoveryAgent.java).
const MULTICAST_ADDRESS: Ipv4Addr = Ipv4Addr::new(239, 255, 2, 3);
const MULTICAST_PORT: u16 = 6155;
const SCHEMES: [&str; 6] = ["static", "masterslave", "failover", "multicast", "mdns", "zeroconf"];
const MULTICAST_NAMES: [&str; 7] = [
    "group",
    "timeToLive",
    "loopBackMode",
    "keepAliveInterval",
    "interface",
    "networkInterface",
    "joinNetworkInterface",
];
const MDNS_NAMES: [&str; 3] = ["group", "interface", "networkInterface"];
/// Longest name of a discovery group, in bytes.
pub(crate) const GROUP_BYTES_MAX: usize = 64;
/// Most addresses in one URI.
const NODES_MAX: usize = 256;
const DEPTH_MAX: usize = 4;
