//! Names and ids: what may stand in one, and how a CSI name becomes one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why a text is not a name or an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct Malformed {
    text: String,
    expected: &'static str,
}

fn malformed(text: &str, expected: &'static str) -> Malformed {
    // A megabyte of bad name must not become a megabyte of error.
    Malformed {
        text: text.chars().take(64).collect(),
        expected,
    }
}

/// 1 to `most` of `a-z 0-9 -`, the first a letter: legal as folder, subvolume, logical volume and dataset.
fn is_name(text: &str, most: usize) -> bool {
    text.len() <= most
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $most:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                if is_name(text, $most) { Ok(Self(text.to_owned())) } else { Err(malformed(text, $expected)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Malformed;

            fn try_from(text: String) -> Result<Self, Malformed> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a pool in the pools file.
    PoolName, 30, "a pool name: 1 to 30 of a-z 0-9 -, beginning with a letter"
);
name!(
    /// The name of a volume in its pool.
    VolumeName, 48, "a volume name: 1 to 48 of a-z 0-9 -, beginning with a letter"
);
name!(
    /// The name of a snapshot in its pool.
    SnapshotName, 48, "a snapshot name: 1 to 48 of a-z 0-9 -, beginning with a letter"
);

/// The given CSI name if it is a legal one, else `x-` and 32 hex digits of its SHA-256.
///
/// Deterministic, so that a create needs no table to find what an earlier one made. A CSI name that has the hashed
/// form itself is hashed too: two different CSI names never share a name.
fn fitted(csi_name: &str) -> String {
    let hashed_form = csi_name.len() == 34 && csi_name.starts_with("x-");
    if is_name(csi_name, 48) && !hashed_form {
        return csi_name.to_owned();
    }
    let digest = Sha256::digest(csi_name.as_bytes());
    digest
        .iter()
        .take(16)
        .fold(String::from("x-"), |text, byte| {
            text + &format!("{byte:02x}")
        })
}

impl VolumeName {
    /// The volume name of a CSI name (CSI 1.13, `CreateVolume`); the record keeps the CSI name itself.
    pub fn from_csi(csi_name: &str) -> Self {
        Self(fitted(csi_name))
    }
}

impl SnapshotName {
    /// The snapshot name of a CSI name (CSI 1.13, `CreateSnapshot`); the record keeps the CSI name itself.
    pub fn from_csi(csi_name: &str) -> Self {
        Self(fitted(csi_name))
    }
}

/// `<pool>/<volume>`: at most 79 bytes, and no node in it, so that a volume can move and keep its handle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeId {
    /// The pool that holds it.
    pub pool: PoolName,
    /// Its name there.
    pub name: VolumeName,
}

/// `<pool>/<volume>@<snapshot>`: at most 128 bytes, CSI's limit; names its source, so that no index is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId {
    /// The volume that it was taken of, which may be gone.
    pub volume: VolumeId,
    /// Its name in the pool.
    pub name: SnapshotName,
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.name)
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.volume, self.name)
    }
}

impl FromStr for VolumeId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (pool, name) = text
            .split_once('/')
            .ok_or_else(|| malformed(text, "a volume id: <pool>/<volume>"))?;
        Ok(Self {
            pool: pool.parse()?,
            name: name.parse()?,
        })
    }
}

impl FromStr for SnapshotId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (volume, name) = text
            .split_once('@')
            .ok_or_else(|| malformed(text, "a snapshot id: <pool>/<volume>@<snapshot>"))?;
        Ok(Self {
            volume: volume.parse()?,
            name: name.parse()?,
        })
    }
}

macro_rules! as_text {
    ($id:ident) => {
        impl TryFrom<String> for $id {
            type Error = Malformed;

            fn try_from(text: String) -> Result<Self, Malformed> {
                text.parse()
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.to_string()
            }
        }
    };
}

as_text!(VolumeId);
as_text!(SnapshotId);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_names_that_kubernetes_makes_are_kept() {
        let claim = "pvc-4b1d6c7e-0c3f-4a53-9d0c-2f4b7c9d8e1f";

        assert_eq!(VolumeName::from_csi(claim).as_str(), claim);
    }

    #[test]
    fn a_name_that_looks_hashed_is_hashed_again() {
        let hashed = VolumeName::from_csi("Not A Name");

        assert_ne!(VolumeName::from_csi(hashed.as_str()), hashed);
    }

    proptest! {
        #[test]
        fn every_csi_name_becomes_a_legal_one(csi_name in ".{0,200}") {
            let name = VolumeName::from_csi(&csi_name);

            prop_assert_eq!(name.as_str().parse::<VolumeName>(), Ok(name));
        }

        #[test]
        fn different_csi_names_stay_different(one in "[a-z-]{1,60}", other in "[a-z-]{1,60}") {
            prop_assume!(one != other);

            prop_assert_ne!(VolumeName::from_csi(&one), VolumeName::from_csi(&other));
        }

        #[test]
        fn printing_and_parsing_are_inverse(
            pool in "[a-z][a-z0-9-]{0,29}", volume in "[a-z][a-z0-9-]{0,47}", snapshot in "[a-z][a-z0-9-]{0,47}",
        ) {
            let text = format!("{pool}/{volume}@{snapshot}");

            let id: SnapshotId = text.parse().expect("it is well formed");

            prop_assert_eq!(id.to_string(), text.clone());
            prop_assert!(text.len() <= 128);
        }

        #[test]
        fn no_parsed_id_can_leave_its_pool(text in ".{0,140}") {
            if let Ok(id) = text.parse::<VolumeId>() {
                prop_assert!(!id.name.as_str().contains(['/', '.', '\0']) && !id.pool.as_str().contains(['/', '.', '\0']));
            }
        }
    }
}
