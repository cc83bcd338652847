//! Blobs on our own disk: made aside, verified, renamed into place, and dropped least recently used first.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};

use crate::layers::blob::Blob;
use crate::layers::image::digest::Digest;

/// How long nothing is kept after the disk has failed.
const REST: Duration = Duration::from_secs(10);

/// A folder of blobs that stays within a number of bytes.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    quota: u64,
    used: Arc<AtomicU64>,
    sequence: AtomicU64,
    evicted: AtomicU64,
    pinned: Mutex<HashSet<Digest>>,
    failed: Mutex<Option<Instant>>,
}

/// A file for a blob that is arriving, and the room that it takes; gone when dropped, unless it was committed.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    size: u64,
    used: Arc<AtomicU64>,
    kept: bool,
}

/// One blob of a listing.
#[derive(Clone, Debug)]
pub struct Held {
    /// What it is called.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last asked for.
    pub used: SystemTime,
}

impl Store {
    /// Opens the folder, making it if need be, and clears away what a crash left half written.
    pub fn open(root: &Path, quota: u64) -> Result<Self> {
        let store = Self {
            root: root.to_owned(),
            quota,
            used: Arc::default(),
            sequence: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            pinned: Mutex::default(),
            failed: Mutex::default(),
        };
        let aside = root.join("partial");
        if aside.exists() {
            fs::remove_dir_all(&aside)
                .with_context(|| format!("clearing {} of half-written blobs", aside.display()))?;
        }
        for folder in [
            &aside,
            &root.join("blobs/sha256"),
            &root.join("blobs/sha512"),
        ] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let held = store.list()?.iter().map(|held| held.size).sum();
        store.used.store(held, Ordering::Relaxed);
        Ok(store)
    }

    /// The blob's file, if it is here. It counts as used now.
    pub fn find(&self, digest: &Digest) -> Option<File> {
        let file = File::open(self.path(digest)).ok()?;
        // A folder that became read-only still serves; it only forgets what was used last.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        Some(file)
    }

    /// Whether the quota is nothing at all, or the disk failed a moment ago.
    pub fn keeps_nothing(&self) -> bool {
        self.quota == 0 || self.failed.lock().is_some_and(|then| then.elapsed() < REST)
    }

    /// Keeps nothing new for a while, because the disk failed.
    pub fn rest(&self) {
        *self.failed.lock() = Some(Instant::now());
    }

