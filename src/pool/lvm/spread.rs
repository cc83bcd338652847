//! How much a thick volume takes of each disk, by how it is spread over them: the room for a mirror is not what is free.

use super::wishes::{self, Segments};
use crate::volume::{Bytes, Result, Wishes};

/// What a volume of RAID keeps account in, beside each part of it; LVM gives it whole extents.
const ACCOUNT: Bytes = Bytes::MIB;

/// The parts of a volume, each of which LVM puts on a disk of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    /// How many disks it is on at once.
    pub(super) parts: usize,
    /// How many of the parts have content of their own; the others are copies or parity.
    data: u64,
    /// Whether each part has an account beside it.
    accounts: bool,
}

impl Spread {
    /// On one disk after the other.
    pub(super) const LINEAR: Self = Self {
        parts: 1,
        data: 1,
        accounts: false,
    };

    /// How lvcreate(8) spreads a volume of which this is asked.
    pub(super) fn of(wishes: &Wishes) -> Result<Self> {
        let asked = wishes::spread(wishes)?;
        let (stripes, mirrors) = (asked.stripes, asked.mirrors);
        let segments = asked.segments.unwrap_or(match (stripes, mirrors) {
            (None | Some(1), None) => Segments::Linear,
            (_, None) => Segments::Striped,
            (None | Some(1), Some(_)) => Segments::Raid1,
            (_, Some(_)) => Segments::Raid10,
        });
        let copies = mirrors.unwrap_or(1) + 1;
        let (data, parts) = match segments {
            Segments::Linear => (1, 1),
            Segments::Striped => (stripes.unwrap_or(1), stripes.unwrap_or(1)),
            Segments::Raid0 => (stripes.unwrap_or(2), stripes.unwrap_or(2)),
            Segments::Raid1 => (1, copies),
            Segments::Raid5 => (stripes.unwrap_or(2), stripes.unwrap_or(2) + 1),
            Segments::Raid6 => (stripes.unwrap_or(3), stripes.unwrap_or(3) + 2),
            Segments::Raid10 => (stripes.unwrap_or(2), stripes.unwrap_or(2) * copies),
        };
        Ok(Self {
            parts: usize::try_from(parts).unwrap_or(usize::MAX),
            data,
            accounts: segments.is_redundant(),
        })
    }

    /// That of what is added to such a volume, which has its accounts already.
    pub(super) fn of_growth(self) -> Self {
        Self {
            accounts: false,
            ..self
        }
    }

    /// What a volume of this size takes of all disks together.
    pub(super) fn takes(self, size: Bytes, extent: Bytes) -> Bytes {
        let part = Bytes(size.0.div_ceil(self.data)).round_up(extent);
        let parts = u64::try_from(self.parts).unwrap_or(u64::MAX);
        part.plus(self.account(extent)).times(parts)
    }

    /// The largest volume for which disks have room on each of which so much is free, and of all of which so much is
    /// reserved already.
    ///
    /// It is what LVM's allocator does: it takes as much as it can on the disks that have most, and goes on with what is
    /// left.
    pub(super) fn largest(self, free: &[Bytes], reserved: Bytes, extent: Bytes) -> Bytes {
        if self.parts == 1 {
            let all = free.iter().copied().fold(Bytes(0), Bytes::plus);
            return all.less(reserved);
        }
        // Nobody knows yet on which of them that will be.
        let mut left: Vec<_> = free.iter().map(|free| free.less(reserved)).collect();
        let mut part = Bytes(0);
        while let Some(most) = self.on_each(&mut left) {
            part = part.plus(most);
        }
        part.less(self.account(extent)).times(self.data)
    }

    /// Takes as much as can be had on as many disks as there are parts.
    fn on_each(self, left: &mut [Bytes]) -> Option<Bytes> {
        left.sort_unstable_by(|one, other| other.cmp(one));
        let most = *left.get(self.parts.checked_sub(1)?)?;
        for disk in &mut left[..self.parts] {
            *disk = disk.less(most);
        }
        (most > Bytes(0)).then_some(most)
    }

    /// For people, where it explains why there is less room than is free.
    pub(super) fn told(self) -> String {
        if self.parts == 1 {
            return String::new();
        }
        format!(
            " on {} disks at once: delete volumes, or add disks by `vgextend`",
            self.parts
        )
    }

    fn account(self, extent: Bytes) -> Bytes {
        if self.accounts {
            ACCOUNT.round_up(extent)
        } else {
            Bytes(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: Bytes = Bytes::MIB.times(4);

    fn spread(pairs: &[(&str, &str)]) -> Spread {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Spread::of(&pairs.iter().map(owned).collect()).expect("LVM has it")
    }

    #[test]
    fn the_parts_are_those_that_lvcreate_makes() {
        for (asked, parts, data) in [
            (&[][..], 1, 1),
            (&[("type", "striped")], 1, 1),
            (&[("stripes", "3")], 3, 3),
            (&[("type", "raid0")], 2, 2),
            (&[("mirrors", "2")], 3, 1),
            (&[("type", "raid1")], 2, 1),
            (&[("type", "raid5")], 3, 2),
            (&[("type", "raid6"), ("stripes", "4")], 6, 4),
            (&[("type", "raid10")], 4, 2),
            (&[("mirrors", "1"), ("stripes", "3")], 6, 3),
        ] {
            let spread = spread(asked);
            assert_eq!((spread.parts, spread.data), (parts, data), "{asked:?}");
        }
    }

    #[test]
    fn the_room_is_what_lvm_2_03_16_makes_on_uneven_disks() {
        let disks = [25, 50, 75, 100, 125, 150].map(|extents| EXTENT.times(extents));

        for (stripes, each) in [(2, 250), (3, 175), (4, 125), (5, 75), (6, 25)] {
            let striped = spread(&[("stripes", &stripes.to_string())]);
            let room = striped.largest(&disks, Bytes(0), EXTENT);
            assert_eq!(room, EXTENT.times(each * stripes), "{stripes} stripes");
        }
        let raid1 = spread(&[("type", "raid1")]).largest(&disks, Bytes(0), EXTENT);
        assert_eq!(raid1, EXTENT.times(250 - 1), "its account takes one extent");
        let too_many = spread(&[("stripes", "7")]).largest(&disks, Bytes(0), EXTENT);
        assert_eq!(too_many, Bytes(0));
    }

    #[test]
    fn what_is_taken_is_all_copies_with_their_accounts() {
        let size = EXTENT.times(5);

        for (asked, extents) in [
            (&[][..], 5),
            (&[("stripes", "2")], 6),
            (&[("type", "raid1")], 12),
            (&[("type", "raid5")], 12),
        ] {
            assert_eq!(spread(asked).takes(size, EXTENT), EXTENT.times(extents));
        }
    }
}
