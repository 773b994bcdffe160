//! Why a receiving group does not take a message: the numbers in [`Refused::reason`](ferrymq_broker::Refused).

use std::fmt;

/// A reason. The numbers are in the logs of both groups and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The bytes are not a stored message that this group's version reads.
    Unreadable = 1,
    /// It has been handed from group to group too often.
    TooManyHops = 2,
    /// It is larger than a link carries; its owner knows without asking.
    TooLarge = 3,
}

impl Refusal {
    /// The reason behind a number; `None` for one that a later version has added.
    pub fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Unreadable,
            2 => Self::TooManyHops,
            3 => Self::TooLarge,
            _ => return None,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "the message cannot be read there",
            Self::TooLarge => "the message is larger than a link carries",
            Self::TooManyHops => "the message has been handed from group to group too often",
        })
    }
}
