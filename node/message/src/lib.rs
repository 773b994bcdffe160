//! The words that every room speaks: destinations, messages and the form in which a message is stored.
//!
//! *From* the protocols' sessions, which build a [`Message`]; *to* the broker, the journal and the link, which carry
//! its stored bytes without looking inside. *Never* does I/O, reads a clock or draws a random number.

pub mod destination;
pub mod value;

pub mod digest;
pub mod message;
pub mod stored;

pub mod selector;

pub use destination::{Destination, DestinationKind, ParseDestinationError};
pub use digest::{Digest, NO_DIGEST};
pub use message::{BodyKind, Encoding, Foreign, Message, Producer};
pub use selector::{Fields, Selector, SelectorError};
pub use stored::{Routing, StoredError, StoredMessage};
pub use value::Value;
