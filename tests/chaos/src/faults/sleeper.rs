//! A master that is frozen for longer than its lease, with clients of its own whose requests lie in its sockets: when it
//! wakes up, nothing that it says on its own may reach them (P7).
//!
//! What arrives after it was woken is recorded byte by byte: an ERROR and the end of the connection are all that is
//! allowed. What it had said before it was frozen is read before.

use std::time::{Duration, Instant};

use ferrymq_tests::{Frame, Stomp, wait_until};

use crate::{
    NODES,
    fault::{Fault, Mend},
    field::{Field, WELL_MAX},
    nodes_of, toolbox,
};

/// See the file's head.
pub struct Sleeper {
    /// As a suspended machine, whose clock for short times (`CLOCK_MONOTONIC`) stands still as well.
    pub suspended: bool,
}

/// How long another node may take to become master.
const SUCCESSOR_MAX: Duration = Duration::from_secs(20);
/// How long the woken master is listened to.
const LISTEN: Duration = Duration::from_secs(2);
/// Masters that are tried before one is frozen.
const TRIES: usize = 5;
/// Messages that wait for a consumer which takes one at a time.
const WAITING: usize = 20;
/// What comes from a frozen process has come after so long.
const STILL: Duration = Duration::from_millis(300);

impl Fault for Sleeper {
    fn missing(&self) -> Option<String> {
        self.suspended.then(|| toolbox::missing(&["cc"])).flatten()
    }

    fn strike(&self, field: &mut Field, on: &[usize]) -> Mend {
        let group = on[0] / NODES;
        // On a machine with much else to do, the master may change just now.
        let connect = |field: &mut Field| {
            let sleeper = field.wait_master(group);
            Some((sleeper, Clients::connect(&field.node(sleeper).address()).ok()?))
        };
        let Some((sleeper, mut clients)) = (0..TRIES).find_map(|_| connect(field)) else {
            field.breach("no clients for the master that is to be frozen".into());
            return Box::new(move |field| take_away(field, group));
        };
        field.node(sleeper).pause();
        let asleep = Instant::now();
        clients.read_what_was_said();
        clients.ask();
        let begun = Instant::now();
        let mut successor = None;
        wait_until("another node is master", 2 * SUCCESSOR_MAX, || {
            successor = nodes_of(group).find(|&node| node != sleeper && field.node(node).is_master());
            successor.is_some() || begun.elapsed() > SUCCESSOR_MAX
        });
        if successor.is_none() {
            field.breach("nobody takes over from a frozen master".into());
        }
        if self.suspended {
            let stood = field
                .clocks
                .get_mut(sleeper)
                .map(|clock| clock.stand_still(asleep.elapsed()));
            if !matches!(stood, Some(Ok(()))) {
                field.breach(format!("the clock of node {sleeper} does not stand still: {stood:?}"));
            }
        }
        field.node(sleeper).go_on();
        for said in clients.listen() {
            field.breach(format!("P7: the woken master has said {said}"));
        }
        Box::new(move |field| take_away(field, group))
    }
}

/// The clients of the master itself: nobody carries their bytes.
struct Clients {
    /// Gets one message at a time, and acknowledges it while the master sleeps.
    consumer: Stomp,
    /// Its acknowledgement of the message that it has.
    ack: Frame,
    /// Sends to a queue.
    producer: Stomp,
    /// Commits a transaction.
    ledger: Stomp,
    /// Sends without a receipt and leaves, which says that everything before it was done.
    leaver: Stomp,
    /// Publishes to a topic without durable subscriptions, which takes no log.
    publisher: Stomp,
    /// Hears it.
    subscriber: Stomp,
}

const QUEUE: &str = "/queue/SLEEPER";
const TOPIC: &str = "/topic/SLEEPER";

