//! The merged picture of what all agents have heard: one candidate for each group. Pure; the time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::announcement::Announcement;

/// How a candidate was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A fixed list.
    Static,
    /// UDP multicast.
    Multicast,
    /// mDNS.
    Mdns,
}

/// A group to which a link may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The group's name; `None` for a fixed list that nobody has answered for yet.
    pub group: Option<String>,
    /// The group's id, if known.
    pub group_id: Option<u64>,
    /// The highest epoch announced, 0 if unknown.
    pub epoch: u64,
    /// The node to which the first endpoints belong, if known: the master, if one is announced.
    pub node: Option<u64>,
    /// Where to dial, the most promising first: the master's, then the other nodes', then the fixed list's.
    pub endpoints: Vec<SocketAddr>,
    /// Whether the first endpoints are the master's. A slave answers with its master's address.
    pub is_master: bool,
    /// How it was found.
    pub sources: BTreeSet<Source>,
    /// Which fixed list names it, counted over all URIs as [`Config::static_lists`](crate::Config::static_lists) does.
    pub static_list: Option<usize>,
}

/// What an agent reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// A node was heard. It is forgotten after `lifetime`, or when it is reported gone if there is none.
    Heard {
        announcement: Announcement,
        source: Source,
        lifetime: Option<Duration>,
    },
    /// A node that was heard by mDNS is gone.
    Gone {
        source: Source,
        group: String,
        group_id: u64,
        node: u64,
    },
    /// A fixed list was resolved.
    Resolved { list: usize, endpoints: Vec<SocketAddr> },
    /// A fixed list was found to be this group's.
    Known { list: usize, group: String, group_id: u64 },
}

/// How the table took an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    New,
    Known,
    Old,
    Full,
}

/// Every node heard and every fixed list. Ordered maps, so that the picture does not depend on chance.
#[derive(Debug)]
pub(crate) struct Peers {
    own: (String, u64),
    nodes_max: usize,
    /// Whether an announced address shows whose a fixed list is. Not if anyone may announce: a false announcement
    /// could then take a configured list away.
    announced_owns: bool,
    nodes: BTreeMap<NodeKey, Node>,
    lists: BTreeMap<usize, List>,
}

type GroupKey = (String, u64);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct NodeKey {
    group: GroupKey,
    node: u64,
}

#[derive(Debug)]
struct Node {
    announcement: Announcement,
    /// By source, when it will be forgotten.
    heard: BTreeMap<Source, Option<Instant>>,
}

#[derive(Debug, Default)]
struct List {
    endpoints: Vec<SocketAddr>,
    group: Option<GroupKey>,
}

impl Peers {
    /// `own` is this node's group, which is never a candidate. `nodes_max` bounds the table. With `announced_owns` a
    /// fixed list belongs to the group that announces one of its addresses.
    pub(crate) fn new(own: (String, u64), nodes_max: usize, announced_owns: bool) -> Self {
        Self {
            own,
            nodes_max,
            announced_owns,
            nodes: BTreeMap::new(),
            lists: BTreeMap::new(),
        }
    }

    /// Takes an announcement; the lifetime begins at `now`.
    pub(crate) fn heard(
        &mut self,
        announcement: Announcement,
        source: Source,
        lifetime: Option<Duration>,
        now: Instant,
    ) -> Taken {
        let group = (announcement.group.clone(), announcement.group_id);
        if group == self.own {
            return Taken::Known;
        }
        let key = NodeKey {
            group,
            node: announcement.node,
        };
        if let Some(node) = self.nodes.get(&key) {
            let known = (node.announcement.incarnation, node.announcement.epoch);
            if (announcement.incarnation, announcement.epoch) < known {
                return Taken::Old;
            }
        }
        if announcement.is_dead {
            self.nodes.remove(&key);
            return Taken::Known;
        }
        let expires = lifetime.map(|lifetime| now + lifetime);
        if let Some(node) = self.nodes.get_mut(&key) {
            node.announcement = announcement;
            node.heard.insert(source, expires);
            return Taken::Known;
        }
        if self.nodes.len() >= self.nodes_max {
            return Taken::Full;
        }
        self.nodes.insert(
            key,
            Node {
                announcement,
                heard: BTreeMap::from([(source, expires)]),
            },
        );
        Taken::New
    }

    /// Takes away what this source has said of the node.
    pub(crate) fn gone(&mut self, source: Source, group: String, group_id: u64, node: u64) {
        let key = NodeKey {
            group: (group, group_id),
            node,
        };
        if let Some(node) = self.nodes.get_mut(&key) {
            node.heard.remove(&source);
            if node.heard.is_empty() {
                self.nodes.remove(&key);
            }
        }
    }

    /// Sets a fixed list's addresses.
    pub(crate) fn resolved(&mut self, list: usize, endpoints: Vec<SocketAddr>) {
        self.lists.entry(list).or_default().endpoints = endpoints;
    }

