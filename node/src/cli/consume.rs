//! `ferrymq consume`: receive, print and acknowledge messages, and check that none is lost or doubled.

use std::{collections::HashSet, time::Duration};

use clap::{Args, ValueEnum};
use ferrymq_client::{AckError, AckMode, Connection, Consumer, ConsumerOptions, ReceiveError, Received};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    Exit, Failure,
    connect::{ConnectArgs, Story},
    output::{Format, print, print_bytes, print_json},
    rate::Rate,
    sequence_check::{PRODUCER, SEQUENCE, SequenceCheck},
};

/// Receive, print and acknowledge messages
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ferrymq consume --destination queue://ORDERS
  ferrymq consume --destination queue://LOAD --count 100000 --check
  ferrymq consume -d topic://NEWS --forever --selector \"colour = 'red'\" --output json
  ferrymq consume -d queue://LOAD --idle 5 --quiet

--check expects every number from 1 on of each producer, so begin with an empty queue.

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 cannot connect,
            4 --check found lost or doubled messages, or --count was not reached in time")]
pub(crate) struct ConsumeArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Where to receive from: queue://NAME or topic://NAME
    #[arg(short, long)]
    destination: String,
    /// End after so many messages
    #[arg(short, long, default_value_t = 1, conflicts_with_all = ["forever", "idle"])]
    count: u64,
    /// Go on until interrupted
    #[arg(long, conflicts_with = "idle")]
    forever: bool,
    /// End when no message has come for so many seconds
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u64>,
    /// With --count: how many seconds to wait for the next message
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Report messages that are lost or doubled, by the properties that `ferrymq produce` sets
    #[arg(long)]
    check: bool,
    /// Do not print messages (as --check)
    #[arg(short, long)]
    quiet: bool,
    /// When messages count as consumed
    #[arg(long, value_enum, default_value_t)]
    ack: Ack,
    /// Messages sent ahead of their acknowledgements
    #[arg(long, default_value_t = 1_000)]
    prefetch: u32,
    /// Which messages, in JMS's selector language
    #[arg(long)]
    selector: Option<String>,
    /// The name of a durable subscription; needs --client-id
    #[arg(long, requires = "client_id")]
    durable: Option<String>,
    /// Be the queue's only consumer
    #[arg(long)]
    exclusive: bool,
    /// Look at the queue's messages without taking them
    #[arg(long)]
    browse: bool,
    /// Form of messages and summary; JSON is one message per line
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Ack {
    /// Each message by itself
    #[default]
    Individual,
    /// Every hundredth message for all before it
    Client,
    /// By being written to the connection
    Auto,
}

/// With `--ack client`, messages acknowledged together.
const ACK_TOGETHER: usize = 100;

