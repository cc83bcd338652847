//! The metadata of a volume group as it is on its disks, read without a command of LVM, which takes tens of milliseconds.
//!
//! LVM is asked first, and again whenever anything is not as expected: what is read here is never a guess. The format is
//! LVM2's own (`lib/format_text/layout.h`, `lib/format_text/import_vsn1.c`).

mod disk;
mod text;
mod volumes;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use self::disk::{Area, Disk};
use super::report::Report;

/// The disks of a volume group as they were at one moment; equal ones have the same metadata.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Disk>);

impl Stamp {
    /// Nothing, if a disk can not be read, or has no metadata at all with the others.
    pub(super) fn of(disks: &[PathBuf]) -> Option<Self> {
        let read = |path: &PathBuf| match Disk::read(path) {
            Ok(disk) => Some(disk),
            Err(error) => {
                let (disk, error) = (path.display(), format!("{error:#}"));
                tracing::debug!(%disk, error, "LVM is asked each time");
                None
            }
        };
        let disks: Vec<_> = disks.iter().map(read).collect::<Option<_>>()?;
        let any = disks.iter().any(|disk| !disk.areas.is_empty());
        any.then_some(Self(disks))
    }

    /// What LVM would report of the group, of which it has reported before that it is on these very disks.
    ///
    /// # Errors
    /// Whatever is not as expected: LVM must be asked.
    pub(super) fn report(&self, before: &Report) -> Result<Report> {
        let areas = self.0.iter().flat_map(|disk| disk.areas.iter());
        let mut texts = areas.map(Area::text);
        let first = texts.next().context("no metadata")??;
        // They are copies of each other.
        for text in texts {
            ensure!(text? == first, "the disks do not say the same");
        }
        let root = text::parse(&first)?;
        let mut ids: Vec<_> = self.0.iter().map(|disk| disk.id.as_str()).collect();
        ids.sort_unstable();
        volumes::report(&root, &ids, before)
    }
}
