//! `ferrymq produce`: send messages and wait until they are stored.

use bytes::Bytes;
use clap::{ArgAction, Args};
use ferrymq_client::{Outgoing, Producer, ProducerOptions, SendError};
use serde_json::json;

use super::{
    Exit, Failure,
    connect::ConnectArgs,
    output::{Format, print, print_json},
    rate::Rate,
};

/// Send messages and wait until they are stored
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ferrymq produce --destination queue://ORDERS --body 'one pen'
  ferrymq produce --destination queue://LOAD --count 100000 --size 1024
  ferrymq produce --url 'failover:(tcp://127.0.0.1:62111,tcp://127.0.0.1:62112)' -d topic://NEWS --count 10

A run that was interrupted goes on where it was (--output json names the producer and what it has stored):
  ferrymq produce -d queue://LOAD --count 500 --resume NAME --first-sequence 501

Every message is delivered with the headers ferrymq_producer and ferrymq_sequence, by which `ferrymq consume --check` finds
what is lost or doubled.

Exit codes: 0 all are stored, 1 some were refused, 2 wrong usage, 3 cannot connect,
            4 the connection was given up before all were stored")]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Where to send: queue://NAME or topic://NAME
    #[arg(short, long)]
    destination: String,
    /// How many messages
    #[arg(short, long, default_value_t = 1)]
    count: u64,
    /// The body's size in bytes
    #[arg(short, long, default_value_t = 1024, conflicts_with = "body")]
    size: usize,
    /// The body as text
    #[arg(short, long)]
    body: Option<String>,
    /// Messages that may await their receipts at a time
    #[arg(short, long, default_value_t = 1_000)]
    window: usize,
    /// Whether messages survive the loss of any minority of the nodes
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "true|false")]
    persistent: bool,
    /// Priority, 0 to 9
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// A property for every message; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
    /// What the producer's name begins with; each run adds a part that no other run has
    #[arg(long, value_name = "NAME")]
    producer_id: Option<String>,
    /// The number of the first message [default: 1]
    #[arg(long, value_name = "NUMBER")]
    first_sequence: Option<u64>,
    /// Go on as the producer of exactly this name, from --first-sequence: what was stored before under these numbers is
    /// not stored again if it is the same, and refused if it is not
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "producer_id",
        requires = "first_sequence"
    )]
    resume: Option<String>,
    /// Form of the summary
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What became of the sending.
#[derive(Debug, Default)]
struct Outcome {
    refused: u64,
    first_refusal: Option<String>,
    ended: Option<String>,
    interrupted: bool,
}

pub(crate) async fn run(args: ProduceArgs) -> Result<(), Failure> {
    let (connection, mut story) = args.connect.connect().await?;
    let options = ProducerOptions {
        persistent: args.persistent,
        window_messages_max: args.window,
        id: args.resume.clone().or(args.producer_id.clone()),
        resume: args.resume.is_some(),
        first_sequence: args.first_sequence.unwrap_or(1),
        ..ProducerOptions::default()
    };
    let producer = connection
        .producer(&args.destination, options)
        .map_err(|e| Failure::new(Exit::Usage, e))?;
    let mut rate = Rate::new(Some(args.count), args.output == Format::Table);
    let mut outcome = Outcome::default();
    tokio::select! {
        () = send_all(&args, &producer, &mut rate, &mut outcome) => {}
        _ = tokio::signal::ctrl_c() => outcome.interrupted = true,
    }
    rate.end();
    story.follow(|line| rate.tell(line));
    rate.finish();
    let stored = producer.confirmed();
    match args.output {
        Format::Table => print(&format!("stored {stored} of {}{}\n", rate.summary(), story.summary()))?,
        Format::Json => print_json(&json!({
            "producer": producer.name(),
            "sent": rate.messages,
            "stored": stored,
            "refused": outcome.refused,
            "seconds": rate.elapsed().as_secs_f64(),
            "messages_per_second": rate.per_second(),
            "failovers_ms": story.to_json(),
        }))?,
    }
    judge(outcome, stored, args.count)
}

async fn send_all(args: &ProduceArgs, producer: &Producer, rate: &mut Rate, outcome: &mut Outcome) {
    let template = template(args);
    let mut number = 0;
    while number < args.count {
        let message = template.clone();
        let bytes = message.body.len();
        match producer.send(message).await {
            Ok(_) => {
                number += 1;
                rate.count(bytes);
            }
            // About an earlier one: this one is still to be sent.
            Err(refusal @ SendError::Refused { .. }) => outcome.refuse(&refusal),
            // The window stayed full for as long as the URL allows: go on waiting for room, as asked by --count.
            Err(SendError::TimedOut(_)) => {}
            Err(error) => return outcome.ended = Some(error.to_string()),
        }
    }
    loop {
        match producer.flush().await {
            Ok(()) => return,
            Err(refusal @ SendError::Refused { .. }) => outcome.refuse(&refusal),
            Err(error) => return outcome.ended = Some(error.to_string()),
        }
    }
}

fn template(args: &ProduceArgs) -> Outgoing {
    let mut message = match &args.body {
        Some(body) => Outgoing::text(body.as_str()),
        None => Outgoing::bytes(filler(args.size)),
    };
    message.priority = args.priority;
    message.properties = args.property.clone();
    message
}

/// A body of this size that is pleasant to look at.
fn filler(size: usize) -> Bytes {
    b"FerryMQ carries this message to whoever wants it. "
        .iter()
        .copied()
        .cycle()
        .take(size)
        .collect()
}

impl Outcome {
    fn refuse(&mut self, refusal: &SendError) {
        self.refused += 1;
        self.first_refusal.get_or_insert_with(|| refusal.to_string());
    }
}

fn judge(outcome: Outcome, stored: u64, wanted: u64) -> Result<(), Failure> {
    if let Some(reason) = outcome.ended {
        return Err(Failure::new(
            Exit::Broken,
            format!("{} messages are not known to be stored: {reason}", wanted - stored),
        ));
    }
    if let Some(first) = outcome.first_refusal {
        return Err(Failure::new(
            Exit::Failed,
            format!("{} messages were refused; the first: {first}", outcome.refused),
        ));
    }
    if outcome.interrupted && stored < wanted {
        return Err(Failure::new(Exit::Failed, "interrupted"));
    }
    Ok(())
}
