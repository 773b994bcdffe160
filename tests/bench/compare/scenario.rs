//! What is compared with what, under which load, and what must come out of it.

use std::time::Duration;

use ferrymq_bench::Load;

use crate::brokers::Kind;

/// One row of the comparison.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// What it is asked for by; the part before the first `-` is its set.
    pub(crate) name: &'static str,
    /// Our side.
    pub(crate) ours: Kind,
    /// The other broker.
    pub(crate) peer: Kind,
    /// What is sent.
    pub(crate) shape: Shape,
    /// What the two are compared by.
    pub(crate) measure: Measure,
    /// The least ratio that we want to reach; 0 where none is set.
    pub(crate) target: f64,
}

/// What the two sides are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Messages received in a second, by all consumers together.
    Received,
    /// Messages confirmed in a second: nobody consumes.
    Confirmed,
    /// 99 % of the messages are received so quickly; the ratio is how many times as quickly as with the peer.
    EndToEndP99,
}

/// A load without its times and names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    producers: usize,
    consumers: usize,
    window: usize,
    rate: Option<f64>,
    topic: bool,
    persistent: bool,
}

/// Bytes of each message.
pub(crate) const SIZE: usize = 1024;
/// Messages sent to one consumer ahead of its acknowledgements.
const PREFETCH: usize = 200;

impl Shape {
    /// `producers` that wait for each confirmation, and as many consumers.
    pub(crate) const fn lock_step(producers: usize) -> Self {
        Self {
            producers,
            consumers: producers,
            window: 1,
            rate: None,
            topic: false,
            persistent: true,
        }
    }

    /// Eight producers with 100 messages under way each, and eight consumers.
    const WINDOWED: Self = Self {
        window: 100,
        ..Self::lock_step(8)
    };

    /// So many messages in a second, from eight producers to eight consumers.
    const fn paced(rate: f64) -> Self {
        Self {
            rate: Some(rate),
            ..Self::WINDOWED
        }
    }

    /// The same without consumers.
    const fn producing(self) -> Self {
        Self { consumers: 0, ..self }
    }

    /// One producer of messages that need not survive anything.
    const fn non_persistent(consumers: usize, topic: bool) -> Self {
        Self {
            producers: 1,
            consumers,
            window: 1000,
            rate: None,
            topic,
            persistent: false,
        }
    }

    /// The load on destinations whose names begin with `prefix`.
    pub(crate) fn load(&self, prefix: String, warm_up: Duration, duration: Duration) -> Load {
        Load {
            producers: self.producers,
            consumers: self.consumers,
            size: SIZE,
            window: self.window,
            rate: self.rate,
            warm_up,
            duration,
            topic: self.topic,
            persistent: self.persistent,
            prefetch: PREFETCH,
            prefix,
            ..Load::default()
        }
    }

    /// In words, for tables.
    pub(crate) fn words(&self) -> String {
        let kind = match (self.persistent, self.topic) {
            (true, false) => "",
            (true, true) => ", topic",
            (false, false) => ", non-persistent",
            (false, true) => ", non-persistent topic",
        };
        let pace = match (self.rate, self.window) {
            (Some(rate), _) => format!(", {rate} msg/s"),
            (None, 1) => ", lock-step".to_owned(),
            (None, window) => format!(" × {window} in flight"),
        };
        format!("{} → {}{pace}{kind}", self.producers, self.consumers)
    }
}

const fn scenario(name: &'static str, ours: Kind, peer: Kind, shape: Shape, target: f64) -> Scenario {
    let measure = match (shape.rate, shape.consumers) {
        (Some(_), _) => Measure::EndToEndP99,
        (None, 0) => Measure::Confirmed,
        _ => Measure::Received,
    };
    Scenario {
        name,
        ours,
        peer,
        shape,
        measure,
        target,
    }
}

use Kind::{ActiveMq, ActiveMqNetwork, FerryDisk, FerryMem, FerryMesh, FerryOne, Nats, RabbitMq};

