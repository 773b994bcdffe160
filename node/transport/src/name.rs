//! Who a node is to other nodes: the name of its group and its number in it.

use std::fmt;

/// Longest group name, in bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 64;

/// The identity of a node as other nodes see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName {
    group: String,
    node: u64,
}

/// Why a connection inside a group is opened. The user defines the values; transport only carries the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Purpose(pub u8);

/// A group name or node number that cannot be an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The group's name is empty or longer than [`GROUP_NAME_BYTES_MAX`].
    #[error("a group name has 1 to {GROUP_NAME_BYTES_MAX} characters, this one has {0}")]
    Length(usize),
    /// The group's name holds another character than a letter, a digit, `.`, `_` or `-`.
    #[error("a group name holds letters, digits, '.', '_' and '-' only, this one holds {0:?}")]
    Character(char),
    /// Node numbers begin at 1, since 0 stands for "any node" when dialling.
    #[error("a node's number is 1 or greater")]
    NodeZero,
}

impl PeerName {
    /// Checks the group's name and the node's number.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(group: impl Into<String>, node: u64) -> Result<Self, NameError> {
        let group = group.into();
        if group.is_empty() || group.len() > GROUP_NAME_BYTES_MAX {
            return Err(NameError::Length(group.chars().count()));
        }
        if let Some(wrong) = group
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-'))
        {
            return Err(NameError::Character(wrong));
        }
        if node == 0 {
            return Err(NameError::NodeZero);
        }
        Ok(Self { group, node })
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The node's number in its group, 1 or greater.
    pub fn node(&self) -> u64 {
        self.node
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_names_pass() {
        assert_eq!(PeerName::new("north", 1).unwrap().to_string(), "north/1");
        assert!(PeerName::new("A.b_c-9", u64::MAX).is_ok());
        assert_eq!(PeerName::new("", 1), Err(NameError::Length(0)));
        assert_eq!(PeerName::new("x".repeat(65), 1), Err(NameError::Length(65)));
        assert_eq!(PeerName::new("a b", 1), Err(NameError::Character(' ')));
        assert_eq!(PeerName::new("a/b", 1), Err(NameError::Character('/')));
        assert_eq!(PeerName::new("straße", 1), Err(NameError::Character('ß')));
        assert_eq!(PeerName::new("a", 0), Err(NameError::NodeZero));
    }
}
