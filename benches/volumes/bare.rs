//! The floors: the least system calls that leave the same behind, without a driver around them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, CWD, Dir, StatxFlags, ioctl_ficlone};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

/// The length of a volume's record.
const RECORD: [u8; 256] = [b'x'; 256];

/// A place where durable entries are made bare: aside, and renamed into `volumes`.
pub(crate) struct Bare {
    place: PathBuf,
    volumes: File,
}

impl Bare {
    pub(crate) fn new(place: PathBuf) -> Result<Self> {
        fs::create_dir(place.join("volumes"))?;
        let volumes = File::open(place.join("volumes"))?;
        Ok(Self { place, volumes })
    }

    /// `mkdir, write, fsync, rename, fsync`: the least that makes an entry with a record durable.
    pub(crate) fn create(&self, name: &str) -> Result<Duration> {
        let (aside, place) = (self.place.join(name), self.place.join("volumes").join(name));
        let begun = Instant::now();
        fs::create_dir(&aside)?;
        let mut record = File::create_new(aside.join("record"))?;
        record.write_all(&RECORD)?;
        record.sync_all()?;
        drop(record);
        fs::rename(aside, place)?;
        self.volumes.sync_all()?;
        Ok(begun.elapsed())
    }

    /// `creat, FICLONE, fsync, rename, fsync`: the least that makes a durable copy that shares its blocks.
    pub(crate) fn clone_of(&self, source: &File, name: &str) -> Result<Duration> {
        let (aside, place) = (self.place.join(name), self.place.join("volumes").join(name));
        let begun = Instant::now();
        let copy = File::create_new(&aside)?;
        ioctl_ficlone(&copy, source).context("FICLONE")?;
        copy.sync_all()?;
        drop(copy);
        fs::rename(&aside, &place)?;
        self.volumes.sync_all()?;
        let took = begun.elapsed();
        fs::remove_file(place)?;
        Ok(took)
    }
}

/// `open_tree, move_mount` onto a directory that is there.
pub(crate) fn bind(from: &Path, to: &Path) -> Result<Duration> {
    let begun = Instant::now();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, from, flags).context("open_tree")?;
    let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(tree.as_fd(), "", CWD, to, by_descriptor).context("move_mount")?;
    Ok(begun.elapsed())
}

/// `umount2`.
pub(crate) fn unbind(target: &Path) -> Result<Duration> {
    let begun = Instant::now();
    unmount(target, UnmountFlags::NOFOLLOW).context("umount2")?;
    Ok(begun.elapsed())
}

/// `statfs`.
pub(crate) fn space(path: &Path) -> Result<Duration> {
    let begun = Instant::now();
    rustix::fs::statfs(path)?;
    Ok(begun.elapsed())
}

/// `getdents64` of the directory, and `statx` of `record` in each of its entries.
pub(crate) fn look_at_all(directory: &Path, record: &str) -> Result<Duration> {
    let begun = Instant::now();
    let open = File::open(directory)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&open)? {
        names.push(entry?.file_name().to_owned());
    }
    for name in &names {
        if !name.to_bytes().starts_with(b".") {
            let path = Path::new(name.to_str()?).join(record);
            rustix::fs::statx(&open, path, AtFlags::empty(), StatxFlags::CTIME)?;
        }
    }
    Ok(begun.elapsed())
}

/// One byte to another thread and back, over a Unix socket.
pub(crate) struct Echo(UnixStream);

impl Echo {
    pub(crate) fn new() -> Result<Self> {
        let (near, mut far) = UnixStream::pair()?;
        thread::spawn(move || {
            let mut byte = [0];
            while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
        });
        Ok(Self(near))
    }

    pub(crate) fn call(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.0.write_all(&[0])?;
        self.0.read_exact(&mut [0])?;
        Ok(begun.elapsed())
    }
}

/// Fills the file with bytes that are no zeroes and hardly repeat, durably.
pub(crate) fn fill(file: &Path, length: u64) -> Result<()> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(file)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chunk = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        for word in chunk.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_ne_bytes());
        }
        file.write_all_at(&chunk, at)?;
        at += chunk.len() as u64;
    }
    file.sync_all()?;
    Ok(())
}

/// Runs a tool of the machine.
pub(crate) fn tool(program: &str, args: &[&str]) -> Result<Duration> {
    let begun = Instant::now();
    #[expect(
        clippy::disallowed_methods,
        reason = "the tool is the floor, or prepares the machine"
    )]
    let output = std::process::Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("{program} does not start"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {}", said.trim());
    Ok(begun.elapsed())
}
