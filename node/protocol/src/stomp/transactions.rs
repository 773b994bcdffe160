//! The open transactions of one connection, by the client's names.

use std::collections::BTreeMap;

use super::StompError;

/// Names of open transactions, with the session's own numbers.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: BTreeMap<String, u32>,
    last: u32,
}

impl Transactions {
    /// Opens one.
    pub(super) fn begin(&mut self, name: &str, max: usize) -> Result<(), StompError> {
        if self.open.contains_key(name) {
            return Err(StompError::TransactionOpen);
        }
        if self.open.len() >= max {
            return Err(StompError::TooMany {
                what: "transactions",
                max,
            });
        }
        self.last = self.last.wrapping_add(1);
        self.open.insert(name.to_owned(), self.last);
        Ok(())
    }

    /// The number of an open one.
    pub(super) fn number(&self, name: &str) -> Result<u32, StompError> {
        self.open.get(name).copied().ok_or(StompError::UnknownTransaction)
    }

    /// Closes one and tells its number.
    pub(super) fn end(&mut self, name: &str) -> Result<u32, StompError> {
        self.open.remove(name).ok_or(StompError::UnknownTransaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_once_and_end_once() {
        let mut transactions = Transactions::default();
        assert_eq!(transactions.begin("a", 1), Ok(()));
        assert_eq!(transactions.begin("a", 1), Err(StompError::TransactionOpen));
        assert_eq!(
            transactions.begin("b", 1),
            Err(StompError::TooMany {
                what: "transactions",
                max: 1
            })
        );
        let number = transactions.number("a");
        assert_eq!(transactions.end("a"), number);
        assert_eq!(transactions.end("a"), Err(StompError::UnknownTransaction));
    }
}
