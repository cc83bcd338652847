//! Blocks that are written one at a time, and acknowledged.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// What is written and acknowledged at a time.
pub(crate) const BLOCK: usize = 256 << 10;

/// More of them than fit anywhere here.
pub(crate) const ENDLESS: usize = 4096;

/// Writes blocks until one is refused: how many were acknowledged, and the refusal.
pub(crate) fn write_until_refused(at: &Path) -> (usize, io::Error) {
    for n in 0..ENDLESS {
        if let Err(refused) = write(at, n) {
            return (n, refused);
        }
    }
    panic!("{} is never full", at.display());
}

/// Writes a block, and returns when it is durable.
pub(crate) fn write(at: &Path, n: usize) -> io::Result<()> {
    let mut file = File::create(at.join(n.to_string()))?;
    file.write_all(&block(n))?;
    file.sync_all()?;
    File::open(at)?.sync_all()
}

pub(crate) fn holds(at: &Path, n: usize) -> bool {
    fs::read(at.join(n.to_string())).is_ok_and(|content| content == block(n))
}

/// What is in a block: each is another.
fn block(n: usize) -> Vec<u8> {
    let line = format!("{n:>15}\n");
    line.into_bytes().repeat(BLOCK / 16)
}
