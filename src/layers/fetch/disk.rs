//! The blobs of this node's disks: finding those that are whole, reading them, keeping what arrives, and dropping what
//! is not right any more.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Cell, Fetches};
use crate::layers::blob::Blob;
use crate::layers::disk::store::Partial;
use crate::layers::image::digest::Digest;
use crate::layers::metrics::Source;
use crate::layers::miss::Miss;
use crate::layers::swarm::Swarm;

impl Fetches {
    /// Reads bytes of a blob that are verified; if its disk fails, it is dropped, and can be had anew.
    pub async fn read(self: &Arc<Self>, blob: &Arc<Blob>, range: Range<u64>) -> io::Result<Bytes> {
        let (fetches, blob) = (self.clone(), blob.clone());
        let reading = move || {
            blob.read(range).inspect_err(|error| {
                if blob.lose() {
                    tracing::warn!(digest = %blob.digest(), %error, "dropped a blob that can not be read");
                    fetches.drop_copy(blob.digest());
                }
            })
        };
        blocking(reading).await?
    }

    /// The first bytes of `range`, which is not empty: a little of what the kernel has in memory, or else all of them
    /// as [`Fetches::read`] has them.
    pub async fn read_some(
        self: &Arc<Self>,
        blob: &Arc<Blob>,
        range: Range<u64>,
    ) -> io::Result<Bytes> {
        match blob.read_cached(range.clone()) {
            cached if cached.is_empty() => self.read(blob, range).await,
            cached => Ok(cached),
        }
    }

    /// Keeps nothing for a while: the disk failed.
    pub fn disk_failed(&self, error: &impl std::fmt::Display) {
        tracing::error!(%error, "the disk fails: for a while blobs are passed through, and not kept");
        self.sources.store.rest();
    }

    /// Closes blobs that were dropped to make room, since only then their room is free.
    pub(in crate::layers) fn let_go_of_dropped(&self) {
        let dropped = |cell: &Cell| cell.get().is_some_and(|swarm| swarm.blob.is_unlinked());
        self.open.lock().retain(|_, cell| !dropped(cell));
    }

    /// The blob as it lies whole on our disk or the runtime's.
    pub(super) fn local(self: Arc<Self>, digest: &Digest) -> Option<Arc<Swarm>> {
        let ours = self.sources.store.find(digest);
        let (file, source) = match ours {
            Some(file) => (file, Source::Disk),
            None => (self.sources.runtime.find(digest)?, Source::Runtime),
        };
        self.metrics.hit(source);
        self.verify(digest.clone(), file).ok().map(Swarm::new)
    }

    /// A blob that lies whole in a file; it is read through once, and given out as far as it was read.
    fn verify(self: Arc<Self>, digest: Digest, file: File) -> io::Result<Arc<Blob>> {
        let size = file.metadata()?.len();
        let blob = Blob::new(digest, size, file);
        blob.seal()?;
        let scanned = blob.clone();
        tokio::task::spawn_blocking(move || {
            let Err(refused) = scanned.scan() else { return };
            tracing::warn!(digest = %scanned.digest(), %refused, "dropped a blob that is not right any more");
            self.drop_copy(scanned.digest());
            scanned.break_off(&refused.to_string());
        });
        Ok(blob)
    }

    /// Our copy of a blob, or else the runtime's, is not to be used.
    fn drop_copy(&self, digest: &Digest) {
        if !self.sources.store.remove(digest) {
            self.sources.runtime.distrust(digest);
        }
    }

    pub(in crate::layers) async fn begin(
        self: Arc<Self>,
        digest: Digest,
        size: u64,
    ) -> Result<(File, Partial), Miss> {
        self.let_go_of_dropped();
        let beginning = move || self.sources.store.begin(&digest, size);
        blocking(beginning).await.flatten().map_err(|error| {
            tracing::warn!(size, %error, "no room to keep a blob: it is passed through");
            Miss::NoRoom
        })
    }

    /// Puts a blob that is whole in its place on our disk.
    pub(in crate::layers) async fn keep(self: Arc<Self>, blob: Arc<Blob>, partial: Partial) {
        let (fetches, kept) = (self.clone(), blob.clone());
        let commit = move || fetches.sources.store.commit(&kept, partial);
        match blocking(commit).await {
            Ok(Ok(())) => self.kept.notify_one(),
            // What was written may be lost, though it can still be read for a while: it is fetched again.
            Ok(Err(error)) => {
                blob.lose();
                self.disk_failed(&format_args!("{error:#}"));
            }
            Err(panic) => tracing::error!(%panic, "a blob was not kept"),
        }
    }
}

/// Works on the disk, off the threads that serve connections; an error is a panic. Work that is never begun, because
/// this process ends, is no fault of the disk that anybody is to be told of: who waits for it just ends as well.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Err(ended) if ended.is_cancelled() => std::future::pending().await,
        done => done.map_err(io::Error::other),
    }
}
