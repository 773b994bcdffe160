//! What waits for the node. Pictures of demand are absolute, so a later one takes the place of an earlier one, and a node
//! that is slow to listen costs no memory.

use std::collections::{BTreeMap, VecDeque};

use ferrymq_broker::GroupId;
use ferrymq_message::Destination;

use crate::output::{KnownGroup, LinkStatus, Output, RemoteDemand};

/// See the file's head. Proposals go first; their number is bounded by what is in flight.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    proposals: VecDeque<Output>,
    demand: BTreeMap<Destination, Vec<RemoteDemand>>,
    groups: BTreeMap<GroupId, KnownGroup>,
    links: Option<Vec<LinkStatus>>,
    /// The answers to the node's questions, by number; the node bounds them.
    answers: VecDeque<Output>,
}

impl Outbox {
    pub(super) fn push(&mut self, output: Output) {
        match output {
            Output::Propose { .. } => self.proposals.push_back(output),
            Output::Demand { destination, rows } => _ = self.demand.insert(destination, rows),
            Output::Group(known) => _ = self.groups.insert(known.group, known),
            Output::Links(links) => self.links = Some(links),
            Output::Status { .. } => self.answers.push_back(output),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        if let Some(proposal) = self.proposals.pop_front() {
            return Some(proposal);
        }
        if let Some((destination, rows)) = self.demand.pop_first() {
            return Some(Output::Demand { destination, rows });
        }
        // Behind demand: of a group that is there, what it wants is known first.
        if let Some((_, known)) = self.groups.pop_first() {
            return Some(Output::Group(known));
        }
        self.links
            .take()
            .map(Output::Links)
            .or_else(|| self.answers.pop_front())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.proposals.is_empty()
            && self.demand.is_empty()
            && self.groups.is_empty()
            && self.links.is_none()
            && self.answers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ferrymq_broker::{Command, Forget};

    use super::*;

    #[test]
    fn proposals_keep_their_order_and_pictures_only_the_last() {
        let mut outbox = Outbox::default();
        let propose = |token| Output::Propose {
            token,
            command: Command::Forget(Forget {
                origin: 1,
                floor: token,
            }),
        };
        let demand = |name| Output::Demand {
            destination: Destination::queue(name),
            rows: Vec::new(),
        };
        let answer = || Output::Status {
            ask: 7,
            links: Vec::new(),
        };
        outbox.push(answer());
        outbox.push(Output::Links(Vec::new()));
        outbox.push(demand("B"));
        outbox.push(propose(1));
        outbox.push(demand("A"));
        outbox.push(demand("B"));
        outbox.push(propose(2));
        let order: Vec<Output> = std::iter::from_fn(|| outbox.pop()).collect();
        assert_eq!(
            order,
            [
                propose(1),
                propose(2),
                demand("A"),
                demand("B"),
                Output::Links(Vec::new()),
                answer()
            ]
        );
        assert!(outbox.is_empty());
    }
}
