//! One file of somebody else's, changed and given back byte for byte, at whatever instant the machine stops.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::Gate;
use crate::layers::image::digest::Digest;

/// The mode of a file that was not there before.
const MODE: u32 = 0o644;

/// What is kept beside a file from before its first change until it is given back.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// What was in it; nothing if it was not there.
    before: Option<String>,
    /// What was written since: the file is one of these, or as before, or somebody else's.
    written: Vec<Digest>,
}

/// Changes the file to what `change` makes of what was there before us; whether anything is different now.
///
/// What was there is on the disk, in a record beside the file, before the file is touched; both are replaced whole.
pub fn configure(
    path: &Path,
    gate: Gate<'_>,
    change: impl FnOnce(Option<&str>) -> Result<String>,
) -> Result<bool> {
    let now = read(path)?;
    let mut record = match Record::of(path)? {
        Some(record) => record,
        None => Record {
            before: now.clone(),
            written: Vec::new(),
        },
    };
    record.check(path, now.as_deref())?;
    let wanted = change(record.before.as_deref())?;
    if now.as_ref() == Some(&wanted) {
        return Ok(false);
    }
    let sum = Digest::of(wanted.as_bytes());
    if !record.written.contains(&sum) {
        record.written.push(sum);
        make_folder(path, gate)?;
        let text = serde_json::to_vec(&record).context("writing the record")?;
        replace(&record_of(path), &text, 0o600, gate)?;
    }
    let mode = fs::metadata(path).map_or(MODE, |meta| meta.permissions().mode() & 0o7777);
    replace(path, wanted.as_bytes(), mode, gate)?;
    Ok(true)
}

/// Gives the file back as it was before the first change; whether there was one.
pub fn restore(path: &Path, force: bool, gate: Gate<'_>) -> Result<bool> {
    let Some(record) = Record::of(path)? else {
        return Ok(false);
    };
    let now = read(path)?;
    if !force {
        record.check(path, now.as_deref())?;
    }
    match &record.before {
        _ if now == record.before => {}
        Some(before) => {
            let mode = fs::metadata(path).map_or(MODE, |meta| meta.permissions().mode() & 0o7777);
            replace(path, before.as_bytes(), mode, gate)?;
        }
        None => remove(path, gate)?,
    }
    // Only now is there nothing left to give back.
    remove(&record_of(path), gate)?;
    Ok(true)
}

/// Whether the file is changed, and not given back yet.
pub fn is_changed(path: &Path) -> bool {
    record_of(path).exists()
}

impl Record {
    fn of(path: &Path) -> Result<Option<Self>> {
        let record = record_of(path);
        let Some(text) = read(&record)? else {
            return Ok(None);
        };
        let read = serde_json::from_str(&text);
        read.map(Some)
            .with_context(|| format!("{} is no record of ours", record.display()))
    }

    fn check(&self, path: &Path, now: Option<&str>) -> Result<()> {
        let ours = now.is_some_and(|now| self.written.contains(&Digest::of(now.as_bytes())));
        ensure!(
            ours || now == self.before.as_deref(),
            "somebody changed {} since it was configured: keep a copy of that change, run `orlop layers restore --force`, which gives back the file of before, and put it in again",
            path.display()
        );
        Ok(())
    }
}

fn record_of(path: &Path) -> PathBuf {
    aside(path, "orlop")
}

/// A hidden name beside a file, which no runtime reads.
fn aside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{}.{ending}", name.trim_start_matches('.')))
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => bail!(
            "{} is a link, which would be replaced: make it a file, or configure what it points to",
            path.display()
        ),
        _ => {}
    }
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn make_folder(path: &Path, gate: Gate<'_>) -> Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    if folder.is_dir() {
        return Ok(());
    }
    gate()
        .and_then(|()| fs::create_dir_all(folder))
        .with_context(|| format!("making {}", folder.display()))
}

