//! Random trees, and everything about a tree that a copy must keep.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, linkat,
    makedev, mknodat, utimensat,
};

/// One entry of a random tree; numbers choose among what is there already.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    parent: usize,
    name: Vec<u8>,
    kind: Kind,
    owner: (u32, u32),
    mode: u32,
    time: (i64, i64),
    attribute: Option<(String, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Kind {
    Directory,
    File(Vec<(u64, Vec<u8>)>, u64),
    Symlink(Vec<u8>),
    Special(u32),
    Link(usize),
}

pub(crate) fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let piece = (
        0..2_000_000_u64,
        proptest::collection::vec(any::<u8>(), 0..9000),
    );
    let kind = prop_oneof![
        4 => Just(Kind::Directory),
        4 => (proptest::collection::vec(piece, 0..4), 0..3_000_000_u64)
            .prop_map(|(pieces, size)| Kind::File(pieces, size)),
        1 => proptest::collection::vec(1..=255_u8, 1..300).prop_map(Kind::Symlink),
        1 => (0..4_u32).prop_map(Kind::Special),
        2 => any::<usize>().prop_map(Kind::Link),
    ];
    let name = proptest::collection::vec(
        (1..=255_u8).prop_filter("no slash in a name", |byte| *byte != b'/'),
        1..40,
    );
    let attribute = prop_oneof![
        Just(None),
        proptest::collection::vec(any::<u8>(), 0..100)
            .prop_map(|value| Some(("trusted.test".to_owned(), value))),
        Just(Some(("system.posix_acl_access".to_owned(), acl()))),
        Just(Some(("system.posix_acl_default".to_owned(), acl()))),
        Just(Some(("security.capability".to_owned(), capability()))),
    ];
    let entry = (
        any::<usize>(),
        name,
        kind,
        (0..70_000_u32, 0..70_000_u32),
        0..0o10000_u32,
        (0..2_000_000_000_i64, 0..1_000_000_000_i64),
        attribute,
    )
        .prop_map(|(parent, name, kind, owner, mode, time, attribute)| Entry {
            parent,
            name,
            kind,
            owner,
            mode,
            time,
            attribute,
        });
    proptest::collection::vec(entry, 0..40)
}

/// An ACL: version 2; the owner rwx, user 1234 r-x, the group r--, the mask rwx, others nothing.
fn acl() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    let undefined = u32::MAX;
    let parts = [
        (1, 7, undefined),
        (2, 5, 1234),
        (4, 4, undefined),
        (16, 7, undefined),
        (32, 0, undefined),
    ];
    for (tag, permissions, id) in parts {
        acl.extend(u16::to_le_bytes(tag));
        acl.extend(u16::to_le_bytes(permissions));
        acl.extend(u32::to_le_bytes(id));
    }
    acl
}

/// `cap_net_raw=ep`, in the kernel's second form.
fn capability() -> Vec<u8> {
    [0x0200_0001_u32, 1 << 13, 0, 0, 0]
        .map(u32::to_le_bytes)
        .concat()
}

/// Makes the entries beneath `top`; those whose name is taken, or that can not be, are left out.
pub(crate) fn make(top: &Path, entries: &[Entry]) {
    let mut directories = vec![top.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Entry)> = Vec::new();
    for entry in entries {
        let parent = &directories[entry.parent % directories.len()];
        let path = parent.join(OsString::from_vec(entry.name.clone()));
        if entry.name == b"." || entry.name == b".." || path.symlink_metadata().is_ok() {
            continue;
        }
        match &entry.kind {
            Kind::Directory => {
                fs::create_dir(&path).expect("the name is free");
                directories.push(path.clone());
            }
            Kind::File(pieces, size) => {
                let file = fs::File::create(&path).expect("the name is free");
                for (at, bytes) in pieces {
                    file.write_all_at(bytes, *at).expect("there is room");
                }
                file.set_len(*size).expect("there is room");
                files.push(path.clone());
            }
            Kind::Symlink(target) => {
                let target = OsString::from_vec(target.clone());
                std::os::unix::fs::symlink(target, &path).expect("the name is free");
            }
            Kind::Special(which) => {
                let kinds = [
                    FileType::Fifo,
                    FileType::Socket,
                    FileType::CharacterDevice,
                    FileType::BlockDevice,
                ];
                let kind = kinds[*which as usize];
                mknodat(CWD, &path, kind, Mode::RUSR, makedev(1, 3)).expect("the name is free");
            }
            Kind::Link(which) => {
                if let Some(file) = files.get(which % files.len().max(1)) {
                    linkat(CWD, file, CWD, &path, AtFlags::empty()).expect("the name is free");
                }
                continue;
            }
        }
        made.push((path, entry));
    }
    for (path, entry) in made.into_iter().rev() {
        dress(&path, entry);
    }
}

