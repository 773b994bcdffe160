//! A producer's name: which user it is, and what it calls itself. Two users' producers never are the same one.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// A producer, named by somebody else's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who<'a> {
    /// The user as which it came in; none where the log does not say, as it did not at first.
    pub user: Option<&'a str>,
    /// Its `producer-id`.
    pub id: &'a str,
}

/// A producer's name, kept: both parts in one piece.
#[derive(Clone, Default)]
pub struct Key {
    text: Arc<str>,
    /// Where the id begins; none without a user.
    user_bytes: Option<u32>,
}

impl Key {
    /// A copy.
    pub fn new(who: Who<'_>) -> Self {
        let user_bytes = who.user.map(|user| user.len() as u32);
        let text = match who.user {
            Some(user) => [user, who.id].concat().into(),
            None => who.id.into(),
        };
        Self { text, user_bytes }
    }

    /// The name.
    pub fn who(&self) -> Who<'_> {
        match self.user_bytes {
            None => Who {
                user: None,
                id: &self.text,
            },
            Some(at) => {
                let (user, id) = self.text.split_at(at as usize);
                Who { user: Some(user), id }
            }
        }
    }

    /// Bytes of its text.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// True where neither part has any.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

/// What has a producer's name: so that a table of [`Key`]s can be asked with a [`Who`].
pub trait Named {
    /// The name.
    fn name(&self) -> Who<'_>;
}

impl Named for Key {
    fn name(&self) -> Who<'_> {
        self.who()
    }
}

impl Named for Who<'_> {
    fn name(&self) -> Who<'_> {
        *self
    }
}

impl<'a> Borrow<dyn Named + 'a> for Key {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for dyn Named + '_ {}

impl PartialOrd for dyn Named + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Named + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(&other.name())
    }
}

impl Hash for dyn Named + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.who() == other.who()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.who().cmp(&other.who())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.who().hash(state);
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.who().fmt(f)
    }
}