/// Writes a file whole, or not at all.
fn replace(path: &Path, bytes: &[u8], mode: u32, gate: Gate<'_>) -> Result<()> {
    let new = aside(path, "new");
    let write = || -> io::Result<()> {
        gate()?;
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&new)?;
        gate()?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        gate()?;
        fs::rename(&new, path)?;
        gate()?;
        sync_folder(path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Removes a file for good, with what a crash left of a new one beside it.
fn remove(path: &Path, gate: Gate<'_>) -> Result<()> {
    for gone in [aside(path, "new"), path.to_owned()] {
        match gate().and_then(|()| fs::remove_file(&gone)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", gone.display()));
            }
            _ => {}
        }
    }
    sync_folder(path).with_context(|| format!("removing {}", path.display()))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it is a gate")]
    fn open() -> io::Result<()> {
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is what makes a change")]
    fn mirrored(before: Option<&str>) -> Result<String> {
        Ok(format!("mirror\n{}", before.unwrap_or_default()))
    }

    /// The files of a folder that a runtime reads.
    fn visible(folder: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(folder).expect("it is a folder").flatten();
        let named = entries.map(|entry| {
            let name = entry.file_name().into_string().expect("it is text");
            (name, fs::read_to_string(entry.path()).expect("it is text"))
        });
        named.filter(|(name, _)| !name.starts_with('.')).collect()
    }

    /// Cuts `act` off before each of its steps in turn; what `check` must find so every time.
    fn cut_everywhere(
        before: Option<&str>,
        prepare: impl Fn(&Path),
        act: impl Fn(&Path, Gate<'_>) -> Result<bool>,
        check: impl Fn(&Path),
    ) {
        for steps in 0.. {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("hosts.toml");
            if let Some(before) = before {
                fs::write(&path, before).expect("it is ours");
            }
            prepare(&path);
            let left = Cell::new(steps);
            let gate = || match left.get() {
                0 => Err(io::Error::other("the machine stopped")),
                more => {
                    left.set(more - 1);
                    Ok(())
                }
            };

            let ended = act(&path, &gate);

            check(&path);
            restore(&path, false, &open).expect("it is given back");
            let expected = before.map(|text| ("hosts.toml".to_owned(), text.to_owned()));
            assert_eq!(
                visible(folder.path()),
                expected.into_iter().collect(),
                "cut before step {steps}"
            );
            if ended.is_ok() {
                assert!(steps > 3, "it has steps");
                return;
            }
        }
    }

    fn old_or_new(path: &Path, before: Option<&str>) {
        let now = read(path).expect("it can be read");
        let new = mirrored(before).expect("it is made");
        assert!(
            now.as_deref() == before || now == Some(new),
            "it is half: {now:?}"
        );
    }

    #[test]
    fn a_crash_while_configuring_leaves_the_old_file_or_the_new_and_restore_gives_back_the_old() {
        for before in [None, Some("server = \"x\"\n"), Some("")] {
            let act = |path: &Path, gate: Gate<'_>| configure(path, gate, mirrored);
            cut_everywhere(before, |_| {}, act, |path| old_or_new(path, before));
        }
    }

    #[test]
    fn a_crash_while_configuring_anew_or_restoring_loses_nothing() {
        let before = Some("server = \"x\"\n");
        let prepare = |path: &Path| {
            let other = |_: Option<&str>| Ok("another mirror\n".to_owned());
            configure(path, &open, other).expect("it is written");
        };
        let again = |path: &Path, gate: Gate<'_>| configure(path, gate, mirrored);
        cut_everywhere(before, prepare, again, |_| {});

        let prepare = |path: &Path| _ = configure(path, &open, mirrored).expect("it is written");
        let back = |path: &Path, gate: Gate<'_>| restore(path, false, gate);
        cut_everywhere(before, prepare, back, |path| old_or_new(path, before));
        cut_everywhere(None, prepare, back, |path| old_or_new(path, None));
    }

    #[test]
    fn what_somebody_else_wrote_since_is_not_lost() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("hosts.toml");
        configure(&path, &open, mirrored).expect("it is written");
        assert!(!configure(&path, &open, mirrored).expect("it is there"));
        fs::write(&path, "mine").expect("it is ours");

        for refused in [
            configure(&path, &open, mirrored),
            restore(&path, false, &open),
        ] {
            let why = refused.expect_err("it is not ours to lose").to_string();
            assert!(why.contains("restore --force"), "{why}");
        }
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "mine");
        assert!(restore(&path, true, &open).expect("it is given back"));
        assert!(!path.exists());
    }
}
