//! Bytes that nobody wrote: they are refused, or they mean something else; they never panic.

use bytes::{Bytes, BytesMut};
use ferrymq_broker::{BatchBuilder, Broker, Command, Settings};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{group::Group, random::command};

fn batch(commands: &[Command]) -> Bytes {
    let mut batch = BatchBuilder::default();
    for command in commands {
        batch.push(&command.encode());
    }
    batch.finish()
}

fn changed(bytes: &[u8], changes: &[(Index, u8)]) -> Bytes {
    let mut bytes = BytesMut::from(bytes);
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    bytes.freeze()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_cut_batch_is_refused_and_a_changed_one_does_not_panic(
        before in vec(command(), 0..20),
        commands in vec(command(), 1..4),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        after in vec(command(), 1..10),
    ) {
        let mut group = Group::new(1);
        group.batch(&before);
        let payload = batch(&commands);
        for len in 0..payload.len() {
            prop_assert!(group.broker.clone().apply(99, &payload.slice(..len)).is_err());
        }
        let mut broker = group.broker.clone();
        if broker.apply(99, &changed(&payload, &changes)).is_ok() {
            broker.apply(100, &batch(&after)).unwrap();
            let decoded = Broker::decode(&broker.encode(), Settings::default()).unwrap();
            prop_assert_eq!(decoded, broker);
        }
    }

    #[test]
    fn a_cut_snapshot_is_refused_and_a_changed_one_does_not_panic(
        before in vec(command(), 0..40),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        after in vec(command(), 1..20),
    ) {
        let mut group = Group::new(1);
        group.batch(&before);
        let snapshot = group.broker.encode();
        for len in 0..snapshot.len() {
            prop_assert!(Broker::decode(&snapshot[..len], Settings::default()).is_err());
        }
        if let Ok(mut broker) = Broker::decode(&changed(&snapshot, &changes), Settings::default()) {
            broker.live_counts();
            broker.apply(99, &batch(&after)).unwrap();
            broker.encode();
        }
    }

    #[test]
    fn noise_is_refused(noise in vec(any::<u8>(), 0..200)) {
        let payload = Bytes::from(noise.clone());
        let applied = Broker::new(Settings::default()).apply(1, &payload);
        prop_assert!(applied.is_err() || payload[1..5] == [0; 4]);
        let decoded = Broker::decode(&noise, Settings::default());
        prop_assert!(decoded.is_err(), "thirty bytes of the right zeros are the least");
    }
}
