//! A directory that is ours: opened once, and everything in it reached by one name at a time, never through a symlink.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, Dir, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, StatxFlags,
};
use rustix::io::Errno;

use super::gate::Gate;

const SAFELY: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// An open directory below which nobody but us writes.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    gate: Gate,
}

/// Tells one state of a file from a later one: its inode, its last change and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    changed: (i64, u32),
    length: u64,
}

impl Folder {
    /// Opens an existing directory; the last component must not be a symlink.
    pub fn open(path: &Path, gate: Gate) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("opening the directory {}", path.display()))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            gate,
        })
    }

    /// Where it is: for messages, for tools, and as the source of a bind mount.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The gate that changes in it pass.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The folder `name` in it, if there is one.
    pub fn folder(&self, name: &str) -> Result<Option<Self>> {
        let fd = self.openat(name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok(fd.map(|fd| Self {
            fd,
            path: self.path.join(name),
            gate: self.gate.clone(),
        }))
    }

    /// Makes the folder `name` with exactly this mode, and opens it.
    pub fn make_folder(&self, name: &str, mode: u32) -> Result<Self> {
        self.gate.pass(self.doing("mkdir", name))?;
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode))
            .with_context(|| self.doing("making", name))?;
        let folder = self
            .folder(name)?
            .with_context(|| self.doing("opening what was just made", name))?;
        folder.set_mode(mode)?;
        Ok(folder)
    }

    /// Gives the folder exactly this mode: the process's umask must not decide who can enter a volume.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))
            .with_context(|| format!("setting the mode of {}", self.path.display()))
    }

    /// The folder `name`, made with mode 0700 if it is missing.
    pub fn ensure_folder(&self, name: &str) -> Result<Self> {
        match self.folder(name)? {
            Some(folder) => Ok(folder),
            None => self.make_folder(name, 0o700),
        }
    }

    /// The file `name` opened for reading, or for reading and writing, if there is one.
    pub fn file(&self, name: &str, writable: bool) -> Result<Option<File>> {
        let access = if writable {
            OFlags::RDWR
        } else {
            OFlags::RDONLY
        };
        Ok(self.openat(name, access, Mode::empty())?.map(File::from))
    }

    /// Makes the file `name`, readable by us alone, for writing.
    pub fn make_file(&self, name: &str) -> Result<File> {
        self.gate.pass(self.doing("creat", name))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = self.openat(name, flags, Mode::RUSR | Mode::WUSR)?;
        fd.map(File::from)
            .with_context(|| self.doing("making", name))
    }

    /// What the file `name` holds, if there is one.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.file(name, false)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        file.read_to_end(&mut content)
            .with_context(|| self.doing("reading", name))?;
        Ok(Some(content))
    }

    /// Makes the file `name` with this content, durable itself; its entry is durable after [`Folder::sync`].
    pub fn write_new(&self, name: &str, content: &str) -> Result<()> {
        let mut file = self.make_file(name)?;
        self.gate.pass(self.doing("write", name))?;
        file.write_all(content.as_bytes())
            .with_context(|| self.doing("writing", name))?;
        rustix::fs::fsync(&file).with_context(|| self.doing("syncing", name))
    }

    /// Puts this content in the place of the file `name`, durably: a crash leaves the old or the new one, whole.
    pub fn replace(&self, name: &str, content: &str) -> Result<()> {
        let aside = format!("{name}.new");
        self.unlink(&aside)?;
        self.write_new(&aside, content)?;
        self.gate
            .pass(format_args!("{} {name}", self.doing("mv", &aside)))?;
        rustix::fs::renameat(&self.fd, &aside, &self.fd, name)
            .with_context(|| self.doing("replacing", name))?;
        self.sync()
    }

    /// Moves the entry `name` to `place` under the name `as_name`, durably. Whatever has that name already stays.
    pub fn move_to(&self, name: &str, place: &Self, as_name: &str) -> Result<()> {
        let to = |what| place.doing(&format!("{} to", self.doing(what, name)), as_name);
        self.gate.pass(to("mv"))?;
        rustix::fs::renameat_with(&self.fd, name, &place.fd, as_name, RenameFlags::NOREPLACE)
            .with_context(|| to("moving"))
    }

    /// Removes the file `name`; missing is fine.
    pub fn unlink(&self, name: &str) -> Result<()> {
        self.gate.pass(self.doing("rm", name))?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).with_context(|| self.doing("removing", name)),
        }
    }

    /// Makes the entries of this folder durable: what was made in it, moved into it and out of it.
    pub fn sync(&self) -> Result<()> {
        self.gate
            .pass(format_args!("fsync {}", self.path.display()))?;
        rustix::fs::fsync(&self.fd)
            .with_context(|| format!("syncing the directory {}", self.path.display()))
    }

    /// Makes all that was written to the folder's filesystem durable.
    pub fn sync_filesystem(&self) -> Result<()> {
        self.gate
            .pass(format_args!("sync -f {}", self.path.display()))?;
        rustix::fs::syncfs(&self.fd)
            .with_context(|| format!("syncing the filesystem of {}", self.path.display()))
    }

    /// The names of its entries, in no order; an entry whose name is not text is left out, for none of ours has such.
    pub fn names(&self) -> Result<Vec<String>> {
        let read = || -> Result<Vec<String>, Errno> {
            let mut names = Vec::new();
            for entry in Dir::read_from(&self.fd)? {
                let entry = entry?;
                match entry.file_name().to_str() {
                    Ok("." | "..") | Err(_) => {}
                    Ok(name) => names.push(name.to_owned()),
                }
            }
            Ok(names)
        };
        read().with_context(|| format!("listing {}", self.path.display()))
    }

    /// The stamp of a file one or more levels below, if there is one; costs one system call.
    pub fn stamp(&self, file: &Path) -> Result<Option<Stamp>> {
        let wanted = StatxFlags::INO | StatxFlags::CTIME | StatxFlags::SIZE;
        match rustix::fs::statx(&self.fd, file, AtFlags::SYMLINK_NOFOLLOW, wanted) {
            Ok(status) => Ok(Some(Stamp {
                inode: status.stx_ino,
                changed: (status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec),
                length: status.stx_size,
            })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => {
                Err(errno).with_context(|| format!("looking at {}", self.path.join(file).display()))
            }
        }
    }

    /// Keeps the folder for this process until the returned file is dropped.
    ///
    /// # Errors
    /// Another process keeps it.
    pub fn lock(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE;
        let fd = self
            .openat(name, flags, Mode::RUSR | Mode::WUSR)?
            .with_context(|| self.doing("opening", name))?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(File::from(fd)),
            Err(Errno::WOULDBLOCK) => {
                bail!(
                    "{} is in use by another orlop process: stop that one first",
                    self.path.display()
                )
            }
            Err(errno) => Err(errno).with_context(|| self.doing("locking", name)),
        }
    }

    fn openat(&self, name: &str, flags: OFlags, mode: Mode) -> Result<Option<OwnedFd>> {
        match rustix::fs::openat2(
            &self.fd,
            name,
            flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            mode,
            SAFELY,
        ) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(|| self.doing("opening", name)),
        }
    }

    fn doing(&self, what: &str, name: &str) -> String {
        format!("{what} {}", self.path.join(name).display())
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let folder = Folder::open(dir.path(), Gate::open()).expect("it exists");
        (dir, folder)
    }

    #[test]
    fn a_replaced_file_is_never_half_there() {
        let (dir, folder) = folder();
        folder.write_new("record", "old").expect("it is new");

        for k in 0..8 {
            let cut = Folder::open(dir.path(), Gate::cut_after(k)).expect("it exists");
            let _ = cut.replace("record", "new");

            let content = folder
                .read("record")
                .expect("it can be read")
                .expect("it is there");
            assert!(
                content == b"old" || content == b"new",
                "after {k} changes: {content:?}"
            );
        }
        assert_eq!(
            folder.read("record").expect("it can be read").as_deref(),
            Some(&b"new"[..])
        );
    }

    #[test]
    fn a_symlink_is_not_followed() {
        let (dir, folder) = folder();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).expect("a symlink can be made");

        assert!(folder.folder("link").is_err());
        assert!(folder.read("../passwd").is_err());
    }

    #[test]
    fn a_second_lock_is_refused() {
        let (dir, folder) = folder();
        let _kept = folder.lock("lock").expect("nobody has it");

        let second = Folder::open(dir.path(), Gate::open())
            .expect("it exists")
            .lock("lock");

        assert!(
            second
                .expect_err("it is kept")
                .to_string()
                .contains("another orlop process")
        );
    }
}
