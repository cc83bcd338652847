//! How much a tree holds, and making a copy of one durable.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use rustix::fs::{FileType, syncfs};

use super::node::{Found, Identity, Node, each_entry};
use super::trail::Trail;
use crate::volume::Bytes;

/// What the regular files beneath `top` occupy, each file once however many names it has: what a copy reads.
///
/// A sum over a tree that others change, so an estimate.
pub fn size(top: BorrowedFd<'_>) -> Result<Bytes> {
    let mut sizing = Sizing {
        trail: Trail::new(top)?,
        waiting: Vec::new(),
        linked: HashSet::new(),
        total: Bytes(0),
    };
    sizing.enter()?;
    while let Some(directories) = sizing.waiting.last_mut() {
        let Some(name) = directories.pop() else {
            sizing.waiting.pop();
            sizing.trail.up()?;
            continue;
        };
        if let Found::Node(node) = Node::open(sizing.trail.here().as_fd(), &name)? {
            sizing.count(&node);
            if node.kind() == FileType::Directory {
                sizing.trail.down(&name, node);
                sizing.enter()?;
            }
        }
    }
    Ok(sizing.total)
}

struct Sizing {
    trail: Trail,
    waiting: Vec<Vec<OsString>>,
    linked: HashSet<Identity>,
    total: Bytes,
}

impl Sizing {
    fn enter(&mut self) -> Result<()> {
        let mut directories = Vec::new();
        if let Some(listing) = self.trail.here().list()? {
            each_entry(&listing, |name, kind| {
                match kind {
                    FileType::RegularFile => {
                        if let Found::Node(node) = Node::open(self.trail.here().as_fd(), name)? {
                            self.count(&node);
                        }
                    }
                    FileType::Directory | FileType::Unknown => directories.push(name.to_owned()),
                    _ => {}
                }
                Ok(())
            })?;
        }
        self.waiting.push(directories);
        Ok(())
    }

    fn count(&mut self, node: &Node) {
        let once = node.stat.stx_nlink < 2 || self.linked.insert(node.identity());
        if node.kind() == FileType::RegularFile && once {
            self.total = self.total.plus(Bytes(node.stat.stx_blocks * 512));
        }
    }
}

/// Makes everything beneath `to` durable.
///
/// This writes back the whole filesystem, which is one walk of the disk and one journal commit where one fsync per
/// file would be thousands.
pub fn sync(to: BorrowedFd<'_>) -> Result<()> {
    syncfs(to).context("writing a filesystem back to its disk")
}
