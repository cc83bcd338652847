//! Removing a tree whoever wrote it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, IFlags, ioctl_getflags, ioctl_setflags, unlinkat};
use rustix::io::Errno;

use super::node::{Found, Node, each_entry};
use super::trail::Trail;
use crate::host::gate::Gate;
use crate::host::subvolume;

/// How often a directory is emptied again because someone filled it meanwhile.
const ROUNDS: u32 = 16;

/// Removes `name` from the directory `parent` with all that it holds; nothing there is fine.
///
/// Immutable and append-only entries are removed too, and btrfs subvolumes inside.
///
/// # Errors
/// Something is mounted inside: it is left alone, with what leads to it. Someone keeps filling a directory, or moves
/// one while it is walked. What the machine or the gate said, with the path beneath `parent`.
pub fn remove(gate: &Gate, parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let mut removing = Removing {
        gate,
        trail: Trail::new(parent)?,
        doomed: Vec::new(),
    };
    removing.entry(name, true)?;
    while let Some(level) = removing.doomed.last_mut() {
        match level.waiting.pop() {
            Some(name) => removing.entry(&name, true)?,
            None => removing.leave()?,
        }
    }
    Ok(())
}

struct Removing<'a> {
    gate: &'a Gate,
    trail: Trail,
    /// One for each directory on the trail.
    doomed: Vec<Doomed>,
}

/// A directory that is being emptied.
struct Doomed {
    /// Entries that are still to be removed.
    waiting: Vec<OsString>,
    rounds: u32,
}

impl Removing<'_> {
    /// Removes an entry of the current directory; with `descend` a directory is gone down into.
    fn entry(&mut self, name: &OsStr, descend: bool) -> Result<()> {
        let here = self.trail.here();
        let removed = match Node::open(here.as_fd(), name) {
            Ok(Found::Nothing) => Ok(()),
            Ok(Found::Mount) => Err(mounted()),
            Ok(Found::Node(node)) if node.kind() != FileType::Directory => {
                self.unlink(name, &node, AtFlags::empty()).map(drop)
            }
            Ok(Found::Node(_)) if !descend => {
                self.later(name);
                Ok(())
            }
            Ok(Found::Node(node)) if subvolume::is_subvolume(node.as_fd()) => {
                subvolume::delete(self.gate, here.as_fd(), name)
            }
            Ok(Found::Node(node)) => {
                self.trail.down(name, node);
                self.doomed.push(Doomed {
                    waiting: Vec::new(),
                    rounds: 0,
                });
                return self.empty();
            }
            Err(error) => Err(error),
        };
        removed.with_context(|| format!("removing {:?}", self.trail.path_of(name)))
    }

    /// Removes what is in the current directory, and notes the directories for later.
    fn empty(&mut self) -> Result<()> {
        let Some(directory) = self.trail.here().list()? else {
            return Ok(());
        };
        each_entry(&directory, |name, kind| {
            if kind == FileType::Directory {
                self.later(name);
                return Ok(());
            }
            self.entry(name, false)
        })
    }

    fn later(&mut self, name: &OsStr) {
        if let Some(level) = self.doomed.last_mut() {
            level.waiting.push(name.to_owned());
        }
    }

    /// Removes the current directory, or empties it again if it was filled meanwhile.
    fn leave(&mut self) -> Result<()> {
        let Some(Doomed { rounds, .. }) = self.doomed.pop() else {
            return Ok(());
        };
        let Some((name, left)) = self.trail.up()? else {
            return Ok(());
        };
        let removed = self
            .unlink(&name, &left, AtFlags::REMOVEDIR)
            .with_context(|| format!("removing {:?}", self.trail.path_of(&name)))?;
        if removed {
            return Ok(());
        }
        if rounds == ROUNDS {
            bail!("{:?} is being filled", self.trail.path_of(&name));
        }
        self.trail.down(&name, left);
        self.doomed.push(Doomed {
            waiting: Vec::new(),
            rounds: rounds + 1,
        });
        self.empty()
    }

    /// Removes a name, at which `node` was found; says whether it is gone, or a directory that is not empty.
    fn unlink(&self, name: &OsStr, node: &Node, kind: AtFlags) -> Result<bool> {
        let here = self.trail.here();
        self.gate.pass("remove an entry")?;
        let mut removed = unlinkat(here, name, kind);
        if removed == Err(Errno::PERM) {
            self.release(here)?;
            self.release(node)?;
            removed = unlinkat(here, name, kind);
        }
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(Errno::BUSY) => Err(mounted()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the flags away that forbid a removal.
    fn release(&self, node: &Node) -> Result<()> {
        let Some(file) = (match node.kind() {
            FileType::Directory => node.list()?,
            FileType::RegularFile => Some(node.read()?),
            _ => None,
        }) else {
            return Ok(());
        };
        let forbidding = IFlags::IMMUTABLE | IFlags::APPEND;
        let flags = match ioctl_getflags(&file) {
            Ok(flags) if flags.intersects(forbidding) => flags,
            Ok(_) | Err(Errno::NOTTY | Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error).context("reading the flags of an entry"),
        };
        self.gate
            .pass("take the immutable flag away from an entry")?;
        ioctl_setflags(&file, flags - forbidding).context("taking the immutable flag away")
    }
}

fn mounted() -> anyhow::Error {
    anyhow::anyhow!("something is mounted there: unmount it first")
}
