//! One blob that is here or arriving: its chunks, each checked as it comes, and all of them against its digest.

pub mod bitmap;
pub mod layout;
pub mod progress;
mod stamp;

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::sync::watch;

use self::bitmap::Bitmap;
use self::layout::{Layout, whole_number};
pub use self::progress::{Progress, Refused, Standing};
use self::stamp::Stamp;
use crate::layers::image::digest::{ChunkSum, Digest, Sum};

/// What is read at once of what the kernel has in memory: little enough to stay in the cache of a processor.
const PIECE: usize = 64 << 10;

/// A blob in a file, whole or in part; shared by the one who fills it and all who read it.
///
/// A chunk can be read as soon as it is verified, except the last one, which stays back until the bytes of the whole
/// blob are known to be those that the digest names: what a client has received in full is therefore right.
#[derive(Debug)]
pub struct Blob {
    digest: Digest,
    size: u64,
    layout: Layout,
    file: File,
    progress: watch::Sender<Progress>,
    running: Mutex<Running>,
    stamp: Mutex<Option<Stamp>>,
    lost: AtomicBool,
}

/// The sum over the chunks that are here from the first one on without a gap.
#[derive(Debug)]
struct Running {
    next: usize,
    sum: Sum,
}

impl Blob {
    /// A blob of `size` bytes of which nothing is verified yet, to be kept in `file`.
    pub fn new(digest: Digest, size: u64, file: File) -> Arc<Self> {
        let layout = Layout::of(size);
        let count = layout.count();
        let sum = digest.sum();
        let standing = if size > 0 {
            Standing::Arriving
        } else if sum.clone().is(&digest) {
            Standing::Whole
        } else {
            Standing::Broken("it is empty and should not be".into())
        };
        let progress = Progress {
            have: Bitmap::none(count),
            order: Vec::with_capacity(count),
            sums: vec![None; count],
            standing,
        };
        Arc::new(Self {
            digest,
            size,
            layout,
            file,
            progress: watch::Sender::new(progress),
            running: Mutex::new(Running { next: 0, sum }),
            stamp: Mutex::new(None),
            lost: AtomicBool::new(false),
        })
    }

    /// What it is called.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The number of its chunks; none if it is empty.
    pub fn chunks(&self) -> usize {
        self.progress.borrow().sums.len()
    }

    /// The bytes that chunk `at` covers.
    pub fn span(&self, at: usize) -> Range<u64> {
        self.layout.span(at)
    }

    /// The chunk that byte `at` lies in.
    pub fn chunk_of(&self, at: u64) -> usize {
        self.layout.chunk_of(at)
    }

    /// How far it has come, to look at and to wait on.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// What became of it so far.
    pub fn standing(&self) -> Standing {
        self.progress.borrow().standing.clone()
    }

    /// Waits until chunk `at` may be given to a client.
    ///
    /// # Errors
    /// The reason, if the blob broke before.
    pub async fn ready(&self, at: usize) -> Result<(), Arc<str>> {
        let last = self.chunks().saturating_sub(1);
        let mut progress = self.progress();
        let settled = progress
            .wait_for(|now| now.standing != Standing::Arriving || (at < last && now.have.has(at)));
        let Ok(settled) = settled.await else {
            return Err("the blob is gone".into());
        };
        match &settled.standing {
            Standing::Broken(why) if at >= last || !settled.have.has(at) => Err(why.clone()),
            _ => Ok(()),
        }
    }

    /// Waits until it is whole.
    ///
    /// # Errors
    /// The reason, if it broke.
    pub async fn whole(&self) -> Result<(), Arc<str>> {
        self.ready(usize::MAX).await
    }