/// All of them; those with the same two sides stand together, so that each is started once. A set for mosquitto comes
/// with MQTT.
pub(crate) const ALL: [Scenario; 24] = [
    scenario("rabbitmq-p1", FerryDisk, RabbitMq, Shape::lock_step(1), 1.5),
    scenario("rabbitmq-p8", FerryDisk, RabbitMq, Shape::lock_step(8), 3.0),
    scenario("rabbitmq-p32", FerryDisk, RabbitMq, Shape::lock_step(32), 6.0),
    scenario("rabbitmq-windowed", FerryDisk, RabbitMq, Shape::WINDOWED, 6.0),
    scenario("nats-p8", FerryDisk, Nats, Shape::lock_step(8), 1.0),
    scenario("nats-p32", FerryDisk, Nats, Shape::lock_step(32), 2.0),
    scenario("nats-windowed", FerryDisk, Nats, Shape::WINDOWED, 2.0),
    scenario(
        "nats-producing-p8",
        FerryDisk,
        Nats,
        Shape::lock_step(8).producing(),
        2.0,
    ),
    scenario(
        "nats-producing-p32",
        FerryDisk,
        Nats,
        Shape::lock_step(32).producing(),
        2.0,
    ),
    scenario(
        "nats-producing-windowed",
        FerryDisk,
        Nats,
        Shape::WINDOWED.producing(),
        2.0,
    ),
    scenario("nats-mem-p8", FerryMem, Nats, Shape::lock_step(8), 2.0),
    scenario("nats-mem-p32", FerryMem, Nats, Shape::lock_step(32), 2.0),
    scenario("activemq-p8", FerryDisk, ActiveMq, Shape::lock_step(8), 0.0),
    scenario("activemq-p32", FerryDisk, ActiveMq, Shape::lock_step(32), 1.0),
    scenario(
        "activemq-producing-p32",
        FerryDisk,
        ActiveMq,
        Shape::lock_step(32).producing(),
        3.0,
    ),
    scenario(
        "activemq-non-persistent",
        FerryDisk,
        ActiveMq,
        Shape::non_persistent(1, false),
        2.0,
    ),
    scenario(
        "activemq-topic",
        FerryDisk,
        ActiveMq,
        Shape::non_persistent(4, true),
        1.5,
    ),
    scenario("one-p8", FerryOne, ActiveMq, Shape::lock_step(8), 1.5),
    scenario("one-p32", FerryOne, ActiveMq, Shape::lock_step(32), 1.5),
    scenario("mesh-p1", FerryMesh, ActiveMqNetwork, Shape::lock_step(1), 0.0),
    scenario("mesh-p8", FerryMesh, ActiveMqNetwork, Shape::lock_step(8), 1.5),
    scenario("mesh-p32", FerryMesh, ActiveMqNetwork, Shape::lock_step(32), 4.0),
    scenario("mesh-windowed", FerryMesh, ActiveMqNetwork, Shape::WINDOWED, 0.0),
    scenario("mesh-rate", FerryMesh, ActiveMqNetwork, Shape::paced(1000.0), 0.0),
];

/// Those that the words ask for, each a scenario's name or what its name begins with; all where there are no words.
///
/// # Errors
/// A word that fits none.
pub(crate) fn chosen(words: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let fits = |scenario: &Scenario, word: &String| {
        let rest = scenario.name.strip_prefix(word.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    for word in words {
        anyhow::ensure!(
            ALL.iter().any(|scenario| fits(scenario, word)),
            "no scenario is called {word}; --list shows them"
        );
    }
    let asked = |scenario: &&Scenario| words.is_empty() || words.iter().any(|word| fits(scenario, word));
    Ok(ALL.iter().filter(asked).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_choose_by_name_and_by_set() {
        let names = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            chosen(&words).map(|found| found.iter().map(|scenario| scenario.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), ALL.len());
        assert_eq!(
            names(&["nats-mem", "rabbitmq-p1"]).unwrap(),
            ["rabbitmq-p1", "nats-mem-p8", "nats-mem-p32"]
        );
        assert_eq!(names(&["nats-p8"]).unwrap(), ["nats-p8"]);
        assert!(names(&["rabbit"]).is_err());
    }

    #[test]
    fn every_name_is_used_once_and_its_load_can_be_made() {
        let mut names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for scenario in ALL {
            let second = Duration::from_secs(1);
            scenario.shape.load("x".into(), second, second).check().unwrap();
        }
    }
}
