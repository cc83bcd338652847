//! Room that is kept for volumes while they are made, so that two at once can not get the same bytes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Capacity;
use crate::volume::Bytes;

/// What is promised to volumes that have no record yet.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Bytes>);

/// Room that is kept until dropped: until the record of what was made in it counts, or the making failed.
#[derive(Debug)]
pub(super) struct Promise<'a> {
    ledger: &'a Ledger,
    size: Bytes,
}

impl Ledger {
    /// What is kept now.
    pub(super) fn reserved(&self) -> Bytes {
        *self.sum()
    }

    /// Keeps `size` if `room`, told what is kept already, has as much available.
    ///
    /// # Errors
    /// The room that there is, or why that is not known.
    pub(super) fn reserve<E>(
        &self,
        size: Bytes,
        room: impl FnOnce(Bytes) -> Result<Capacity, E>,
    ) -> Result<Promise<'_>, Result<Capacity, E>> {
        self.reserve_more(size, size, room)
    }

    /// The same for a volume of `size` that takes `taken`, such as a mirrored one; `room` tells what such a volume can get.
    ///
    /// # Errors
    /// As those of [`Ledger::reserve`].
    pub(super) fn reserve_more<E>(
        &self,
        size: Bytes,
        taken: Bytes,
        room: impl FnOnce(Bytes) -> Result<Capacity, E>,
    ) -> Result<Promise<'_>, Result<Capacity, E>> {
        let mut sum = self.sum();
        match room(*sum) {
            Ok(room) if size <= room.available => {
                *sum = sum.plus(taken);
                let (ledger, size) = (self, taken);
                Ok(Promise { ledger, size })
            }
            refused => Err(refused),
        }
    }

    fn sum(&self) -> MutexGuard<'_, Bytes> {
        // A sum that is only ever added to and taken from whole can not be half-changed by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let mut sum = self.ledger.sum();
        *sum = sum.less(self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_at_once_can_not_get_the_same_bytes() {
        let ledger = Ledger::default();
        let room = |reserved: Bytes| {
            Ok::<_, ()>(Capacity {
                available: Bytes(10).less(reserved),
                ..Capacity::default()
            })
        };
        let first = ledger.reserve(Bytes(6), room).expect("all is free");

        let second = ledger.reserve(Bytes(6), room).expect_err("four are left");
        drop(first);

        assert_eq!(second.map(|room| room.available), Ok(Bytes(4)));
        assert!(ledger.reserve(Bytes(6), room).is_ok());
    }
}
