//! The options of `docker volume create`, read into what a node is asked for.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::name::Name;
use crate::client::wanted_size;
use crate::names::{self, CLAIM_NAME, CLAIM_NAMESPACE};
use crate::volume::{Bytes, SnapshotName, VolumeId};

/// A volume as `docker volume create` asks for it.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// At least; what the node gives if it is left out.
    pub(super) size: Option<Bytes>,
    /// The name of a filesystem, or nothing.
    pub(super) fs_type: String,
    /// What its first content is.
    pub(super) from: Option<Origin>,
    /// What the node reads, strictly: the parameters of a class, and whose it is.
    pub(super) parameters: BTreeMap<String, String>,
}

/// A volume that is copied, or one of its snapshots.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) volume: Whose,
    pub(super) snapshot: Option<SnapshotName>,
}

/// A volume by Docker's name, or any by its id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Docker(Name),
    Any(VolumeId),
}

impl Wish {
    /// Reads the options: `size`, `fs` and `from`; all others are parameters, which the node knows.
    ///
    /// # Errors
    /// A value that is none of its option, and what only the node's other clients may say.
    pub(super) fn read(
        name: &Name,
        options: BTreeMap<String, String>,
        has_key: bool,
    ) -> Result<Self> {
        let mut wish = Self::default();
        for (key, value) in options {
            match &*key {
                "size" => {
                    let size = wanted_size(&value).map_err(|wrong| anyhow!("option size: {wrong}"));
                    wish.size = Some(size?);
                }
                "fs" => wish.fs_type = value,
                "from" => wish.from = Some(Origin::read(&value)?),
                "encryption" if !has_key && value != "false" => bail!(
                    "option encryption: Docker hands a plugin no key to encrypt with: leave it out, or start `orlop docker` \
                     with --encryption-key-file FILE"
                ),
                _ => {
                    ensure!(
                        !key.contains('/'),
                        "option {key:?} is unknown: use size, fs, from, pool, or another parameter of the pool"
                    );
                    wish.parameters.insert(key, value);
                }
            }
        }
        for (key, value) in [
            (CLAIM_NAMESPACE, names::DOCKER),
            (CLAIM_NAME, name.as_str()),
        ] {
            wish.parameters.insert(key.to_owned(), value.to_owned());
        }
        Ok(wish)
    }
}

impl Origin {
    fn read(text: &str) -> Result<Self> {
        let (volume, snapshot) = match text.split_once('@') {
            Some((_, "")) => bail!("option from: {text:?} names no snapshot after the `@`"),
            Some((volume, snapshot)) => (volume, Some(SnapshotName::from_csi(snapshot))),
            None => (text, None),
        };
        let volume = if volume.contains('/') {
            Whose::Any(volume.parse().context("option from")?)
        } else {
            Whose::Docker(volume.to_owned().try_into().context("option from")?)
        };
        Ok(Self { volume, snapshot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Wish> {
        let pairs = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Wish::read(&"Data".to_owned().try_into()?, pairs.collect(), false)
    }

    #[test]
    fn what_is_not_dockers_own_is_left_to_the_node() {
        let wish = read(&[
            ("size", "2GiB"),
            ("fs", "xfs"),
            ("pool", "fast"),
            ("wipe", "zero"),
        ]);

        let wish = wish.expect("all is well");
        assert_eq!(wish.size, Some(Bytes(2 << 30)));
        assert_eq!(wish.fs_type, "xfs");
        let parameters: Vec<_> = wish.parameters.iter().collect();
        let told = parameters
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                (CLAIM_NAME, "Data"),
                (CLAIM_NAMESPACE, "(docker)"),
                ("pool", "fast"),
                ("wipe", "zero")
            ]
        );
    }

    #[test]
    fn a_source_is_a_name_or_an_id_with_or_without_a_snapshot() {
        let from = |text| read(&[("from", text)]).map(|wish| wish.from.expect("it was given"));
        let docker = |name: &str| Whose::Docker(name.to_owned().try_into().expect("a name"));
        let any = |id: &str| Whose::Any(id.parse().expect("an id"));

        for (text, volume, snapshot) in [
            ("My.Data", docker("My.Data"), None),
            ("data@old", docker("data"), Some("old")),
            ("fast/data", any("fast/data"), None),
            ("fast/data@old", any("fast/data"), Some("old")),
        ] {
            let snapshot = snapshot.map(SnapshotName::from_csi);
            assert_eq!(from(text).expect(text), Origin { volume, snapshot });
        }
        for bad in ["", "@old", "data@", "/data", "a b", "Fast/data"] {
            let error = from(bad).expect_err(bad);

            assert!(format!("{error:#}").contains("option from"), "{error:#}");
        }
    }

    #[test]
    fn nobody_pretends_to_be_another_client() {
        for key in [CLAIM_NAMESPACE, CLAIM_NAME, "csi.storage.k8s.io/fstype"] {
            let error = read(&[(key, "x")]).expect_err("it is reserved");

            assert!(error.to_string().contains("is unknown"), "{error}");
        }
    }

    #[test]
    fn what_can_not_be_is_told_by_the_name_of_its_option() {
        for (key, value) in [("size", "big"), ("size", "0"), ("encryption", "luks")] {
            let error = read(&[(key, value)]).expect_err("it can not be");

            assert!(
                error.to_string().contains(&format!("option {key}")),
                "{error}"
            );
        }
    }
}
