//! Sizes: a count of bytes that prints as people write it, and the range that a caller asks for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, Result};

const UNITS: [(&str, u64); 5] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// A number of bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// One mebibyte.
    pub const MIB: Self = Self(1 << 20);
    /// One gibibyte.
    pub const GIB: Self = Self(1 << 30);

    /// This many times as much; at the most what a `u64` holds.
    #[must_use]
    pub const fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// What is left after taking `other` away, never less than nothing.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Both together; at the most what a `u64` holds.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The smallest multiple of `grain` that is not below.
    #[must_use]
    pub fn round_up(self, grain: Self) -> Self {
        self.0
            .checked_next_multiple_of(grain.0)
            .map_or(Self(u64::MAX), Self)
    }

    /// As the wire's signed number; CSI has no larger one.
    pub fn as_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Bytes {
    /// The largest unit that divides it: `10GiB`, `1536MiB`, `4097B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS
            .iter()
            .find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit))
        {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Bytes {
    type Err = Error;

    /// Reads `10GiB`, `10Gi`, `10G` (10⁹), `4097B` or `4097`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::Invalid(format!(
                "{text:?} is not a size: write it like 10GiB, 512MiB or 1000000"
            ))
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
        let unit = match &text[digits.len()..] {
            "" | "B" => 1,
            "Ki" | "KiB" => 1 << 10,
            "Mi" | "MiB" => 1 << 20,
            "Gi" | "GiB" => 1 << 30,
            "Ti" | "TiB" => 1 << 40,
            "Pi" | "PiB" => 1 << 50,
            "k" | "K" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "P" => 1_000_000_000_000_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(unit).map(Self).ok_or_else(wrong)
    }
}

/// The sizes that a caller accepts (CSI 1.13, `CapacityRange`): at least `required`, at most `limit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapacityRange {
    /// The least size; nothing means that the caller leaves it to us.
    pub required: Option<Bytes>,
    /// The greatest size.
    pub limit: Option<Bytes>,
}

impl CapacityRange {
    /// Exactly or at least this size, as `limit` says.
    pub fn new(required: Option<Bytes>, limit: Option<Bytes>) -> Result<Self> {
        if let (Some(required), Some(limit)) = (required, limit)
            && limit < required
        {
            return Err(Error::Invalid(format!(
                "limit_bytes {limit} is below required_bytes {required}"
            )));
        }
        Ok(Self { required, limit })
    }

    /// The same, with this much more.
    #[must_use]
    pub fn plus(self, more: Bytes) -> Self {
        Self {
            required: self.required.map(|size| size.plus(more)),
            limit: self.limit.map(|size| size.plus(more)),
        }
    }

    /// Whether a volume of this size is one that was asked for.
    pub fn holds(&self, size: Bytes) -> bool {
        self.required.is_none_or(|required| size >= required)
            && self.limit.is_none_or(|limit| size <= limit)
    }

    /// The size to make: what is required, `default` if nothing is, never below `least`, in multiples of `grain`.
    ///
    /// # Errors
    /// `OutOfRange` when no such size lies within the limit.
    pub fn pick(&self, default: Bytes, least: Bytes, grain: Bytes) -> Result<Bytes> {
        let wanted = self
            .required
            .unwrap_or_else(|| self.limit.map_or(default, |limit| limit.min(default)));
        let size = wanted.max(least).round_up(grain);
        match self.limit {
            Some(limit) if size > limit => Err(Error::OutOfRange(format!(
                "no size from {wanted} to {limit} fits: the least is {least}, in multiples of {grain}"
            ))),
            _ if size.0 > i64::MAX as u64 => Err(Error::OutOfRange(format!(
                "{wanted} is more than a volume can hold"
            ))),
            _ => Ok(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_print_in_the_largest_unit_that_divides_them() {
        let printed: Vec<String> = [10 << 30, 1536 << 20, 4097, 0]
            .map(|bytes| Bytes(bytes).to_string())
            .into();

        assert_eq!(printed, ["10GiB", "1536MiB", "4097B", "0B"]);
    }

    #[test]
    fn an_exact_size_comes_back_exactly() {
        let exact =
            CapacityRange::new(Some(Bytes(12345)), Some(Bytes(12345))).expect("limit is not below");

        assert_eq!(
            exact
                .pick(Bytes::GIB, Bytes(1), Bytes(1))
                .expect("any size will do"),
            Bytes(12345)
        );
    }

    proptest! {
        #[test]
        fn printing_and_reading_are_inverse(bytes: u64) {
            prop_assert_eq!(Bytes(bytes).to_string().parse::<Bytes>().expect("we printed it"), Bytes(bytes));
        }

        #[test]
        fn what_is_picked_is_within_the_range(
            required in proptest::option::of(1..1u64 << 62), limit in proptest::option::of(1..1u64 << 62),
            least in 1..1u64 << 40, grain in 1..1u64 << 30,
        ) {
            if let Ok(range) = CapacityRange::new(required.map(Bytes), limit.map(Bytes))
                && let Ok(size) = range.pick(Bytes::GIB, Bytes(least), Bytes(grain))
            {
                prop_assert!(range.holds(size) && size >= Bytes(least) && size.0.is_multiple_of(grain));
            }
        }
    }
}
