//! Owner, mode, extended attributes and times of an entry, carried over to its copy.

use std::ffi::CStr;

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, StatxTimestamp, Timespec, Timestamps, Uid, XattrFlags, chmod,
    chownat, getxattr, listxattr, removexattr, setxattr, utimensat,
};
use rustix::io::Errno;

use super::node::Node;
use crate::host::gate::Gate;

/// The most that the kernel gives for a list or a value.
const LARGEST: usize = 64 << 10;

/// Room for extended attributes.
pub(super) struct Attributes {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Attributes {
    pub(super) fn new() -> Self {
        Self {
            names: vec![0; LARGEST],
            value: vec![0; LARGEST],
        }
    }

    /// Gives `to` the attributes of `from`, as one change.
    ///
    /// The owner comes first, since a new owner takes away setuid and capabilities; the times come last, since all
    /// else changes them.
    pub(super) fn carry(&mut self, gate: &Gate, from: &Node, to: &Node) -> Result<()> {
        gate.pass("set the owner, mode, extended attributes and times of a copy")?;
        let stat = &from.stat;
        let owner = (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid));
        chownat(to, c"", Some(owner.0), Some(owner.1), AtFlags::EMPTY_PATH)
            .context("setting the owner of a copy")?;
        if from.kind() != FileType::Symlink {
            let mode = Mode::from_raw_mode(u32::from(stat.stx_mode));
            chmod(to.by_descriptor(), mode).context("setting the mode of a copy")?;
        }
        self.carry_extended(from, to)?;
        let times = Timestamps {
            last_access: timespec(stat.stx_atime),
            last_modification: timespec(stat.stx_mtime),
        };
        utimensat(to, c"", &times, AtFlags::EMPTY_PATH).context("setting the times of a copy")
    }

    fn carry_extended(&mut self, from: &Node, to: &Node) -> Result<()> {
        let (source, target) = (from.by_descriptor(), to.by_descriptor());
        let length = match listxattr(&source, &mut self.names[..]) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error).context("listing extended attributes"),
        };
        for name in self.names[..length].split_inclusive(|byte| *byte == 0) {
            let name = CStr::from_bytes_with_nul(name).context("reading extended attributes")?;
            let size = match getxattr(&source, name, &mut self.value[..]) {
                Ok(size) => size,
                Err(Errno::NODATA) => continue,
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("reading the extended attribute {name:?}"));
                }
            };
            setxattr(&target, name, &self.value[..size], XattrFlags::empty())
                .with_context(|| format!("setting the extended attribute {name:?} of a copy"))?;
        }
        Ok(())
    }
}

/// Takes away what `top` would hand down to each new entry beneath it.
pub(super) fn bequeath_nothing(gate: &Gate, top: &Node) -> Result<()> {
    gate.pass("remove the default ACL of the top of a copy")?;
    match removexattr(top.by_descriptor(), c"system.posix_acl_default") {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error).context("removing the default ACL of the top of a copy"),
    }
}

fn timespec(time: StatxTimestamp) -> Timespec {
    Timespec {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_nsec.into(),
    }
}