impl Clients {
    fn connect(address: &str) -> anyhow::Result<Self> {
        let mut producer = Stomp::connect(address)?;
        for n in 0..WAITING {
            producer.request(Frame::message(QUEUE, n.to_string()))?;
        }
        let mut consumer = Stomp::connect(address)?;
        let subscribe = Frame::subscribe("s", QUEUE, "client-individual");
        consumer.request(subscribe.with("activemq.prefetchSize", 1))?;
        let message = consumer.next(ferrymq_tests::stomp::ANSWER_MAX)?;
        let ack = message
            .as_ref()
            .and_then(|message| message.get("ack"))
            .unwrap_or("")
            .to_owned();
        let mut subscriber = Stomp::connect(address)?;
        subscriber.request(Frame::subscribe("s", TOPIC, "auto"))?;
        let mut ledger = Stomp::connect(address)?;
        ledger.request(Frame::new("BEGIN").with("transaction", "t"))?;
        ledger.request(Frame::message(QUEUE, "in a transaction").with("transaction", "t"))?;
        Ok(Self {
            consumer,
            ack: Frame::new("ACK").with("id", ack).with("receipt", "acknowledged"),
            producer,
            ledger,
            leaver: Stomp::connect(address)?,
            publisher: Stomp::connect(address)?,
            subscriber,
        })
    }

    /// The master is frozen: what it had said before comes now or never.
    fn read_what_was_said(&mut self) {
        for stomp in self.all() {
            while let Ok(Some(_)) = stomp.next(STILL) {}
        }
    }

    /// Requests that the master finds when it wakes up. Each would be answered, or delivered, if it were still master.
    fn ask(&mut self) {
        let send = |n: usize| Frame::message(QUEUE, format!("too late {n}")).with("receipt", format!("sent {n}"));
        for n in 0..WAITING {
            let _ = self.producer.send(&send(n));
            let publish = Frame::message(TOPIC, format!("too late {n}")).with("persistent", "false");
            let _ = self.publisher.send(&publish.with("receipt", format!("published {n}")));
        }
        let _ = self.consumer.send(&self.ack);
        let _ = self.ledger.send(
            &Frame::new("COMMIT")
                .with("transaction", "t")
                .with("receipt", "committed"),
        );
        let _ = self.leaver.send(&Frame::message(QUEUE, "without a receipt"));
        let _ = self.leaver.send(&Frame::new("DISCONNECT").with("receipt", "bye"));
    }

    /// Whatever it says that it must not.
    fn listen(&mut self) -> Vec<String> {
        let until = Instant::now() + LISTEN;
        let mut said = Vec::new();
        let names = [
            "the consumer",
            "the producer",
            "the ledger",
            "the leaver",
            "the publisher",
            "the subscriber",
        ];
        for (stomp, name) in self.all().into_iter().zip(names) {
            // An error is the end of the connection.
            while let Ok(Some(frame)) = stomp.next(until.saturating_duration_since(Instant::now()).max(STILL)) {
                if frame.command != "ERROR" {
                    let (command, headers, text) = (&frame.command, &frame.headers, frame.text());
                    said.push(format!("to {name}: {command} {headers:?} {text}"));
                }
            }
        }
        said
    }

    fn all(&mut self) -> [&mut Stomp; 6] {
        [
            &mut self.consumer,
            &mut self.producer,
            &mut self.ledger,
            &mut self.leaver,
            &mut self.publisher,
            &mut self.subscriber,
        ]
    }
}

/// Consumes what is left in the sleeper's queue.
fn take_away(field: &mut Field, group: usize) {
    let consume = |field: &Field| {
        let mut stomp = Stomp::connect(&field.node(field.master(group)).address())?;
        stomp.request(Frame::subscribe("s", QUEUE, "auto"))?;
        while stomp.next(STILL)?.is_some() {}
        stomp.request(Frame::new("UNSUBSCRIBE").with("id", "s"))
    };
    wait_until("what the sleeper's clients left is taken away", WELL_MAX, || {
        field.supervise();
        // It may fail as long as masters change.
        consume(field).is_ok() && field.mesh.groups[group].messages("queue://SLEEPER") == 0
    });
}
