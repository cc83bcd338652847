//! How much room there is, and how it is kept for what is being made.

use anyhow::Result;

use super::report::Lv;
use super::spread::Spread;
use super::thin::Thin;
use super::{Lvm, VOLUME};
use crate::pool::Capacity;
use crate::pool::ledger::Promise;
use crate::volume::{self, Bytes, Error, Volume, Wishes};

impl Lvm {
    /// Keeps room for this much more while it is made.
    pub(super) fn reserve(&self, size: Bytes) -> volume::Result<Promise<'_>> {
        self.reserve_spread(size, Spread::LINEAR, Bytes(0))
    }

    /// Keeps room for a volume that is spread like this, or for its growth, and for a snapshot's store beside it.
    pub(super) fn reserve_spread(
        &self,
        size: Bytes,
        spread: Spread,
        store: Bytes,
    ) -> volume::Result<Promise<'_>> {
        self.refuse_full()?;
        let taken = spread.takes(size, self.extent).plus(store);
        let room = |reserved: Bytes| self.room(reserved.plus(store), spread);
        self.ledger.reserve_more(size, taken, &spread.told(), room)
    }

    /// How a volume of which this is asked is spread; a thin one is where its pool is.
    pub(super) fn spread(&self, wishes: &Wishes) -> volume::Result<Spread> {
        if self.config.thin_pool.is_some() {
            return Ok(Spread::LINEAR);
        }
        Spread::of(wishes)
    }

    /// What a snapshot of a volume takes of the group at once: a classic one its store, a thin one nothing.
    pub(super) fn store(&self, of: &Volume) -> Bytes {
        if self.config.thin_pool.is_some() {
            return Bytes(0);
        }
        Bytes(of.record.size.0 / 100)
            .times(self.config.snapshot_percent)
            .round_up(self.extent)
    }

    /// Refuses to make anything in a thin pool that is nearly full.
    fn refuse_full(&self) -> volume::Result<()> {
        let Some(pool) = &self.config.thin_pool else {
            return Ok(());
        };
        match self.refusal(&Thin::of(&self.group, pool)?) {
            Some(reason) => Err(Error::Full(format!("pool {}: {reason}", self.name))),
            None => Ok(()),
        }
    }

    fn refusal(&self, thin: &Thin) -> Option<String> {
        let config = &self.config;
        thin.refusal(
            &config.place(),
            config.max_data_percent,
            config.max_metadata_percent,
        )
    }

    pub(super) fn room(&self, reserved: Bytes, spread: Spread) -> Result<Capacity> {
        let report = self.group.report()?;
        let is_volume = |lv: &&Lv| self.has(lv) && !self.is_half(lv) && lv.name.starts_with(VOLUME);
        let sizes = report.lvs.iter().filter(is_volume).map(|lv| lv.size);
        let promised = sizes.fold(reserved, Bytes::plus);
        let Some(pool) = &self.config.thin_pool else {
            return Ok(Capacity {
                total: report.group.size,
                promised,
                available: spread.largest(&report.free, reserved, self.extent),
            });
        };
        let thin = Thin::of(&self.group, pool)?;
        let may_promise = Bytes(thin.size.0 / 100).times(self.config.overcommit_percent);
        Ok(Capacity {
            total: thin.size,
            promised,
            available: if self.refusal(&thin).is_some() {
                Bytes(0)
            } else {
                may_promise.less(promised)
            },
        })
    }
}
