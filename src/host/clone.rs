//! The content of one regular file, shared where the filesystem can and copied with its holes where it can not.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, ioctl_ficlone, seek};
use rustix::io::Errno;

use super::gate::Gate;
use super::progress::Progress;
use crate::volume::Bytes;

/// What is announced to the gate, and what writeback is started for, at a time.
const CHUNK: u64 = 8 << 20;

/// How much may be on its way to the disk at a time: what someone else's fsync may have to wait behind.
const IN_FLIGHT: u64 = 64 << 20;

/// What is read at a time: it stays in the processor's cache between the read, the look for zeroes and the write.
const BUFFER: usize = 256 << 10;

/// The unit in which zeroes become holes.
const BLOCK: usize = 4096;

/// How a file got its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Both files share their blocks until one of them is written.
    Shared,
    /// Every byte was read and written.
    Copied,
}

/// Gives `to`, new and empty, the content and the size of `from`.
///
/// Blocks that hold only zeroes become holes in a copy. Nothing is made durable, but writing back has begun, so that
/// the caller's fsync has little left to wait for. A `from` that others write to is copied as it is when it is read.
///
/// # Errors
/// What reading, writing or the gate said; `to` is then incomplete.
pub fn clone_file(gate: &Gate, from: &File, to: &File, progress: &Progress) -> Result<How> {
    let metadata = from.metadata().context("looking at a file to copy")?;
    let allocated = metadata.blocks() * 512;
    gate.pass("share the content of a file")?;
    let how = match ioctl_ficlone(to, from) {
        Ok(()) => How::Shared,
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
            Copying {
                gate,
                from,
                to,
                write: write_sparse,
                progress,
                unreported: allocated,
                buffer: vec![0; BUFFER.min(usize::try_from(metadata.len())?)],
            }
            .run(metadata.len())?;
            return Ok(How::Copied);
        }
        Err(error) => return Err(error).context("sharing the content of a file"),
    };
    progress.advance(Bytes(allocated));
    Ok(how)
}

/// Copies the first `size` bytes of one device over what is on another, each once, and makes them durable.
pub fn copy_device(
    gate: &Gate,
    from: &File,
    to: &File,
    size: Bytes,
    progress: &Progress,
) -> Result<()> {
    let mut copying = Copying {
        gate,
        from,
        to,
        write: write_blanking,
        progress,
        unreported: size.0,
        buffer: vec![0; BUFFER],
    };
    for start in (0..size.0).step_by(usize::try_from(CHUNK)?) {
        let chunk = start..size.0.min(start + CHUNK);
        gate.pass("copy a part of a device")?;
        copying.copy(&chunk)?;
        write_back(to, &chunk);
    }
    gate.pass("fsync a device")?;
    rustix::fs::fsync(to).context("making a copied device durable")
}

struct Copying<'a> {
    gate: &'a Gate,
    from: &'a File,
    to: &'a File,
    write: fn(&File, &[u8], u64) -> std::io::Result<()>,
    progress: &'a Progress,
    /// Of the allocated bytes, which the total counts, those not yet reported as done.
    unreported: u64,
    buffer: Vec<u8>,
}

impl Copying<'_> {
    fn run(mut self, size: u64) -> Result<()> {
        let mut at = 0;
        while let Some(data) = next_data(self.from, at, size)? {
            for start in (data.start..data.end).step_by(usize::try_from(CHUNK)?) {
                let chunk = start..data.end.min(start + CHUNK);
                self.gate.pass("copy a part of a file")?;
                self.copy(&chunk)?;
                write_back(self.to, &chunk);
            }
            at = data.end;
        }
        self.gate.pass("set the size of a copied file")?;
        self.to
            .set_len(size)
            .context("setting the size of a copied file")?;
        self.progress.advance(Bytes(self.unreported));
        Ok(())
    }

    fn copy(&mut self, range: &Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let wanted = self
                .buffer
                .len()
                .min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
            let read = match self.from.read_at(&mut self.buffer[..wanted], at) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("reading a file to copy"),
            };
            (self.write)(self.to, &self.buffer[..read], at).context("writing a copied file")?;
            at += read as u64;
            let reported = self.unreported.min(read as u64);
            self.unreported -= reported;
            self.progress.advance(Bytes(reported));
        }
        Ok(())
    }
}

/// The first range at or after `at` that is not a hole; everything, where the filesystem can not tell.
fn next_data(from: &File, at: u64, size: u64) -> Result<Option<Range<u64>>> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(from, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(at..size)),
        Err(error) => return Err(error).context("looking for data in a file to copy"),
    };
    let end = match seek(from, SeekFrom::Hole(start)) {
        Ok(end) => end.min(size),
        Err(Errno::NXIO) => size,
        Err(error) => return Err(error).context("looking for a hole in a file to copy"),
    };
    Ok((start < end).then_some(start..end))
}

/// Writes the runs of blocks that are not all zero.
fn write_sparse(to: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    let zeroes = |from: usize| is_zero(&bytes[from..bytes.len().min(from + BLOCK)]);
    let mut start = 0;
    while start < bytes.len() {
        if zeroes(start) {
            start += BLOCK;
            continue;
        }
        let mut end = start + BLOCK;
        while end < bytes.len() && !zeroes(end) {
            end += BLOCK;
        }
        to.write_all_at(&bytes[start..bytes.len().min(end)], at + start as u64)?;
        start = end;
    }
    Ok(())
}

/// Whether a block, or less, is all zero.
fn is_zero(block: &[u8]) -> bool {
    block == &[0; BLOCK][..block.len()]
}

/// Writes to a device on which anything may be; many disks blank a range without being sent its zeroes.
fn write_blanking(to: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    if !bytes.chunks(BLOCK).all(is_zero) {
        return to.write_all_at(bytes, at);
    }
    let length = bytes.len() as u64;
    Ok(fallocate(to, FallocateFlags::ZERO_RANGE, at, length)?)
}

/// Starts writing a copied chunk to the disk, and waits for one written long before.
///
/// Otherwise all of a large copy would be written by one fsync, and every other fsync would wait behind it.
fn write_back(to: &File, chunk: &Range<u64>) {
    if chunk.end - chunk.start < CHUNK {
        return;
    }
    sync_range(to, chunk.start, libc::SYNC_FILE_RANGE_WRITE);
    if let Some(before) = chunk.start.checked_sub(IN_FLIGHT) {
        sync_range(to, before, libc::SYNC_FILE_RANGE_WAIT_BEFORE);
    }
}

/// A hint: an error in writing back is kept by the kernel for the caller's fsync.
#[expect(unsafe_code, reason = "rustix has no sync_file_range")]
fn sync_range(to: &File, start: u64, flags: libc::c_uint) {
    let (Ok(start), Ok(length)) = (i64::try_from(start), i64::try_from(CHUNK)) else {
        return;
    };
    // SAFETY: the call takes numbers only, and the descriptor is open as long as `to` is borrowed.
    unsafe {
        libc::sync_file_range(to.as_raw_fd(), start, length, flags);
    }
}
