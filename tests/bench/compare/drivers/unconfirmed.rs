//! Which messages of a producer have no confirmation yet, where confirmations come singly or for all up to one.

use std::collections::VecDeque;

/// See the module. Numbers begin with 0.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed {
    /// The lowest number that may lack its confirmation.
    first: u64,
    /// For `first` and those after it: whether it is confirmed.
    confirmed: VecDeque<bool>,
}

impl Unconfirmed {
    /// One more message is sent.
    pub(crate) fn sent(&mut self) {
        self.confirmed.push_back(false);
    }

    /// `number` is confirmed; it is appended unless it was before.
    pub(crate) fn one(&mut self, number: u64, numbers: &mut Vec<u64>) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(confirmed) = at.and_then(|at| self.confirmed.get_mut(at))
            && !*confirmed
        {
            *confirmed = true;
            numbers.push(number);
        }
        while self.confirmed.front() == Some(&true) {
            self.confirmed.pop_front();
            self.first += 1;
        }
    }

    /// All up to `number` are confirmed; those that were not before are appended.
    pub(crate) fn up_to(&mut self, number: u64, numbers: &mut Vec<u64>) {
        while self.first <= number {
            let Some(confirmed) = self.confirmed.pop_front() else {
                return;
            };
            if !confirmed {
                numbers.push(self.first);
            }
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_told_once() {
        let mut unconfirmed = Unconfirmed::default();
        (0..6).for_each(|_| unconfirmed.sent());
        let mut told = Vec::new();
        unconfirmed.one(2, &mut told);
        unconfirmed.one(2, &mut told);
        unconfirmed.up_to(3, &mut told);
        unconfirmed.one(5, &mut told);
        unconfirmed.up_to(5, &mut told);
        unconfirmed.up_to(9, &mut told);
        assert_eq!(told, [2, 0, 1, 3, 5, 4]);
        unconfirmed.sent();
        unconfirmed.one(6, &mut told);
        assert_eq!(told.last(), Some(&6));
    }
}
