//! The network interfaces over which a node announces itself.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use if_addrs::Interface;

/// The IPv4 interfaces to use, by name, each with its first address: the one that `wanted` names or whose address it
/// is; without a wish every one that is up, and loopback only if there is no other.
pub(crate) fn ipv4_interfaces(wanted: Option<&str>) -> io::Result<BTreeMap<String, Ipv4Addr>> {
    Ok(choose(if_addrs::get_if_addrs()?, wanted))
}

fn choose(all: Vec<Interface>, wanted: Option<&str>) -> BTreeMap<String, Ipv4Addr> {
    let is_wanted = |interface: &Interface| match wanted {
        Some(wanted) => interface.name == wanted || interface.ip().to_string() == wanted,
        None => interface.is_oper_up() && !interface.is_loopback() && !interface.is_p2p(),
    };
    let mut chosen = by_name(all.iter().filter(|interface| is_wanted(interface)));
    if chosen.is_empty() && wanted.is_none() {
        chosen = by_name(all.iter().filter(|interface| interface.is_loopback()));
    }
    chosen
}

fn by_name<'a>(interfaces: impl Iterator<Item = &'a Interface>) -> BTreeMap<String, Ipv4Addr> {
    let mut named = BTreeMap::new();
    for interface in interfaces {
        if let IpAddr::V4(ip) = interface.ip() {
            named.entry(interface.name.clone()).or_insert(ip);
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use if_addrs::{IfAddr, IfOperStatus, Ifv4Addr};

    use super::*;

    fn interface(name: &str, ip: [u8; 4], up: bool) -> Interface {
        let addr = IfAddr::V4(Ifv4Addr {
            ip: ip.into(),
            netmask: [255, 0, 0, 0].into(),
            prefixlen: 8,
            broadcast: None,
        });
        let oper_status = if up { IfOperStatus::Up } else { IfOperStatus::Down };
        Interface {
            name: name.to_owned(),
            addr,
            index: None,
            oper_status,
            is_p2p: false,
        }
    }

    fn names(all: &[Interface], wanted: Option<&str>) -> Vec<String> {
        choose(all.to_vec(), wanted).into_keys().collect()
    }

    #[test]
    fn loopback_only_when_wanted_or_alone() {
        let (lo, eth0, eth1) = (
            interface("lo", [127, 0, 0, 1], true),
            interface("eth0", [10, 0, 0, 1], true),
            interface("eth1", [10, 1, 0, 1], false),
        );
        let all = [
            lo.clone(),
            eth0.clone(),
            interface("eth0", [10, 0, 0, 2], true),
            eth1.clone(),
        ];
        assert_eq!(names(&all, None), ["eth0"]);
        assert_eq!(choose(all.to_vec(), None)["eth0"], Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(names(&all, Some("127.0.0.1")), ["lo"]);
        assert_eq!(names(&all, Some("eth1")), ["eth1"]);
        assert_eq!(names(&[lo, eth1], None), ["lo"]);
        assert!(names(&[eth0], Some("wlan0")).is_empty());
    }
}
