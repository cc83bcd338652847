//! Room that is kept for volumes while they are made, so that two at once can not get the same bytes.

use parking_lot::Mutex;

use super::Capacity;
use crate::volume::{Bytes, Error, PoolName, Result};

/// What is promised to volumes of a pool that have no record yet.
#[derive(Debug)]
pub(super) struct Ledger {
    pool: PoolName,
    sum: Mutex<Bytes>,
}

/// Room that is kept until dropped: until the record of what was made in it counts, or the making failed.
#[derive(Debug)]
pub(super) struct Promise<'a> {
    ledger: &'a Ledger,
    size: Bytes,
}

impl Ledger {
    /// That of this pool, in which nothing is kept.
    pub(super) fn new(pool: &PoolName) -> Self {
        Self {
            pool: pool.clone(),
            sum: Mutex::default(),
        }
    }

    /// What is kept now.
    pub(super) fn reserved(&self) -> Bytes {
        *self.sum.lock()
    }

    /// Keeps `size` if `room`, told what is kept already, has as much available.
    ///
    /// # Errors
    /// `Full` with the room that there is, or why that is not known.
    pub(super) fn reserve(
        &self,
        size: Bytes,
        room: impl FnOnce(Bytes) -> anyhow::Result<Capacity>,
    ) -> Result<Promise<'_>> {
        self.reserve_more(size, size, "", room)
    }

    /// The same for a volume of `size` that takes `taken`, such as a mirrored one, which is told by `form`; `room` tells
    /// what such a volume can get.
    ///
    /// # Errors
    /// As those of [`Ledger::reserve`].
    pub(super) fn reserve_more(
        &self,
        size: Bytes,
        taken: Bytes,
        form: &str,
        room: impl FnOnce(Bytes) -> anyhow::Result<Capacity>,
    ) -> Result<Promise<'_>> {
        let mut sum = self.sum.lock();
        let Capacity {
            total,
            promised,
            available,
        } = room(*sum)?;
        if size > available {
            return Err(Error::Full(format!(
                "pool {} has room for {available} (of {total}, {promised} are promised to volumes), not for {size}{form}",
                self.pool
            )));
        }
        *sum = sum.plus(taken);
        Ok(Promise {
            ledger: self,
            size: taken,
        })
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let mut sum = self.ledger.sum.lock();
        *sum = sum.less(self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_at_once_can_not_get_the_same_bytes() {
        let ledger = Ledger::new(&"fast".parse().expect("it is a legal name"));
        let room = |reserved: Bytes| {
            Ok(Capacity {
                available: Bytes(10).less(reserved),
                ..Capacity::default()
            })
        };
        let first = ledger.reserve(Bytes(6), room).expect("all is free");

        let second = ledger.reserve(Bytes(6), room).expect_err("four are left");
        drop(first);

        assert!(matches!(second, Error::Full(_)), "{second}");
        let told = second.to_string();
        assert!(told.contains("pool fast has room for 4B "), "{told}");
        assert!(ledger.reserve(Bytes(6), room).is_ok());
    }
}