    /// Notes whose a fixed list is, as a link has shown.
    pub(crate) fn known(&mut self, list: usize, group: String, group_id: u64) {
        self.lists.entry(list).or_default().group = Some((group, group_id));
    }

    /// Forgets what is over its time, and gives how many nodes that were.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let before = self.nodes.len();
        self.nodes.retain(|_, node| {
            node.heard
                .retain(|_, expires| expires.is_none_or(|expires| expires > now));
            !node.heard.is_empty()
        });
        before - self.nodes.len()
    }

    /// When [`expire`](Self::expire) will next find something.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.nodes
            .values()
            .flat_map(|node| node.heard.values())
            .flatten()
            .min()
            .copied()
    }

    /// The merged picture: announced groups by name, then fixed lists that are nobody's yet.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let mut groups: BTreeMap<&GroupKey, Vec<&Node>> = BTreeMap::new();
        for (key, node) in &self.nodes {
            groups.entry(&key.group).or_default().push(node);
        }
        let mut merged: BTreeMap<&GroupKey, Candidate> = groups
            .into_iter()
            .map(|(group, nodes)| (group, of_nodes(group, nodes)))
            .collect();
        let mut unknown = Vec::new();
        for (place, list) in &self.lists {
            match self.owner(list) {
                Some(group) => {
                    let candidate = merged.entry(group).or_insert_with(|| of_nodes(group, Vec::new()));
                    candidate.add_list(*place, list);
                }
                None => {
                    let mut candidate = Candidate::unknown();
                    candidate.add_list(*place, list);
                    unknown.push(candidate);
                }
            }
        }
        merged.remove(&self.own);
        merged.into_values().chain(unknown).collect()
    }

    /// Whose a list is: by a link, or because one of its addresses was announced.
    fn owner<'a>(&'a self, list: &'a List) -> Option<&'a GroupKey> {
        let announced = |node: &Node| {
            let mut endpoints = node.announcement.endpoints.iter();
            self.announced_owns && endpoints.any(|endpoint| list.endpoints.contains(endpoint))
        };
        let announcer = || {
            self.nodes
                .iter()
                .find(|(_, node)| announced(node))
                .map(|(key, _)| &key.group)
        };
        list.group.as_ref().or_else(announcer)
    }
}

impl Candidate {
    fn unknown() -> Self {
        Self {
            group: None,
            group_id: None,
            epoch: 0,
            node: None,
            endpoints: Vec::new(),
            is_master: false,
            sources: BTreeSet::new(),
            static_list: None,
        }
    }

    fn add_list(&mut self, place: usize, list: &List) {
        self.sources.insert(Source::Static);
        self.static_list = self.static_list.or(Some(place));
        self.add_endpoints(&list.endpoints);
    }

    fn add_endpoints(&mut self, endpoints: &[SocketAddr]) {
        for endpoint in endpoints {
            if !self.endpoints.contains(endpoint) {
                self.endpoints.push(*endpoint);
            }
        }
    }
}

