//! Nothing but a resend is taken for one (P5), and a transaction is applied as a whole or not at all.

use bytes::{BufMut, Bytes, BytesMut};
use ferrymq_broker::{
    Acknowledge, BatchBuilder, Broker, Command, Enqueue, EnqueueOnce, Outcome, Settings, Skip, producers::DIGESTS_MAX,
};
use ferrymq_message::{Destination, Message, Producer};

use crate::group::Group;

/// A send as its master puts it into the log; what it says is its digest.
fn send(user: &str, id: &str, sequence: u64, queue: &str, says: u64) -> Command {
    let mut message = Message::new(format!("{user}-{id}-{sequence}-{says}"), Destination::queue(queue), "x");
    message.producer = Some(Producer {
        id: id.into(),
        sequence,
    });
    Command::EnqueueOnce(EnqueueOnce {
        user: user.into(),
        digest: says,
        duplicate_id: None,
        message: message.encode(),
    })
}

fn marked(queue: &str, id: &str) -> Command {
    Command::EnqueueOnce(EnqueueOnce {
        user: "u".into(),
        digest: 0,
        duplicate_id: Some(id.into()),
        message: Message::new("m", Destination::queue(queue), "x").encode(),
    })
}

fn apply(group: &mut Group, command: &Command) -> Outcome {
    group.apply(command).outcomes.remove(0)
}

fn stored(group: &Group, queue: &str) -> u64 {
    let found = group
        .broker
        .queues()
        .find(ferrymq_message::DestinationKind::Queue, queue);
    found
        .and_then(|id| group.broker.queues().get(id))
        .map_or(0, |queue| queue.len())
}

