//! What Docker calls things: its names of volumes, and the ids of its mounts.

use anyhow::{Error, Result, ensure};

use crate::volume::VolumeName;

/// What CSI carries in a name.
const LONGEST: usize = 128;

/// Docker's name of a volume: letters, digits, `_`, `.` and `-`, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(String);

/// Docker's id of one user of a volume, mostly a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountId(String);

impl Name {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that the volume has in its pool.
    pub(super) fn in_pool(&self) -> VolumeName {
        VolumeName::from_csi(&self.0)
    }
}

impl MountId {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        check(&text, "a volume's name")?;
        Ok(Self(text))
    }
}

impl TryFrom<String> for MountId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        check(&text, "a mount's id")?;
        Ok(Self(text))
    }
}

fn check(text: &str, what: &str) -> Result<()> {
    let short: String = text.chars().take(64).collect();
    ensure!(
        text.len() <= LONGEST,
        "{short:?}… is too long for {what}: it has {} bytes, and {LONGEST} is the most",
        text.len()
    );
    ensure!(
        text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)),
        "{short:?} is not {what}: use letters, digits, `_`, `.` and `-`, the first a letter or a digit"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_docker_allows_them() {
        for good in ["a", "7", "My_Data.v1-2", &"f".repeat(64), &"n".repeat(128)] {
            let name = Name::try_from(good.to_owned()).expect(good);

            assert_eq!(name.as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            "a/b",
            "a b",
            "ä",
            "a\0",
            &"n".repeat(129),
        ] {
            assert!(Name::try_from(bad.to_owned()).is_err(), "{bad:?}");
            assert!(MountId::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
