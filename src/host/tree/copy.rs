//! Copying a tree with all that belongs to it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, linkat, makedev, mkdirat, mknodat, openat, readlinkat,
    symlinkat,
};

use super::attributes::{Attributes, bequeath_nothing};
use super::node::{Found, Identity, Node, each_entry};
use super::trail::{Place, Trail};
use crate::host::clone::clone_file;
use crate::host::gate::Gate;
use crate::host::progress::Progress;

/// Copies everything beneath the directory `from` into the existing empty directory `to`.
///
/// Kept are content with its holes, modes, owners, times, extended attributes (so ACLs and capabilities), hard links
/// within the tree, symlinks, FIFOs, sockets and device nodes, and the attributes of the top itself. What is mounted
/// inside is not part of the tree: an empty directory stands for it, or nothing if it is no directory. An entry that
/// vanishes meanwhile is left out. Nothing is made durable; see [`super::sync`].
///
/// # Errors
/// What the machine or the gate said, with the path beneath the top; `to` is then incomplete.
pub fn copy(
    gate: &Gate,
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    progress: &Progress,
) -> Result<()> {
    let mut copying = Copying {
        gate,
        progress,
        source: Trail::new(from)?,
        target: Trail::new(to)?,
        waiting: Vec::new(),
        links: HashMap::new(),
        attributes: Attributes::new(),
    };
    bequeath_nothing(gate, copying.target.here())?;
    copying.enter()?;
    while let Some(directories) = copying.waiting.last_mut() {
        match directories.pop() {
            Some(name) if copying.entry(&name, true)? => copying.enter()?,
            Some(_) => {}
            None => copying.leave()?,
        }
    }
    Ok(())
}

struct Copying<'a> {
    gate: &'a Gate,
    progress: &'a Progress,
    source: Trail,
    target: Trail,
    /// Of each directory on the trail, those beneath that are still to be copied.
    waiting: Vec<Vec<OsString>>,
    links: HashMap<Identity, Link>,
    attributes: Attributes,
}

/// The copy of a file with several names, of which some were not met yet.
struct Link {
    place: Option<Rc<Place>>,
    name: OsString,
    missing: u32,
}

impl Copying<'_> {
    /// Copies what is in the current directory, and notes the directories for later.
    fn enter(&mut self) -> Result<()> {
        self.waiting.push(Vec::new());
        let Some(directory) = self.source.here().list()? else {
            return Ok(());
        };
        each_entry(&directory, |name, kind| {
            if kind == FileType::Directory {
                self.later(name);
                return Ok(());
            }
            self.entry(name, false).map(drop)
        })
    }

    fn later(&mut self, directory: &OsStr) {
        if let Some(waiting) = self.waiting.last_mut() {
            waiting.push(directory.to_owned());
        }
    }

    /// Finishes the current directory: its attributes come after its content, which changes its times.
    fn leave(&mut self) -> Result<()> {
        self.attributes
            .carry(self.gate, self.source.here(), self.target.here())
            .with_context(|| self.source.path_of(OsStr::new(".")))?;
        self.waiting.pop();
        self.source.up()?;
        self.target.up()?;
        Ok(())
    }

    /// Copies one entry, or notes it if it is a directory; with `descend` goes down into that, and says so.
    fn entry(&mut self, name: &OsStr, descend: bool) -> Result<bool> {
        let copied = match Node::open(self.source.here().as_fd(), name) {
            Ok(Found::Nothing) => Ok(()),
            Ok(Found::Mount) => self.stand_in(name),
            Ok(Found::Node(node)) if node.kind() != FileType::Directory => self.leaf(name, &node),
            Ok(Found::Node(_)) if !descend => {
                self.later(name);
                Ok(())
            }
            Ok(Found::Node(node)) => match self.directory(name) {
                Ok(made) => {
                    self.source.down(name, node);
                    self.target.down(name, made);
                    return Ok(true);
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        copied.with_context(|| format!("copying {:?}", self.source.path_of(name)))?;
        Ok(false)
    }

    /// Makes the empty directory that stands for a mount.
    fn stand_in(&mut self, name: &OsStr) -> Result<()> {
        let stat = rustix::fs::statat(self.source.here(), name, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
            self.directory(name)?;
        }
        Ok(())
    }

    fn directory(&mut self, name: &OsStr) -> Result<Node> {
        self.gate.pass("make a directory of a copy")?;
        mkdirat(self.target.here(), name, Mode::RWXU)?;
        self.made(name)
    }

    fn made(&self, name: &OsStr) -> Result<Node> {
        match Node::open(self.target.here().as_fd(), name)? {
            Found::Node(node) => Ok(node),
            Found::Mount | Found::Nothing => bail!("what was just made is gone"),
        }
    }

    /// Copies what is no directory, or links it to the copy of another name of it.
    fn leaf(&mut self, name: &OsStr, node: &Node) -> Result<()> {
        if self.linked(name, node)? {
            return Ok(());
        }
        let copy = if node.kind() == FileType::RegularFile {
            self.file(name, &node.read()?)?
        } else {
            self.special(name, node)?
        };
        self.attributes.carry(self.gate, node, &copy)?;
        if let Some(missing) = node.stat.stx_nlink.checked_sub(1).filter(|more| *more > 0) {
            let link = Link {
                place: self.target.place(),
                name: name.to_owned(),
                missing,
            };
            self.links.insert(node.identity(), link);
        }
        Ok(())
    }

    /// Links `name` to the copy that another name of `node` already has.
    fn linked(&mut self, name: &OsStr, node: &Node) -> Result<bool> {
        let Some(link) = self.links.get_mut(&node.identity()) else {
            return Ok(false);
        };
        let other = self.target.open(link.place.as_ref())?;
        let directory = other.as_ref().unwrap_or(self.target.top());
        self.gate.pass("link a name of a copied file")?;
        linkat(
            directory,
            &link.name,
            self.target.here(),
            name,
            AtFlags::empty(),
        )?;
        link.missing -= 1;
        if link.missing == 0 {
            self.links.remove(&node.identity());
        }
        Ok(true)
    }

    fn file(&mut self, name: &OsStr, content: &File) -> Result<Node> {
        self.gate.pass("make a file of a copy")?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(self.target.here(), name, flags, Mode::RUSR | Mode::WUSR)?;
        let file = File::from(fd);
        clone_file(self.gate, content, &file, self.progress)?;
        Node::of(file.into())
    }

    fn special(&mut self, name: &OsStr, node: &Node) -> Result<Node> {
        let here = self.target.here();
        self.gate.pass("make a special entry of a copy")?;
        if node.kind() == FileType::Symlink {
            let target = readlinkat(node, c"", Vec::new()).context("reading a symlink")?;
            symlinkat(target, here, name)?;
        } else {
            ensure!(node.kind() != FileType::Unknown, "it is of no known kind");
            let device = makedev(node.stat.stx_rdev_major, node.stat.stx_rdev_minor);
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(here, name, node.kind(), mode, device)?;
        }
        self.made(name)
    }
}