    /// Reads bytes that are verified; `range` must lie in the blob. Blocks.
    pub fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let len = whole_number(range.end - range.start);
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = range.start + bytes.len() as u64;
            let spare = rustix::buffer::spare_capacity(&mut bytes);
            if rustix::io::pread(&self.file, spare, at)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        bytes.truncate(len);
        if self.is_lost() {
            return Err(io::Error::other("its disk failed"));
        }
        Ok(bytes.into())
    }

    /// Its disk failed, and nothing is read from it any more; whether that is news.
    pub fn lose(&self) -> bool {
        !self.lost.swap(true, Ordering::Relaxed)
    }

    /// Whether its disk failed.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// The first bytes of `range` of those that are verified, without waiting for the disk; perhaps none.
    pub fn read_cached(&self, range: Range<u64>) -> Bytes {
        let len = whole_number(range.end - range.start).min(PIECE);
        let mut bytes = vec![0; len];
        let spare = &mut [IoSliceMut::new(&mut bytes)];
        // Where a filesystem can not do this, nothing is cached.
        let read = preadv2(&self.file, spare, range.start, ReadWriteFlags::NOWAIT);
        bytes.truncate(if self.is_lost() { 0 } else { read.unwrap_or(0) });
        bytes.into()
    }

    /// Notes the sum of a chunk that somebody vouches for; the first word on a chunk stands.
    pub fn learn(&self, at: usize, sum: ChunkSum) {
        self.progress.send_if_modified(|progress| {
            match progress.sums.get_mut(at) {
                Some(known @ None) => *known = Some(sum),
                _ => return false,
            }
            true
        });
    }

    /// Takes chunk `at` in: checks it against its sum, or makes its sum known if nobody did; writes it; and, when it
    /// was the last one missing, checks the whole. A chunk that is here already is ignored. Blocks.
    ///
    /// A blob that turns out not to be the right one is the caller's to break off, after having seen to whoever is to
    /// blame: who waits for it looks for another source at once.
    pub fn put(&self, at: usize, bytes: &[u8]) -> Result<(), Refused> {
        let span = self.span(at);
        if bytes.len() as u64 != span.end - span.start {
            return Err(Refused::Wrong(at));
        }
        self.take(at, bytes, |file| file.write_all_at(bytes, span.start))
    }

    /// Verifies the file as it stands, chunk by chunk; who reads meanwhile follows closely. Blocks.
    pub fn scan(&self) -> Result<(), Refused> {
        for at in 0..self.chunks() {
            let bytes = self.read(self.span(at))?;
            self.take(at, &bytes, |_| Ok(()))?;
        }
        Ok(())
    }

    /// Gives up: whoever waits for a further chunk is told why. Nothing happens to a blob that is whole.
    pub fn break_off(&self, why: &str) {
        self.progress.send_if_modified(|progress| {
            let arriving = progress.standing == Standing::Arriving;
            if arriving {
                progress.standing = Standing::Broken(why.into());
            }
            arriving
        });
    }

    /// Whether its file has no name any more.
    pub fn is_unlinked(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// The file that it is kept in.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn take(
        &self,
        at: usize,
        bytes: &[u8],
        write: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), Refused> {
        let sum = ChunkSum::of(bytes);
        {
            let now = self.progress.borrow();
            if now.have.has(at) || now.standing != Standing::Arriving {
                return Ok(());
            }
            if now.sums[at].is_some_and(|known| known != sum) {
                return Err(Refused::Wrong(at));
            }
        }
        write(&self.file)?;
        // One at a time from here on, so that exactly one chunk is the last to come.
        let mut running = self.running.lock();
        let (here, count) = {
            let now = self.progress.borrow();
            (now.order.len(), now.sums.len())
        };
        if self.progress.borrow().have.has(at) {
            return Ok(());
        }
        let completes = here + 1 == count;
        if !completes {
            self.publish(at, sum, Standing::Arriving);
        }
        self.add_up(&mut running, at, bytes)?;
        // The chunk that completes the blob is shown to nobody before the whole is verified: a peer that passes on
        // what it has can therefore not pass on a whole that is wrong.
        if completes && running.sum.clone().is(&self.digest) {
            self.publish(at, sum, Standing::Whole);
        } else if completes {
            return Err(Refused::NotTheBlob(self.digest.clone()));
        }
        Ok(())
    }

    fn publish(&self, at: usize, sum: ChunkSum, standing: Standing) {
        self.progress.send_modify(|progress| {
            progress.have.insert(at);
            progress.order.push(at);
            progress.sums[at] = Some(sum);
            if progress.standing == Standing::Arriving {
                progress.standing = standing;
            }
        });
    }

    /// Carries the running sum on over every chunk that now follows without a gap.
    fn add_up(&self, running: &mut Running, at: usize, bytes: &[u8]) -> io::Result<()> {
        loop {
            if running.next == at {
                running.sum.update(bytes);
            } else if self.progress.borrow().have.has(running.next) {
                let earlier = self.read(self.span(running.next))?;
                running.sum.update(&earlier);
            } else {
                return Ok(());
            }
            running.next += 1;
        }
    }
}

#[cfg(test)]
mod tests;