fn refused(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Refused(text) => text,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_number_is_a_resend_only_of_the_same_message_of_the_same_user_p5() {
    let mut group = Group::new(1);
    assert_eq!(apply(&mut group, &send("anna", "p", 1, "A", 5)), Outcome::Done);
    assert_eq!(apply(&mut group, &send("anna", "p", 1, "A", 5)), Outcome::Duplicate);
    // The same id and number of another user.
    assert_eq!(apply(&mut group, &send("bert", "p", 1, "A", 5)), Outcome::Done);
    // Of a restarted program, with other words.
    let outcome = apply(&mut group, &send("anna", "p", 1, "B", 6));
    let text = refused(&outcome);
    for word in ["\"p\"", "\"anna\"", "number 1", "new producer-id", "above 1"] {
        assert!(text.contains(word), "{text} lacks {word}");
    }
    assert_eq!((stored(&group, "A"), stored(&group, "B")), (2, 0));
}

#[test]
fn what_is_too_old_to_tell_is_refused_p5() {
    let mut group = Group::new(1);
    let all: Vec<Command> = (0..=DIGESTS_MAX as u64)
        .map(|number| send("u", "p", number, "A", 5))
        .collect();
    group.batch(&all);
    assert!(refused(&apply(&mut group, &send("u", "p", 0, "A", 5))).contains("nobody can tell"));
    assert_eq!(apply(&mut group, &send("u", "p", 1, "A", 5)), Outcome::Duplicate);
}

#[test]
fn a_duplicate_id_is_taken_once_for_each_destination_whatever_the_message() {
    let mut group = Group::new(1);
    assert_eq!(apply(&mut group, &marked("A", "1")), Outcome::Done);
    assert_eq!(apply(&mut group, &marked("A", "1")), Outcome::Duplicate);
    assert_eq!(apply(&mut group, &marked("B", "1")), Outcome::Done);
    assert_eq!((stored(&group, "A"), stored(&group, "B")), (1, 1));
}

#[test]
fn a_transaction_of_which_a_part_is_refused_is_refused_as_a_whole() {
    let mut group = Group::new(1);
    apply(&mut group, &send("u", "p", 1, "IN", 5));
    let acknowledge = Command::Acknowledge(Acknowledge {
        queue: 1,
        seqs: vec![0],
    });
    let before = group.broker.clone();
    let parts = vec![
        acknowledge.clone(),
        send("u", "p", 2, "OUT", 5),
        send("u", "p", 1, "OUT", 9),
    ];
    let outcome = apply(&mut group, &Command::Transaction(parts));
    assert!(refused(&outcome).contains("another message had this number"));
    assert_eq!(group.broker, before, "nothing of it was done");
    let twice = vec![send("u", "p", 2, "OUT", 5), send("u", "p", 2, "OUT", 6)];
    assert!(refused(&apply(&mut group, &Command::Transaction(twice))).contains("two messages"));
    assert_eq!(group.broker, before);
    // A resend counts as done, and so does an acknowledgement of what is gone, or was never there.
    let gone = Command::Acknowledge(Acknowledge {
        queue: 77,
        seqs: vec![0],
    });
    let parts = vec![
        acknowledge.clone(),
        acknowledge,
        gone,
        send("u", "p", 1, "IN", 5),
        send("u", "p", 2, "OUT", 5),
        send("u", "p", 2, "OUT", 5),
    ];
    let expected = Outcome::Many(vec![
        Outcome::Done,
        Outcome::Done,
        Outcome::NotFound,
        Outcome::Duplicate,
        Outcome::Done,
        Outcome::Duplicate,
    ]);
    assert_eq!(apply(&mut group, &Command::Transaction(parts)), expected);
    assert_eq!((stored(&group, "IN"), stored(&group, "OUT")), (0, 1));
}

#[test]
fn thousands_of_rollbacks_refuse_nobody() {
    let mut broker = Broker::new(Settings::default());
    let mut index = 0;
    let mut apply = |command: &Command| {
        index += 1;
        let mut batch = BatchBuilder::default();
        batch.push(&command.encode());
        broker.apply(index, &batch.finish()).unwrap().outcomes.remove(0)
    };
    for number in 0..9_000u64 {
        let is_rolled_back = number % 2 == 1;
        // The log is told of some of them and not of others.
        if is_rolled_back && number < 3_000 {
            let skip = Skip {
                user: "u".into(),
                producer: "p".into(),
                numbers: vec![(number, number)],
            };
            apply(&Command::Skip(skip));
        } else if !is_rolled_back {
            let transaction = Command::Transaction(vec![send("u", "p", number, "A", 5)]);
            assert_eq!(apply(&transaction), Outcome::Many(vec![Outcome::Done]), "{number}");
        }
    }
}

#[test]
fn of_a_transaction_that_came_before_no_send_is_stored_again() {
    let mut group = Group::new(1);
    let transaction = Command::Transaction(vec![
        marked("A", "t1"),
        Command::Enqueue(Enqueue {
            message: Message::new("m", Destination::queue("A"), "x").encode(),
        }),
        send("u", "p", 1, "A", 5),
    ]);
    apply(&mut group, &transaction);
    assert_eq!(stored(&group, "A"), 3);
    assert_eq!(
        apply(&mut group, &transaction),
        Outcome::Many(vec![Outcome::Duplicate; 3])
    );
    assert_eq!(stored(&group, "A"), 3);
}

/// What the first version left in the log: a transaction was carried out piece by piece, a number was judged alone.
#[test]
fn a_log_of_the_first_version_comes_to_the_state_that_it_had() {
    const PIECEMEAL: u8 = 7;
    let numbered = |id: &str, sequence: u64| {
        let mut message = Message::new("m", Destination::queue("A"), "x");
        message.producer = Some(Producer {
            id: id.into(),
            sequence,
        });
        Command::Enqueue(Enqueue {
            message: message.encode(),
        })
    };
    let transaction = |parts: &[Command]| -> Bytes {
        let mut body = BytesMut::new();
        body.put_u32_le(parts.len() as u32);
        parts.iter().for_each(|part| part.encode_into(&mut body));
        let mut out = BytesMut::new();
        out.put_u8(PIECEMEAL);
        out.put_u32_le(body.len() as u32);
        out.put_slice(&body);
        out.freeze()
    };
    let mut broker = Broker::new(Settings::default());
    let mut index = 0;
    let mut apply = |command: &[u8]| {
        index += 1;
        let mut batch = BatchBuilder::default();
        batch.push(command);
        broker.apply(index, &batch.finish()).unwrap().outcomes.remove(0)
    };
    for sequence in (1..2048).step_by(2) {
        assert_eq!(apply(&numbered("p", sequence).encode()), Outcome::Done);
    }
    let Outcome::Many(outcomes) = apply(&transaction(&[numbered("q", 1), numbered("p", 5000), numbered("q", 1)]))
    else {
        panic!("a transaction has many outcomes");
    };
    assert_eq!((&outcomes[0], &outcomes[2]), (&Outcome::Done, &Outcome::Duplicate));
    assert!(refused(&outcomes[1]).contains("too many numbers"));
    assert_eq!(apply(&numbered("p", 2).encode()), Outcome::Done);
    // Its numbers are nobody's new ones.
    assert!(refused(&apply(&send("u", "p", 1, "A", 5).encode())).contains("nobody can tell"));
    assert_eq!(apply(&send("u", "p", 5000, "A", 5).encode()), Outcome::Done);
}
