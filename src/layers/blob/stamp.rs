//! Whether somebody else wrote to the file of a blob.

use std::fs::{File, FileTimes};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use super::Blob;

/// What a file looks like to the kernel; any write to it changes this.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    written: (i64, i64, u64),
    changed: (i64, i64),
}

impl Blob {
    /// Remembers what the file looks like now; called when nobody of us will write to it any more.
    pub fn seal(&self) -> io::Result<()> {
        *self.stamp.lock() = Some(Stamp::of(&self.file)?);
        Ok(())
    }

    /// Seals the file while it gets another name, which the kernel notes in it as a change.
    pub fn seal_renaming(&self, rename: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut stamp = self.stamp.lock();
        let before = Stamp::of(&self.file)?;
        rename()?;
        let after = Stamp::of(&self.file)?;
        // A write in between is no change that a name makes: what was sealed before is then found to be touched.
        let same = before.written == after.written;
        *stamp = Some(if same { after } else { before });
        Ok(())
    }

    /// Whether the file is untouched since it was sealed; always so before.
    pub fn untouched(&self) -> bool {
        self.is_as(self.stamp.lock().as_ref())
    }

    /// Notes in the file itself that it was used now, unless somebody else touched it.
    pub fn used_now(&self) {
        let mut stamp = self.stamp.lock();
        if self.is_as(stamp.as_ref()) && stamp.is_some() {
            let now = FileTimes::new().set_modified(SystemTime::now());
            // A file that is not ours, or on a disk that became read-only, only forgets when it was used.
            if self.file.set_times(now).is_ok() {
                *stamp = Stamp::of(&self.file).ok();
            }
        }
    }

    fn is_as(&self, stamp: Option<&Stamp>) -> bool {
        stamp.is_none_or(|stamp| Stamp::of(&self.file).is_ok_and(|now| now == *stamp))
    }
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            written: (meta.mtime(), meta.mtime_nsec(), meta.len()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}
