//! A folder of certificates, in which all files change at once.
//!
//! It is made as the kubelet makes those that it mounts: the files are links through `..data`, a link to the folder with the
//! real ones, which another replaces in one step.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};

const DATA: &str = "..data";
const NEXT: &str = "..next";

/// Replaces the files of these names; those who read them find all old or all new ones.
pub(super) fn replace(directory: &Path, files: &[(&str, &str)]) -> Result<()> {
    let replaced = write(directory, files);
    replaced.with_context(|| format!("writing certificates into {}", directory.display()))
}

fn write(directory: &Path, files: &[(&str, &str)]) -> Result<()> {
    fs::create_dir_all(directory)?;
    let last = fs::read_link(directory.join(DATA)).ok();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let new = format!("..{}", since.as_nanos());
    DirBuilder::new().mode(0o700).create(directory.join(&new))?;
    for (name, text) in files {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(directory.join(&new).join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    File::open(directory.join(&new))?.sync_all()?;
    link(directory, &new, DATA)?;
    for (name, _) in files {
        link(directory, &format!("{DATA}/{name}"), name)?;
    }
    File::open(directory)?.sync_all()?;
    // Who is reading the last ones may go on.
    let kept = [
        Some(Path::new(&new)),
        last.as_deref(),
        Some(Path::new(DATA)),
    ];
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let ours = name.to_string_lossy().starts_with("..");
        if ours && !kept.contains(&Some(Path::new(&name))) {
            fs::remove_dir_all(directory.join(name))?;
        }
    }
    Ok(())
}

/// Makes a link of this name, or puts it in the place of what has the name.
fn link(directory: &Path, to: &str, name: &str) -> io::Result<()> {
    let next = directory.join(NEXT);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(to, &next)?;
    fs::rename(next, directory.join(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(directory: &Path) -> [String; 2] {
        ["tls.crt", "tls.key"]
            .map(|name| fs::read_to_string(directory.join(name)).expect("it was written"))
    }

    #[test]
    fn files_are_replaced_together_and_little_stays_behind() {
        let home = tempfile::tempdir().expect("the temporary directory can be written");
        let directory = home.path().join("tls");
        fs::create_dir(&directory).expect("it is new");
        fs::write(directory.join("tls.crt"), "by hand").expect("it can be written");
        // As after a crash.
        fs::create_dir(directory.join("..1")).expect("it is new");
        symlink("..1", directory.join(NEXT)).expect("it is new");

        for round in 0..5 {
            let (chain, key) = (format!("chain {round}"), format!("key {round}"));
            replace(&directory, &[("tls.crt", &chain), ("tls.key", &key)]).expect("there is room");
            assert_eq!(read(&directory), [chain, key]);
        }

        let key = fs::metadata(directory.join("tls.key")).expect("it is there");
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        let entries = fs::read_dir(&directory).expect("it is there").count();
        assert_eq!(
            entries, 5,
            "two files, their link, and the last two folders"
        );
    }
}