    /// Whether the blob is here; it does not count as used.
    pub fn holds(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Makes room for a blob of `size` bytes and a file for it.
    ///
    /// # Errors
    /// `StorageFull` if the quota or the disk has no room even after all other blobs were dropped.
    pub fn begin(&self, digest: &Digest, size: u64) -> io::Result<(File, Partial)> {
        let full = || Err(io::ErrorKind::StorageFull.into());
        if size > self.quota {
            return full();
        }
        if self.used() + size > self.quota {
            self.evict(low_water(self.quota).min(self.quota - size));
        }
        if self.used() + size > self.quota {
            return full();
        }
        match self.create(digest, size) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let used = self.used();
                self.evict(low_water(used).min(used.saturating_sub(size)));
                self.create(digest, size)
            }
            made => made,
        }
    }

    /// Renames a blob that is whole into place; it survives a crash from here on. Blocks.
    pub fn commit(&self, blob: &Blob, mut partial: Partial) -> Result<()> {
        let path = self.path(blob.digest());
        let folder = path.parent().context("a blob lies in a folder")?;
        blob.file().sync_all().context("writing the blob through")?;
        // One that was here before is replaced, and its room freed.
        self.remove(blob.digest());
        blob.seal_renaming(|| fs::rename(&partial.path, &path))
            .with_context(|| format!("renaming a blob to {}", path.display()))?;
        partial.kept = true;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("writing {} through", folder.display()))
    }

    /// Drops a blob; who reads it goes on reading. Whether it was here.
    pub fn remove(&self, digest: &Digest) -> bool {
        let path = self.path(digest);
        let size = fs::metadata(&path).map_or(0, |meta| meta.len());
        let removed = fs::remove_file(&path).is_ok();
        if removed {
            self.used.fetch_sub(size, Ordering::Relaxed);
        }
        removed
    }

    /// Never drops these to make room, until the next call.
    pub fn pin(&self, digests: HashSet<Digest>) {
        *self.pinned.lock() = digests;
    }

    /// Whether this one is among them.
    pub fn is_pinned(&self, digest: &Digest) -> bool {
        self.pinned.lock().contains(digest)
    }

    /// The most bytes that are kept.
    pub fn quota(&self) -> u64 {
        self.quota
    }

    /// How many blobs were dropped to make room.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// The bytes of all blobs that are here or have a file to arrive in.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// All blobs that are here.
    pub fn list(&self) -> Result<Vec<Held>> {
        let mut held = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let folder = self.root.join("blobs").join(algorithm);
            let entries =
                fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
            held.extend(entries.flatten().filter_map(|entry| {
                let digest = format!("{algorithm}:{}", entry.file_name().to_str()?);
                let meta = entry.metadata().ok()?;
                Some(Held {
                    digest: digest.parse().ok()?,
                    size: meta.len(),
                    used: meta.modified().ok()?,
                })
            }));
        }
        Ok(held)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.path())
    }

    fn create(&self, digest: &Digest, size: u64) -> io::Result<(File, Partial)> {
        let turn = self.sequence.fetch_add(1, Ordering::Relaxed);
        let path = self
            .root
            .join("partial")
            .join(format!("{}.{turn}", digest.hex()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        self.used.fetch_add(size, Ordering::Relaxed);
        let partial = Partial {
            path,
            size,
            used: self.used.clone(),
            kept: false,
        };
        // Room is taken now, so that the disk can not fill up in the middle of a response.
        match fallocate(&file, FallocateFlags::empty(), 0, size.max(1)) {
            Err(rustix::io::Errno::OPNOTSUPP) | Ok(()) => {}
            Err(errno) => return Err(as_full(errno)),
        }
        file.set_len(size)?;
        Ok((file, partial))
    }

    /// Drops the blobs that were not used for the longest time until at most `target` bytes are left.
    fn evict(&self, target: u64) {
        let Ok(mut held) = self.list() else { return };
        let pinned = self.pinned.lock().clone();
        held.retain(|held| !pinned.contains(&held.digest));
        held.sort_by_key(|held| held.used);
        for old in held {
            if self.used() <= target {
                break;
            }
            if self.remove(&old.digest) {
                self.evicted.fetch_add(1, Ordering::Relaxed);
                tracing::info!(digest = %old.digest, size = old.size, "dropped a blob to make room");
            }
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            self.used.fetch_sub(self.size, Ordering::Relaxed);
            // What stays behind is cleared away at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What is left after an eviction: a tenth is freed at once, so that not every new blob has to make room again.
fn low_water(quota: u64) -> u64 {
    quota - quota / 10
}

/// A quota is a disk that is full, for us.
fn as_full(errno: rustix::io::Errno) -> io::Error {
    match errno {
        rustix::io::Errno::DQUOT => io::ErrorKind::StorageFull.into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(store: &Store, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let (file, partial) = store
            .begin(&digest, bytes.len() as u64)
            .expect("there is room");
        let blob = Blob::new(digest.clone(), bytes.len() as u64, file);
        blob.put(0, bytes).expect("it is right");
        store.commit(&blob, partial).expect("the disk takes it");
        digest
    }

    fn age(store: &Store, digest: &Digest, seconds: u64) {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        let file = File::open(store.path(digest)).expect("it is here");
        file.set_times(FileTimes::new().set_modified(then))
            .expect("it is ours");
    }

    #[test]
    fn the_least_recently_used_blob_makes_room() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path(), 1000).expect("it opens");
        let [old, mid, new] = [1, 2, 3].map(|fill| add(&store, &[fill; 300]));
        age(&store, &old, 10);
        age(&store, &mid, 20);
        age(&store, &new, 5);

        let newest = add(&store, &[4; 300]);

        assert_eq!(
            [&old, &mid, &new, &newest].map(|digest| store.holds(digest)),
            [true, false, true, true]
        );
        assert_eq!(store.used(), 900);
    }

    #[test]
    fn a_blob_beyond_the_quota_has_no_room_and_costs_no_other_its_place() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path(), 1000).expect("it opens");
        let kept = add(&store, &[1; 300]);

        let full = store.begin(&Digest::of(b"large"), 1001);

        assert_eq!(
            full.expect_err("there is no room").kind(),
            io::ErrorKind::StorageFull
        );
        assert!(store.holds(&kept));
    }

    #[test]
    fn what_was_not_committed_is_gone_after_a_restart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path(), 1000).expect("it opens");
        let kept = add(&store, b"whole");
        let (_, partial) = store.begin(&Digest::of(b"half"), 4).expect("there is room");
        std::mem::forget(partial);

        let store = Store::open(folder.path(), 1000).expect("it opens");

        assert_eq!(store.list().expect("it lists").len(), 1);
        assert!(store.holds(&kept));
        let left = fs::read_dir(folder.path().join("partial")).expect("it is a folder");
        assert_eq!(left.count(), 0);
    }
}
