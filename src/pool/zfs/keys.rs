//! Encrypted trees: ZFS's own encryption, by a key that first comes with the first staging.
//!
//! Until then the volume is a plain and empty dataset. Its encrypted one is made aside, as every volume is, and takes its
//! place: the plain one is renamed to `e-<volume>` before, and let go after. A clone opens with the key of what it was
//! cloned from, its encryption root, which ZFS lets no clone change.

use anyhow::{Context, Result};
use parking_lot::MutexGuard;
use sha2::{Digest, Sha256};

use super::making::{Plan, set};
use super::{LIMIT, Zfs};
use crate::host::command::Command;
use crate::volume::{Layout, Secret, Volume, VolumeName, VolumeRecord};

/// The exit code of zfs for a key that does not fit, among other things.
const REFUSED: i32 = 255;

/// What ZFS says when it tried one key and it fits.
const FITS: &str = "1 / 1 ";

/// By whose key a dataset is opened.
#[derive(Debug)]
struct Opened {
    dataset: String,
    by: String,
    loaded: bool,
}

impl Zfs {
    /// Keeps the dataset of a volume from being replaced while it is copied.
    pub(super) fn stays(&self, record: &VolumeRecord) -> Option<MutexGuard<'_, ()>> {
        let may_not = record.encryption && record.layout == Layout::Tree;
        may_not.then(|| self.keys.lock())
    }

    /// Loads the key of an encrypted tree, which is encrypted with it if it is not yet; false if it does not fit.
    pub(super) fn load_key(&self, volume: &Volume, key: &Secret) -> Result<bool> {
        let _alone = self.keys.lock();
        // ZFS takes 32 raw bytes, and a key of ours may be longer.
        let key = Secret::from(Sha256::digest(key.bytes()).to_vec());
        let dataset = self.names.volume(&volume.id.name);
        let Some(Opened { by, loaded, .. }) = self.opened_by(&[dataset])?.pop() else {
            return self.encrypt(volume, key).map(|()| true);
        };
        let load = || Command::new("zfs").arg("load-key").input(key.clone());
        let tried = load().args(["-n", &by]).accept(REFUSED).limit(LIMIT);
        let fits = self.host.tools.run(&tried)?.starts_with(FITS);
        if fits && !loaded {
            self.change(load().arg(&by))?;
        }
        Ok(fits)
    }

    /// Unloads the key of an encrypted tree, unless another that is opened by it is in use.
    pub(super) fn unload_key(&self, volume: &Volume) -> Result<()> {
        let _alone = self.keys.lock();
        let own = self.names.volume(&volume.id.name);
        let mut datasets = vec![own.clone()];
        for name in self.encrypted_trees() {
            if self.tree(&name)?.is_some() {
                datasets.push(self.names.volume(&name));
            }
        }
        let mut opened = self.opened_by(&datasets)?;
        let Some(at) = opened.iter().position(|one| one.dataset == own) else {
            return Ok(());
        };
        let Opened { by, loaded, .. } = opened.swap_remove(at);
        if !loaded || opened.iter().any(|other| other.by == by) {
            return Ok(());
        }
        self.change(Command::new("zfs").args(["unload-key", &by]))
    }

    /// Makes the encrypted dataset of a volume that nobody had yet, and lets it take the place of the plain one.
    fn encrypt(&self, volume: &Volume, key: Secret) -> Result<()> {
        let (name, record) = (&volume.id.name, &volume.record);
        let wishes = record.current_wishes().read()?;
        let plan = Plan {
            name,
            record,
            wishes: &wishes,
        };
        let create = Command::new("zfs")
            .args(["create", "-o", "encryption=on", "-o", "keyformat=raw"])
            .args(["-o", "keylocation=prompt"])
            .input(key);
        let (whole, replaced) = (self.names.volume(name), self.names.replaced(name));
        if plan.wishes.reserves() {
            // There may not be room to keep for both.
            self.change(Command::new("zfs").args(["set", "refreservation=none", &whole]))?;
        }
        let made = self.make_by(&plan, set(create, &plan.properties(false)), |_| {
            self.change(Command::new("zfs").args(["rename", &whole, &replaced]))
        });
        self.list()?;
        self.end_replacements()?;
        made
    }

    /// Lets go of what an encrypted dataset has taken the place of, or gives it its place back.
    pub(super) fn end_replacements(&self) -> Result<()> {
        let replaced = std::mem::take(&mut self.known_mut().replaced);
        for name in &replaced {
            let (whole, replaced) = (self.names.volume(name), self.names.replaced(name));
            if self.known().volumes.contains_key(name) {
                self.let_go(name, &replaced)?;
            } else {
                tracing::info!(dataset = whole, "is not encrypted after all");
                self.change(Command::new("zfs").args(["rename", &replaced, &whole]))?;
            }
        }
        if replaced.is_empty() {
            return Ok(());
        }
        self.list()
    }

    fn encrypted_trees(&self) -> Vec<VolumeName> {
        let known = self.known();
        let encrypted = known
            .volumes
            .iter()
            .filter(|(_, kept)| kept.record.encryption && kept.record.layout == Layout::Tree);
        encrypted.map(|(name, _)| name.clone()).collect()
    }

    /// By whose key each of these datasets is opened; one that is not encrypted is left out.
    fn opened_by(&self, datasets: &[String]) -> Result<Vec<Opened>> {
        let columns = "name,encryptionroot,keystatus";
        let list = Command::query("zfs").args(["list", "-Hp", "-o", columns]);
        let told = self.host.tools.run(&list.args(datasets).limit(LIMIT))?;
        let read = |line: &str| {
            let mut fields = line.split('\t').map(str::to_owned);
            let mut next = || fields.next().context("`zfs list` left out a column");
            let (dataset, by, status) = (next()?, next()?, next()?);
            let loaded = status == "available";
            Ok((by != "-").then_some(Opened {
                dataset,
                by,
                loaded,
            }))
        };
        told.lines()
            .filter_map(|line| read(line).transpose())
            .collect()
    }
}
