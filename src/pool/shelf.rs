//! A folder of records: each entry is a folder that holds its record beside its data, and exists by one rename.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;

use crate::host::folder::{Folder, Stamp};
use crate::volume::{Bytes, Record};

/// The entries of one kind, with what was last read of each.
///
/// The disk is the truth: what is remembered of an entry is used only while the stamp of its record file is the same.
pub(super) struct Shelf<R> {
    folder: Folder,
    known: Mutex<Known<R>>,
}

struct Known<R> {
    entries: BTreeMap<String, (Stamp, Arc<R>)>,
    promised: Bytes,
    whole: bool,
}

impl<R: Record> Shelf<R> {
    pub(super) fn new(folder: Folder) -> Self {
        let known = Known {
            entries: BTreeMap::new(),
            promised: Bytes(0),
            whole: false,
        };
        Self {
            folder,
            known: Mutex::new(known),
        }
    }

    /// The folder that holds the entries.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The folder of one entry.
    pub(super) fn entry(&self, name: &str) -> Result<Folder> {
        self.folder
            .folder(name)?
            .with_context(|| format!("{} vanished", self.folder.path().join(name).display()))
    }

    /// The record of an entry, if there is one.
    ///
    /// # Errors
    /// An entry whose record is missing or can not be read: its data is there, and a person must look.
    pub(super) fn find(&self, name: &str) -> Result<Option<Arc<R>>> {
        let Some(stamp) = self.folder.stamp(&Path::new(name).join(R::FILE))? else {
            self.known.lock().forget(name);
            return match self.folder.folder(name)? {
                None => Ok(None),
                Some(entry) => Err(no_record::<R>(&entry)),
            };
        };
        if let Some((known, record)) = self.known.lock().entries.get(name)
            && *known == stamp
        {
            return Ok(Some(Arc::clone(record)));
        }
        self.read(name, stamp)
    }

    fn read(&self, name: &str, stamp: Stamp) -> Result<Option<Arc<R>>> {
        let Some(entry) = self.folder.folder(name)? else {
            return Ok(None);
        };
        let text = entry.read(R::FILE)?.ok_or_else(|| no_record::<R>(&entry))?;
        let record = R::from_text(&text).with_context(|| {
            format!(
                "reading {}: mend or remove it",
                entry.path().join(R::FILE).display()
            )
        })?;
        let record = Arc::new(record);
        self.known.lock().remember(name, stamp, Arc::clone(&record));
        Ok(Some(record))
    }

    /// The names of all entries, in order.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let mut names = self.folder.names()?;
        names.sort_unstable();
        Ok(names)
    }

    /// At most `most` records in the order of their names, those after `after`.
    ///
    /// An entry that can not be read is left out and said so in the log: one bad record must not hide the others.
    pub(super) fn page(&self, after: Option<&str>, most: usize) -> Result<Vec<(String, Arc<R>)>> {
        let names = self.names()?;
        if after.is_none() {
            self.forget_all_but(&names)?;
        }
        let start = after.map_or(0, |after| {
            names.partition_point(|name| name.as_str() <= after)
        });
        let readable = |name: String| match self.find(&name) {
            Ok(record) => record.map(|record| (name, record)),
            Err(error) => {
                tracing::error!(entry = %name, error = format!("{error:#}"), "left out of a list");
                None
            }
        };
        Ok(names
            .into_iter()
            .skip(start)
            .filter_map(readable)
            .take(most)
            .collect())
    }

    /// The entries that have no record which can be read, and why not.
    pub(super) fn unreadable(&self) -> Result<Vec<(String, String)>> {
        let told = |name: String| {
            let error = self.find(&name).err()?;
            Some((name, format!("{error:#}")))
        };
        Ok(self.names()?.into_iter().filter_map(told).collect())
    }

    /// Forgets what somebody removed by hand, so that its promise ends.
    fn forget_all_but(&self, names: &[String]) -> Result<()> {
        let gone: Vec<String> = {
            let known = self.known.lock();
            let listed = |name: &&String| names.binary_search(name).is_ok();
            known
                .entries
                .keys()
                .filter(|name| !listed(name))
                .cloned()
                .collect()
        };
        // One that was made since the listing is still there, and stays.
        gone.iter().try_for_each(|name| self.find(name).map(drop))
    }

    /// All that is promised by the entries. Reads them all the first time, and is a look-up from then on.
    pub(super) fn promised(&self) -> Result<Bytes> {
        if !self.known.lock().whole {
            self.page(None, usize::MAX)?;
            self.known.lock().whole = true;
        }
        Ok(self.known.lock().promised)
    }

    /// Makes an entry visible that is whole in `making`: the one step in which it begins to exist.
    pub(super) fn place(
        &self,
        making: &Folder,
        aside: &str,
        name: &str,
        record: R,
    ) -> Result<Arc<R>> {
        making.move_to(aside, &self.folder, name)?;
        self.remember(name, record)
    }

    /// Puts a new record in the place of the entry's.
    pub(super) fn rewrite(&self, name: &str, record: R) -> Result<Arc<R>> {
        self.entry(name)?.replace(R::FILE, &record.to_text())?;
        self.remember(name, record)
    }

    /// Moves an entry out of sight, into `trash`: the one step in which it ceases to exist.
    pub(super) fn discard(&self, name: &str, trash: &Folder, as_name: &str) -> Result<()> {
        self.folder.move_to(name, trash, as_name)?;
        self.known.lock().forget(name);
        Ok(())
    }

    fn remember(&self, name: &str, record: R) -> Result<Arc<R>> {
        let record = Arc::new(record);
        if let Some(stamp) = self.folder.stamp(&Path::new(name).join(R::FILE))? {
            self.known.lock().remember(name, stamp, Arc::clone(&record));
        }
        Ok(record)
    }
}

impl<R: Record> Known<R> {
    fn remember(&mut self, name: &str, stamp: Stamp, record: Arc<R>) {
        self.promised = self.promised.plus(record.promised());
        if let Some((_, before)) = self.entries.insert(name.to_owned(), (stamp, record)) {
            self.promised = self.promised.less(before.promised());
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some((_, before)) = self.entries.remove(name) {
            self.promised = self.promised.less(before.promised());
        }
    }
}

fn no_record<R: Record>(entry: &Folder) -> anyhow::Error {
    let path = entry.path().display();
    anyhow::anyhow!(
        "{path} has no {}: its data is untouched; restore the record, or remove the folder",
        R::FILE
    )
}
