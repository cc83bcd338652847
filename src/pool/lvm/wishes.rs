//! What a class may ask of LVM volumes alone.

use serde::Deserialize;

use super::group::Erasure;
use crate::host::command::Command;
use crate::volume::{Bytes, Error, Result, Wishes};

/// What becomes of the content of a volume that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wipe {
    /// It is left for whoever gets the space next.
    None,
    /// The disk is told that nobody needs it.
    Discard,
    /// It is overwritten with zeros.
    Zero,
}

/// Of a volume in a thin pool.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfThin {
    wipe: Option<Wipe>,
}

/// Of a thick volume: options of lvcreate(8) under their own names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OfThick {
    wipe: Option<Wipe>,
    #[serde(rename = "type")]
    segments: Option<Segments>,
    stripes: Option<Count>,
    stripe_size: Option<Size>,
    mirrors: Option<Count>,
}

/// How a thick volume is to be spread; what is left out is up to lvcreate(8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) segments: Option<Segments>,
    pub(super) stripes: Option<u64>,
    stripe_size: Option<Bytes>,
    pub(super) mirrors: Option<u64>,
}

/// What a thick volume is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Segments {
    Linear,
    Striped,
    Raid0,
    Raid1,
    Raid5,
    Raid6,
    Raid10,
}

/// 1 to 128, as LVM takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Count(u64);

/// 4 KiB to 4 MiB, a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Size(Bytes);

impl TryFrom<String> for Count {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let count = text.parse().ok().filter(|count| (1..=128).contains(count));
        count
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no number from 1 to 128"))
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let size = text.parse::<Bytes>().ok();
        let fits = |size: &Bytes| size.0.is_power_of_two() && (4 << 10..=4 << 20).contains(&size.0);
        size.filter(fits)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no power of two from 4KiB to 4MiB"))
    }
}

impl Segments {
    /// Whether it can lose a disk.
    pub(super) const fn is_redundant(self) -> bool {
        matches!(self, Self::Raid1 | Self::Raid5 | Self::Raid6 | Self::Raid10)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Striped => "striped",
            Self::Raid0 => "raid0",
            Self::Raid1 => "raid1",
            Self::Raid5 => "raid5",
            Self::Raid6 => "raid6",
            Self::Raid10 => "raid10",
        }
    }
}

/// Whether a class asks only for what the pool has.
pub(super) fn check(wishes: &Wishes, thin: bool) -> Result<()> {
    erasure(wishes, thin)?;
    if thin {
        Ok(())
    } else {
        wishes.read::<OfThick>().map(drop)
    }
}

/// How the content of a deleted volume is erased. A thin pool blanks each block before it is given out, and a thick
/// volume must leave nothing behind for the next one.
pub(super) fn erasure(wishes: &Wishes, thin: bool) -> Result<Option<Erasure>> {
    let wipe = if thin {
        wishes.read::<OfThin>()?.wipe.unwrap_or(Wipe::None)
    } else {
        wishes.read::<OfThick>()?.wipe.unwrap_or(Wipe::Zero)
    };
    match wipe {
        Wipe::None => Ok(None),
        Wipe::Discard => Ok(Some(Erasure::Discard)),
        Wipe::Zero if thin => Err(Error::Invalid(
            "parameters: wipe: zeros would fill the thin pool, which blanks each block before it is given out anyway: say \
             `discard` or `none`"
                .into(),
        )),
        Wipe::Zero => Ok(Some(Erasure::Zero)),
    }
}

/// How a thick volume is to be spread, as the class says it.
pub(super) fn spread(wishes: &Wishes) -> Result<Asked> {
    let OfThick {
        segments,
        stripes,
        stripe_size,
        mirrors,
        ..
    } = wishes.read()?;
    Ok(Asked {
        segments,
        stripes: stripes.map(|Count(stripes)| stripes),
        stripe_size: stripe_size.map(|Size(size)| size),
        mirrors: mirrors.map(|Count(mirrors)| mirrors),
    })
}

impl Asked {
    /// Adds it to an lvcreate.
    pub(super) fn tell(self, mut command: Command) -> Command {
        if let Some(segments) = self.segments {
            command = command.args(["--type", segments.name()]);
        }
        if let Some(stripes) = self.stripes {
            command = command.args(["--stripes", &stripes.to_string()]);
        }
        if let Some(size) = self.stripe_size {
            command = command.args(["--stripesize", &format!("{}b", size.0)]);
        }
        if let Some(mirrors) = self.mirrors {
            command = command.args(["--mirrors", &mirrors.to_string()]);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(pairs: &[(&str, &str)]) -> Wishes {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_thick_volume_is_zeroed_and_a_thin_one_needs_nothing() {
        let none = wishes(&[]);

        assert_eq!(
            erasure(&none, false).expect("it asks nothing"),
            Some(Erasure::Zero)
        );
        assert_eq!(erasure(&none, true).expect("it asks nothing"), None);
        assert!(erasure(&wishes(&[("wipe", "zero")]), true).is_err());
    }

    #[test]
    fn only_what_lvm_takes_is_passed_on() {
        let raid = wishes(&[
            ("type", "raid10"),
            ("mirrors", "1"),
            ("stripeSize", "64KiB"),
        ]);

        let command = spread(&raid).expect("it is allowed");
        let command = command.tell(Command::new("lvcreate"));

        assert_eq!(
            command.to_string(),
            "lvcreate --type raid10 --stripesize 65536b --mirrors 1"
        );
        for bad in [
            ("type", "mirror"),
            ("mirrors", "0"),
            ("stripes", "1; rm"),
            ("stripeSize", "3KiB"),
            ("nosync", "y"),
        ] {
            assert!(check(&wishes(&[bad]), false).is_err(), "{bad:?}");
        }
        assert!(check(&raid, true).is_err());
    }
}
