//! A message as its sender meant it, with typed headers, properties and body.

use bytes::Bytes;

use crate::{Destination, Value, selector::Fields};

/// How the body is to be understood. The numbers are part of the stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum BodyKind {
    /// No body (JMS Message).
    Empty = 0,
    /// UTF-8 text (JMS TextMessage).
    Text = 1,
    /// Raw bytes (JMS BytesMessage, an AMQP data section, an MQTT payload).
    #[default]
    Bytes = 2,
    /// One [`Value::Map`] in its stored form (JMS MapMessage).
    Map = 3,
    /// One [`Value::List`] in its stored form (JMS StreamMessage, an AMQP sequence).
    List = 4,
    /// A serialised Java object, never opened here (JMS ObjectMessage).
    Object = 5,
    /// One [`Value`] in its stored form (an AMQP value section).
    Value = 6,
}

impl BodyKind {
    /// The kind behind a stored number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Empty,
            1 => Self::Text,
            2 => Self::Bytes,
            3 => Self::Map,
            4 => Self::List,
            5 => Self::Object,
            6 => Self::Value,
            _ => return None,
        })
    }
}

/// The client language whose own bytes a message still carries. The numbers are part of the stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// STOMP headers that have no place among the typed ones.
    Stomp = 1,
    /// A whole OpenWire message command, loose encoding.
    OpenWire = 2,
    /// The bare AMQP 1.0 message, byte for byte.
    Amqp = 3,
    /// MQTT 5 properties.
    Mqtt = 4,
}

impl Encoding {
    /// The encoding behind a stored number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Stomp,
            2 => Self::OpenWire,
            3 => Self::Amqp,
            4 => Self::Mqtt,
            _ => return None,
        })
    }
}

/// What the sender wrote, kept so that a consumer of the same language gets it back unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The sender's language.
    pub encoding: Encoding,
    /// The bytes in that language; their meaning belongs to its codec.
    pub bytes: Bytes,
}

/// A producer's name and the number it gave to this message, by which a resend is recognised (P5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Unique among all producers, for ever.
    pub id: String,
    /// Grows with every message of this producer.
    pub sequence: u64,
}

impl Producer {
    /// Longest id that a client may give, in bytes: every replica remembers it. Ids that clients draw or make of their
    /// host's name have less than a hundred.
    pub const ID_BYTES_MAX: usize = 256;
}

/// A message with the JMS headers. Times are milliseconds since 1970, UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// JMSMessageID.
    pub id: String,
    /// JMSDestination: where it was sent.
    pub destination: Destination,
    /// JMSDeliveryMode: survives the loss of any minority of nodes.
    pub persistent: bool,
    /// JMSPriority, 0–9; 4 is normal.
    pub priority: u8,
    /// JMSTimestamp.
    pub timestamp_ms: i64,
    /// JMSExpiration; 0 means never.
    pub expires_ms: i64,
    /// JMSCorrelationID.
    pub correlation_id: Option<String>,
    /// JMSReplyTo.
    pub reply_to: Option<Destination>,
    /// JMSType.
    pub message_type: Option<String>,
    /// JMSXGroupID.
    pub group_id: Option<String>,
    /// JMSXGroupSeq.
    pub group_sequence: i32,
    /// JMSXUserID.
    pub user_id: Option<String>,
    /// By which a resend is recognised.
    pub producer: Option<Producer>,
    /// Application properties, in the order of the sender.
    pub properties: Vec<(String, Value)>,
    /// How to read `body`.
    pub body_kind: BodyKind,
    /// The body.
    pub body: Bytes,
    /// The sender's own bytes, where they say more than the fields above.
    pub foreign: Option<Foreign>,
}

impl Message {
    /// The normal JMSPriority.
    pub const PRIORITY_DEFAULT: u8 = 4;

    /// A persistent message with this id, destination and body, and defaults for the rest.
    pub fn new(id: impl Into<String>, destination: Destination, body: impl Into<Bytes>) -> Self {
        Self {
            id: id.into(),
            destination,
            persistent: true,
            priority: Self::PRIORITY_DEFAULT,
            timestamp_ms: 0,
            expires_ms: 0,
            correlation_id: None,
            reply_to: None,
            message_type: None,
            group_id: None,
            group_sequence: 0,
            user_id: None,
            producer: None,
            properties: Vec::new(),
            body_kind: BodyKind::Bytes,
            body: body.into(),
            foreign: None,
        }
    }

    /// The property of this name.
    pub fn property(&self, name: &str) -> Option<&Value> {
        self.properties
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }
}

impl Fields for Message {
    /// The JMS headers that a selector may name (Jakarta Messaging 3.1 §3.8.1.1), then the properties.
    fn field(&self, name: &str) -> Value {
        let text = |t: &Option<String>| t.clone().map_or(Value::Null, Value::Text);
        match name {
            "JMSMessageID" => Value::Text(self.id.clone()),
            "JMSDeliveryMode" => Value::from(if self.persistent {
                "PERSISTENT"
            } else {
                "NON_PERSISTENT"
            }),
            "JMSPriority" => Value::Int(i32::from(self.priority)),
            "JMSTimestamp" => Value::Long(self.timestamp_ms),
            "JMSExpiration" => Value::Long(self.expires_ms),
            "JMSCorrelationID" => text(&self.correlation_id),
            "JMSType" => text(&self.message_type),
            "JMSXGroupID" => text(&self.group_id),
            "JMSXGroupSeq" => Value::Int(self.group_sequence),
            "JMSXUserID" => text(&self.user_id),
            "JMSDestination" => Value::Text(self.destination.to_string()),
            "JMSReplyTo" => self
                .reply_to
                .as_ref()
                .map_or(Value::Null, |d| Value::Text(d.to_string())),
            _ => self.property(name).cloned().unwrap_or(Value::Null),
        }
    }
}