pub(crate) async fn run(args: ConsumeArgs) -> Result<(), Failure> {
    let (connection, story) = args.connect.connect().await?;
    let options = ConsumerOptions {
        ack: match args.ack {
            Ack::Individual => AckMode::Individual,
            Ack::Client => AckMode::Client,
            Ack::Auto => AckMode::Auto,
        },
        prefetch: args.prefetch,
        selector: args.selector.clone(),
        durable: args.durable.clone(),
        exclusive: args.exclusive,
        browser: args.browse,
        ..ConsumerOptions::default()
    };
    let consumer = connection
        .consumer(&args.destination, options)
        .map_err(|e| Failure::new(Exit::Usage, e))?;
    let total = (!args.forever && args.idle.is_none()).then_some(args.count);
    let bar = args.output == Format::Table && (args.quiet || args.check);
    let mut work = Work {
        rate: Rate::new(total, bar),
        check: SequenceCheck::default(),
        done: 0,
        gathered: None,
        unflushed: HashSet::new(),
        uncertain: HashSet::new(),
        story,
        args,
        connection,
        consumer,
    };
    let result = tokio::select! {
        result = work.receive_all() => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    work.report(result).await
}

struct Work {
    args: ConsumeArgs,
    connection: Connection,
    consumer: Consumer,
    story: Story,
    rate: Rate,
    check: SequenceCheck,
    /// Different messages that came.
    done: u64,
    /// With `--ack client`, the last message that no acknowledgement covers.
    gathered: Option<Received>,
    /// Ids of messages whose acknowledgement is under way.
    unflushed: HashSet<String>,
    /// Ids of messages whose acknowledgement may have been lost: counted, but some of them come again.
    uncertain: HashSet<String>,
}

/// Acknowledgements under way at which their receipts are waited for.
const UNFLUSHED_MAX: usize = 4096;

/// With the last messages counted, how long those are waited for that may come again.
const UNCERTAIN_WAIT: Duration = Duration::from_secs(1);

impl Work {
    async fn receive_all(&mut self) -> Result<(), Failure> {
        let counted = !self.args.forever && self.args.idle.is_none();
        loop {
            let complete = counted && self.done >= self.args.count;
            // A pause is the time to learn which acknowledgements have been taken; so is the end.
            let settled = complete && self.uncertain.is_empty();
            let received = match if settled { None } else { self.consumer.try_recv() } {
                Some(received) => received,
                None => {
                    self.flush().await?;
                    if complete && self.uncertain.is_empty() {
                        return Ok(());
                    }
                    match self.wait(complete).await? {
                        Some(received) => received,
                        None if complete || !counted => return Ok(()),
                        None => return Err(self.overdue()),
                    }
                }
            };
            if received.is_browser_end() {
                return Ok(());
            }
            // Not one of those that may come again: left unacknowledged, it goes back.
            if complete && !self.uncertain.contains(received.id()) {
                continue;
            }
            self.take(&received)?;
            if self.unflushed.len() >= UNFLUSHED_MAX {
                self.flush().await?;
            }
        }
    }

    /// The next message, or `None` where none has come for as long as is waited.
    async fn wait(&self, complete: bool) -> Result<Option<Received>, Failure> {
        let limit = match (complete, self.args.forever) {
            (true, _) => Some(UNCERTAIN_WAIT),
            (false, true) => None,
            (false, false) => Some(Duration::from_secs(self.args.idle.unwrap_or(self.args.timeout))),
        };
        let received = match limit {
            None => self.consumer.recv().await,
            Some(limit) => match timeout(limit, self.consumer.recv()).await {
                Ok(received) => received,
                Err(_) => return Ok(None),
            },
        };
        received.map(Some).map_err(|error| match error {
            ReceiveError::Refused(_) => Failure::new(Exit::Failed, error),
            ReceiveError::Ended(_) => Failure::new(Exit::Unreachable, error),
        })
    }

    fn overdue(&self) -> Failure {
        let (done, count, seconds) = (self.done, self.args.count, self.args.timeout);
        Failure::new(
            Exit::Broken,
            format!("{done} of {count} messages came; none in the last {seconds} s"),
        )
    }

    fn take(&mut self, received: &Received) -> Result<(), Failure> {
        self.rate.count(received.body().len());
        let (producer, sequence) = (received.header(PRODUCER), received.header(SEQUENCE));
        if self.args.check {
            self.check.on_received(producer, sequence, received.redelivered());
        } else if !self.args.quiet {
            self.show(received)?;
        }
        let again = self.uncertain.remove(received.id());
        self.done += u64::from(!again);
        if self.args.ack == Ack::Auto || self.args.browse {
            return Ok(());
        }
        self.unflushed.insert(received.id().to_owned());
        if self.args.ack == Ack::Client {
            self.gathered = Some(received.clone());
            if !self.unflushed.len().is_multiple_of(ACK_TOGETHER) {
                return Ok(());
            }
            return self.acknowledge_gathered();
        }
        self.acknowledge(received)
    }

    fn acknowledge_gathered(&mut self) -> Result<(), Failure> {
        match self.gathered.take() {
            Some(last) => self.acknowledge(&last),
            None => Ok(()),
        }
    }

    fn acknowledge(&mut self, received: &Received) -> Result<(), Failure> {
        match self.consumer.ack(received) {
            Ok(()) if self.args.check => {
                self.check
                    .on_acknowledged(received.header(PRODUCER), received.header(SEQUENCE));
            }
            Ok(()) => {}
            // With it, everything that was gathered came over the lost connection.
            Err(AckError::Stale) if self.args.ack == Ack::Client => self.uncertain.extend(self.unflushed.drain()),
            Err(AckError::Stale) => {
                self.unflushed.remove(received.id());
                self.uncertain.insert(received.id().to_owned());
            }
            Err(error) => return Err(Failure::new(Exit::Unreachable, error)),
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.rate.mark();
        self.story.follow(|line| self.rate.tell(line));
        self.acknowledge_gathered()?;
        if self.unflushed.is_empty() {
            return Ok(());
        }
        match self.consumer.flush().await {
            Ok(()) => {
                self.check.on_flushed(true);
                self.unflushed.clear();
            }
            Err(AckError::Unconfirmed(_)) => {
                self.check.on_flushed(false);
                self.uncertain.extend(self.unflushed.drain());
            }
            Err(error) => return Err(Failure::new(Exit::Unreachable, error)),
        }
        Ok(())
    }

    fn show(&self, received: &Received) -> Result<(), Failure> {
        match self.args.output {
            Format::Table => {
                print_bytes(received.body())?;
                print("\n")
            }
            Format::Json => print(&format!("{}\n", message_json(received))),
        }
    }

    async fn report(mut self, result: Result<(), Failure>) -> Result<(), Failure> {
        // Takes along what was acknowledged before an interruption, if it can be had quickly.
        let _ = timeout(Duration::from_secs(5), self.flush()).await;
        self.rate.finish();
        let findings = self.check.findings();
        let checked = self.args.check;
        if self.args.output == Format::Json {
            let mut summary = json!({
                "received": self.rate.messages,
                "consumed": self.done,
                "seconds": self.rate.elapsed().as_secs_f64(),
                "messages_per_second": self.rate.per_second(),
                "failovers_ms": self.story.to_json(),
            });
            if checked {
                summary["distinct"] = json!(findings.distinct);
                summary["lost"] = json!(findings.lost);
                summary["doubled"] = json!(findings.doubled);
                summary["redelivered"] = json!(findings.redelivered);
                summary["disordered"] = json!(findings.disordered);
                summary["unnumbered"] = json!(findings.unnumbered);
            }
            if checked || self.args.quiet {
                print_json(&summary)?;
            } else {
                print(&format!("{}\n", json!({ "summary": summary })))?;
            }
        } else if checked || self.args.quiet {
            print(&format!("received {}{}\n", self.rate.summary(), self.story.summary()))?;
            if checked {
                print(&format!(
                    "distinct {}, lost {}, doubled {}, redelivered {}, out of order {}, without number {}\n",
                    findings.distinct,
                    findings.lost,
                    findings.doubled,
                    findings.redelivered,
                    findings.disordered,
                    findings.unnumbered
                ))?;
            }
        }
        let (consumer, connection) = (self.consumer, self.connection);
        drop(consumer);
        connection.close(Duration::from_secs(2)).await;
        result?;
        if checked && (findings.lost > 0 || findings.doubled > 0) {
            let text = format!("{} messages are lost and {} doubled", findings.lost, findings.doubled);
            return Err(Failure::new(Exit::Broken, text));
        }
        Ok(())
    }
}

/// A message as one line of JSON; a body that is not text is shown as such.
fn message_json(received: &Received) -> Value {
    let headers: serde_json::Map<String, Value> = received
        .headers()
        .iter()
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    json!({
        "id": received.id(),
        "destination": received.destination(),
        "redelivered": received.redelivered(),
        "delivery_count": received.delivery_count(),
        "body": String::from_utf8_lossy(received.body()),
        "body_is_text": received.text().is_some(),
        "headers": headers,
    })
}
