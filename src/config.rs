//! The pools file: which pools there are, of which kind, and where.

mod lvm;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;

use crate::volume::PoolName;

pub use lvm::{AutoGrow, Lvm};

/// The pools of a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pools {
    /// In the order in which they are shown.
    pub pools: Vec<Pool>,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name, part of the ids of its volumes.
    pub name: PoolName,
    /// What it is.
    pub kind: Kind,
}

/// What a pool is, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Host directories and image files below this directory.
    Directory(Place),
    /// Subvolumes and image files below this directory of a btrfs.
    Btrfs(Place),
    /// Datasets and zvols beneath a dataset of ZFS.
    Zfs(Dataset),
    /// Logical volumes of a volume group.
    Lvm(Lvm),
}

impl Kind {
    /// Its name, as the pools file writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Directory(_) => "directory",
            Self::Btrfs(_) => "btrfs",
            Self::Zfs(_) => "zfs",
            Self::Lvm(_) => "lvm",
        }
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        match self {
            Self::Directory(place) | Self::Btrfs(place) => place.path.display().to_string(),
            Self::Zfs(place) => place.dataset.clone(),
            Self::Lvm(lvm) => lvm.place(),
        }
    }

    /// The directory that it is in; none, if it is no pool of folders.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(place) | Self::Btrfs(place) => Some(&place.path),
            Self::Lvm(_) | Self::Zfs(_) => None,
        }
    }
}

/// A directory that a pool is given for itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Absolute; must exist, so that a disk that is not mounted is noticed.
    pub path: PathBuf,
}

/// A dataset that a pool is given for itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Such as `tank/orlop`; must exist. Its quotas and reservations bound the pool, its properties are the volumes'
    /// unless their class says others.
    pub dataset: String,
}

/// A pool as it is written: its name, and exactly one kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: PoolName,
    directory: Option<Place>,
    btrfs: Option<Place>,
    zfs: Option<Dataset>,
    lvm: Option<Lvm>,
}

impl<'de> Deserialize<'de> for Pool {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Written {
            name,
            directory,
            btrfs,
            zfs,
            lvm,
        } = Written::deserialize(from)?;
        let mut kinds = directory
            .map(Kind::Directory)
            .into_iter()
            .chain(btrfs.map(Kind::Btrfs))
            .chain(zfs.map(Kind::Zfs))
            .chain(lvm.map(Kind::Lvm));
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => Ok(Self { name, kind }),
            _ => Err(serde::de::Error::custom(format_args!(
                "pool {name}: give it one of directory, btrfs, lvm, zfs"
            ))),
        }
    }
}

impl Pools {
    /// Reads a pools file.
    ///
    /// # Errors
    /// What is wrong, with the file, the line and the key.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("reading the pools file {}", file.display()))?;
        let pools: Self = serde_yaml_ng::from_str(&text).map_err(|wrong| {
            // The parser tells every place but the very first.
            let told = wrong.to_string();
            let first = if told.contains(" at line ") {
                ""
            } else {
                " at line 1 column 1"
            };
            anyhow!("{}: {told}{first}", file.display())
        })?;
        pools.check().with_context(|| file.display().to_string())?;
        Ok(pools)
    }

    /// One directory pool named `default`, below the data directory, which is made if it is missing.
    pub fn embedded(data: &Path) -> Result<Self> {
        let pools = Self::to_be_embedded(data)?;
        for path in pools.pools.iter().filter_map(|pool| pool.kind.directory()) {
            fs::create_dir_all(path).with_context(|| {
                format!(
                    "making {}: name another directory by --data",
                    path.display()
                )
            })?;
        }
        Ok(pools)
    }

    /// The same without making anything.
    pub fn to_be_embedded(data: &Path) -> Result<Self> {
        let path = std::path::absolute(data)?.join("default");
        let name = "default".parse().context("the name of the embedded pool")?;
        Ok(Self {
            pools: vec![Pool {
                name,
                kind: Kind::Directory(Place { path }),
            }],
        })
    }

    fn check(&self) -> Result<()> {
        ensure!(
            !self.pools.is_empty(),
            "it names no pool: add one under `pools:`"
        );
        for (position, pool) in self.pools.iter().enumerate() {
            if let Some(path) = pool.kind.directory() {
                ensure!(
                    path.is_absolute(),
                    "pool {}: the path {} is not absolute",
                    pool.name,
                    path.display()
                );
            }
            if let Kind::Lvm(lvm) = &pool.kind {
                lvm.check().with_context(|| format!("pool {}", pool.name))?;
            }
            if self.pools[..position]
                .iter()
                .any(|other| other.name == pool.name)
            {
                bail!("two pools are named {}: give each its own name", pool.name);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Pools> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(&file, text)?;
        Pools::read(file.path())
    }

    #[test]
    fn an_unknown_key_is_told_with_its_line() {
        let error = read("pools:\n  - name: fast\n    directory: { path: /srv, sise: 3 }\n")
            .expect_err("it is misspelt");

        let told = format!("{error:#}");
        assert!(told.contains("sise") && told.contains("line 3"), "{told}");
    }

    #[test]
    fn so_is_one_at_the_very_start() {
        let error = read("pool: []\npools: []\n").expect_err("it is misspelt");

        let told = format!("{error:#}");
        assert!(told.contains("`pool`") && told.contains("line 1"), "{told}");
    }

    #[test]
    fn a_pool_is_of_one_kind() {
        for kinds in ["", "    directory: { path: /a }\n    btrfs: { path: /b }\n"] {
            let error =
                read(&format!("pools:\n  - name: fast\n{kinds}")).expect_err("it is none or two");

            assert!(format!("{error:#}").contains("give it one of"), "{error:#}");
        }
    }

    #[test]
    fn names_are_given_once_and_paths_are_absolute() {
        let twice =
            "pools:\n  - { name: a, btrfs: { path: /a } }\n  - { name: a, btrfs: { path: /b } }\n";
        let relative = "pools:\n  - { name: a, directory: { path: a } }\n";

        assert!(read(twice).is_err_and(|error| format!("{error:#}").contains("two pools")));
        assert!(read(relative).is_err_and(|error| format!("{error:#}").contains("not absolute")));
    }
}