fn dress(path: &Path, entry: &Entry) {
    let (owner, group) = (Uid::from_raw(entry.owner.0), Gid::from_raw(entry.owner.1));
    chownat(
        CWD,
        path,
        Some(owner),
        Some(group),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .expect("we are root");
    if !matches!(entry.kind, Kind::Symlink(_)) {
        rustix::fs::chmod(path, Mode::from_raw_mode(entry.mode)).expect("we are root");
    }
    if let Some((name, value)) = &entry.attribute {
        // Not every kind of entry takes every attribute.
        let _ = rustix::fs::lsetxattr(path, name.as_str(), value, XattrFlags::empty());
    }
    let time = Timespec {
        tv_sec: entry.time.0,
        tv_nsec: entry.time.1,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("we are root");
}

/// What a copy must keep of one entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    accessed: (i64, i64),
    device: u64,
    content: Content,
    attributes: BTreeMap<CString, Vec<u8>>,
    /// The first path of the same file.
    same_as: PathBuf,
}

/// Bytes of which a message shows only how many they are.
#[derive(PartialEq, Eq)]
struct Content(Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Everything beneath and with `top`, by its path.
pub(crate) fn look(top: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(path) = waiting.pop() {
        let relative = path.strip_prefix(top).expect("it is beneath").to_owned();
        let stat = path.symlink_metadata().expect("it is there");
        let content = if stat.is_file() {
            fs::read(&path).expect("it can be read")
        } else if stat.is_symlink() {
            fs::read_link(&path)
                .expect("it can be read")
                .into_os_string()
                .into_vec()
        } else {
            Vec::new()
        };
        if stat.is_dir() {
            let mut beneath: Vec<PathBuf> = fs::read_dir(&path)
                .expect("it can be read")
                .map(|entry| entry.expect("it can be read").path())
                .collect();
            beneath.sort();
            waiting.extend(beneath);
        }
        let same_as = first.entry(stat.ino()).or_insert(relative.clone()).clone();
        let entry = Seen {
            mode: stat.mode(),
            owner: (stat.uid(), stat.gid()),
            modified: (stat.mtime(), stat.mtime_nsec()),
            accessed: (stat.atime(), stat.atime_nsec()),
            device: stat.rdev(),
            content: Content(content),
            attributes: attributes(&path),
            same_as,
        };
        seen.insert(relative, entry);
    }
    seen
}

fn attributes(path: &Path) -> BTreeMap<CString, Vec<u8>> {
    let mut names = vec![0; 65536];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else {
        return BTreeMap::new();
    };
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = CString::new(name).expect("it was split at NUL");
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, &name, &mut value[..]).expect("it is listed");
            value.truncate(length);
            (name, value)
        })
        .collect()
}

/// The bytes that the files beneath `top` occupy.
pub(crate) fn occupied(top: &Path) -> u64 {
    look(top)
        .keys()
        .map(|path| top.join(path).symlink_metadata().expect("it is there"))
        .filter(fs::Metadata::is_file)
        .map(|stat| stat.blocks() * 512 / stat.nlink())
        .sum()
}

impl Seen {
    /// Whether it is a file of just these bytes.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        self.content.0 == bytes
    }
}