/// The master of the highest epoch comes first, then who has the higher epoch.
fn of_nodes(group: &GroupKey, mut nodes: Vec<&Node>) -> Candidate {
    let epoch = nodes.iter().map(|node| node.announcement.epoch).max().unwrap_or(0);
    let is_master = |node: &&Node| node.announcement.is_master && node.announcement.epoch == epoch;
    nodes.sort_by_key(|node| {
        (
            !is_master(node),
            std::cmp::Reverse(node.announcement.epoch),
            node.announcement.node,
        )
    });
    let mut candidate = Candidate {
        group: Some(group.0.clone()),
        group_id: Some(group.1),
        epoch,
        node: nodes.first().map(|node| node.announcement.node),
        is_master: nodes.first().is_some_and(is_master),
        ..Candidate::unknown()
    };
    for node in nodes {
        candidate.add_endpoints(&node.announcement.endpoints);
        candidate.sources.extend(node.heard.keys());
    }
    candidate
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(group: &str, node: u64, epoch: u64, is_master: bool) -> Announcement {
        Announcement {
            group: group.to_owned(),
            group_id: 1,
            epoch,
            node,
            incarnation: 1,
            is_master,
            is_dead: false,
            endpoints: vec![addr(node)],
        }
    }

    fn addr(node: u64) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, node as u8], 61617))
    }

    struct Fixture {
        peers: Peers,
        start: Instant,
    }

    impl Fixture {
        fn new(nodes_max: usize, announced_owns: bool) -> Self {
            Self {
                peers: Peers::new(("own".to_owned(), 1), nodes_max, announced_owns),
                start: Instant::now(),
            }
        }

        fn hear(&mut self, announcement: Announcement, source: Source, at_secs: u64) -> Taken {
            let lifetime = (source == Source::Multicast).then_some(Duration::from_secs(5));
            self.peers.heard(
                announcement,
                source,
                lifetime,
                self.start + Duration::from_secs(at_secs),
            )
        }

        fn groups(&self) -> Vec<String> {
            let name = |candidate: Candidate| candidate.group.unwrap_or_else(|| "?".to_owned());
            self.peers.candidates().into_iter().map(name).collect()
        }
    }

    #[test]
    fn nodes_of_a_group_become_one_candidate_with_its_master_first() {
        let mut f = Fixture::new(9, true);
        assert_eq!(f.hear(said("north", 1, 4, true), Source::Multicast, 0), Taken::New);
        assert_eq!(f.hear(said("north", 2, 5, false), Source::Multicast, 0), Taken::New);
        assert_eq!(f.hear(said("north", 3, 5, true), Source::Mdns, 0), Taken::New);
        assert_eq!(f.hear(said("north", 3, 5, true), Source::Multicast, 0), Taken::Known);
        let all = f.peers.candidates();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].epoch, all[0].node, all[0].is_master), (5, Some(3), true));
        assert_eq!(
            all[0].endpoints,
            [addr(3), addr(2), addr(1)],
            "node 1 was master in an older epoch"
        );
        assert_eq!(all[0].sources, BTreeSet::from([Source::Multicast, Source::Mdns]));
    }

    #[test]
    fn what_is_old_or_our_own_is_ignored() {
        let mut f = Fixture::new(9, true);
        assert_eq!(f.hear(said("own", 2, 9, true), Source::Multicast, 0), Taken::Known);
        f.hear(
            Announcement {
                incarnation: 2,
                ..said("north", 1, 3, true)
            },
            Source::Multicast,
            0,
        );
        assert_eq!(f.hear(said("north", 1, 9, true), Source::Multicast, 0), Taken::Old);
        assert_eq!(
            f.hear(
                Announcement {
                    is_dead: true,
                    ..said("north", 1, 9, true)
                },
                Source::Mdns,
                0
            ),
            Taken::Old
        );
        assert_eq!(f.groups(), ["north"]);
        let dead = Announcement {
            is_dead: true,
            incarnation: 2,
            ..said("north", 1, 3, false)
        };
        f.hear(dead, Source::Multicast, 0);
        assert!(f.groups().is_empty());
    }

    #[test]
    fn each_source_expires_for_itself() {
        let mut f = Fixture::new(9, true);
        f.hear(said("north", 1, 1, true), Source::Multicast, 0);
        f.hear(said("north", 1, 1, true), Source::Mdns, 0);
        f.hear(said("south", 2, 1, true), Source::Multicast, 3);
        let at = |secs| f.start + Duration::from_secs(secs);
        let times = [at(5), at(8)];
        assert_eq!(f.peers.next_expiry(), Some(times[0]));
        assert_eq!(f.peers.expire(times[0]), 0);
        assert_eq!(f.peers.candidates()[0].sources, BTreeSet::from([Source::Mdns]));
        assert_eq!(f.peers.next_expiry(), Some(times[1]));
        assert_eq!(f.peers.expire(times[1]), 1);
        assert_eq!(f.groups(), ["north"]);
        f.peers.gone(Source::Mdns, "north".to_owned(), 1, 1);
        assert!(f.groups().is_empty());
        assert_eq!(f.peers.next_expiry(), None);
    }

    #[test]
    fn the_table_is_bounded_and_fixed_lists_have_their_place() {
        let mut f = Fixture::new(2, true);
        f.hear(said("a", 1, 1, true), Source::Multicast, 0);
        f.hear(said("b", 2, 1, true), Source::Multicast, 0);
        assert_eq!(f.hear(said("c", 3, 1, true), Source::Multicast, 0), Taken::Full);
        assert_eq!(
            f.hear(said("a", 1, 2, true), Source::Multicast, 0),
            Taken::Known,
            "known ones are still heard"
        );
        f.peers.resolved(0, vec![addr(9)]);
        assert_eq!(f.groups(), ["a", "b", "?"]);
    }

    #[test]
    fn a_fixed_list_is_merged_with_the_group_that_it_names() {
        for announced_owns in [true, false] {
            let mut f = Fixture::new(9, announced_owns);
            f.peers.resolved(3, vec![addr(1), addr(7)]);
            f.peers.resolved(4, vec![addr(8)]);
            let all = f.peers.candidates();
            assert_eq!(
                all.iter().map(|c| (c.group.clone(), c.static_list)).collect::<Vec<_>>(),
                [(None, Some(3)), (None, Some(4))]
            );
            f.hear(said("north", 1, 1, true), Source::Multicast, 0);
            let expected: &[&str] = if announced_owns {
                &["north", "?"]
            } else {
                &["north", "?", "?"]
            };
            assert_eq!(f.groups(), expected, "only a tagged announcement takes a list over");
            f.peers.known(3, "north".to_owned(), 1);
            f.peers.known(4, "own".to_owned(), 1);
            let all = f.peers.candidates();
            assert_eq!(all.len(), 1, "a list of the own group vanishes");
            assert_eq!(
                (all[0].static_list, &all[0].endpoints[..]),
                (Some(3), &[addr(1), addr(7)][..])
            );
            assert_eq!(all[0].sources, BTreeSet::from([Source::Static, Source::Multicast]));
        }
    }
}
