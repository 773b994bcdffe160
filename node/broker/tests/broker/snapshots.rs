//! A state read from a snapshot is the state that wrote it, and stays so.

use ferrymq_broker::{Broker, Command, Settings};
use proptest::{collection::vec, prelude::*};

use crate::{group::Group, random::command};

/// Entries of one to three commands.
fn entries(max: usize) -> impl Strategy<Value = Vec<Vec<Command>>> {
    vec(vec(command(), 1..4), 1..max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// `Group::batch` checks after each entry that the state is sound and that what lives is the sum of all changes.
    #[test]
    fn a_state_read_from_a_snapshot_goes_on_like_the_one_that_wrote_it(
        before in entries(60),
        after in entries(30),
    ) {
        let mut group = Group::new(1);
        for entry in &before {
            group.batch(entry);
        }
        let snapshot = group.broker.encode();
        let decoded = Broker::decode(&snapshot, Settings::default()).unwrap();
        prop_assert_eq!(&decoded, &group.broker);
        prop_assert_eq!(decoded.encode(), snapshot);
        let mut twin = group.clone();
        twin.broker = decoded;
        for entry in &after {
            prop_assert_eq!(twin.batch(entry), group.batch(entry));
        }
        prop_assert_eq!(&twin.broker, &group.broker);
        prop_assert_eq!(twin.broker.encode(), group.broker.encode());
    }
}

/// Long queues with most of their messages gone, so that chunks are squeezed in the one and not in the other.
#[test]
fn a_long_queue_with_holes_survives() {
    use ferrymq_broker::{Acknowledge, Enqueue};
    use ferrymq_message::{Destination, Message};

    let mut group = Group::new(1);
    let destination = Destination::queue("Q");
    let enqueue = |n: u64| {
        let message = Message::new(format!("m{n}"), destination.clone(), vec![1; 20]);
        Command::Enqueue(Enqueue {
            message: message.encode(),
        })
    };
    for chunk in 0..6 {
        group.batch(&(0..200).map(|n| enqueue(chunk * 200 + n)).collect::<Vec<_>>());
    }
    for step in [3, 2, 5] {
        let seqs = (0..1200).filter(|n| n % step == 0).collect();
        group.apply(&Command::Acknowledge(Acknowledge { queue: 1, seqs }));
        let decoded = Broker::decode(&group.broker.encode(), Settings::default()).unwrap();
        assert_eq!(decoded, group.broker);
        let mut twin = group.clone();
        twin.broker = decoded;
        let seqs: Vec<u64> = (100..400).collect();
        let acknowledge = Command::Acknowledge(Acknowledge { queue: 1, seqs });
        assert_eq!(twin.apply(&acknowledge), group.clone().apply(&acknowledge));
    }
    let bytes = group.broker.encode().len() as u64 / group.broker.queues().get(1).unwrap().len();
    assert!(bytes <= 16, "{bytes} bytes for a message in a snapshot");
}
