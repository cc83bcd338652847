//! The kernel's table of all mounts, as it prints it in `mountinfo`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// One line of the table: proc(5), `/proc/pid/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of the mount, unique while it exists.
    pub id: u64,
    /// The device number of its filesystem; in btrfs files show another one, that of their subvolume.
    pub dev: u64,
    /// Which directory or file of that filesystem is seen.
    pub root: PathBuf,
    /// Where it is seen.
    pub target: PathBuf,
    /// The kind of filesystem.
    pub filesystem: String,
    /// What was mounted: for a device, its path.
    pub source: OsString,
    /// Whether nothing can be written through it.
    pub read_only: bool,
}

/// The whole table of this thread's namespace.
pub(super) fn read() -> Result<Vec<Entry>> {
    const TABLE: &str = "/proc/thread-self/mountinfo";
    let text = fs::read(TABLE).context(TABLE)?;
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse(line).with_context(|| format!("{TABLE}: {:?}", String::from_utf8_lossy(line)))
        })
        .collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`, with any number of words before
/// the dash.
fn parse(line: &[u8]) -> Option<Entry> {
    let mut words = line.split(|byte| *byte == b' ');
    let mut next = || words.next();
    let id = number(next()?)?;
    let _parent = next()?;
    let mut dev = next()?.split(|byte| *byte == b':');
    let (major, minor) = (number(dev.next()?)?, number(dev.next()?)?);
    let (root, target, options) = (next()?, next()?, next()?);
    while next()? != b"-" {}
    let (filesystem, source, of_filesystem) = (next()?, next()?, next()?);
    let read_only = |options: &[u8]| {
        options
            .split(|byte| *byte == b',')
            .any(|word| word == b"ro")
    };
    Some(Entry {
        id,
        dev: rustix::fs::makedev(u32::try_from(major).ok()?, u32::try_from(minor).ok()?),
        root: decode(root).into(),
        target: decode(target).into(),
        filesystem: decode(filesystem).into_string().ok()?,
        source: decode(source),
        read_only: read_only(options) || read_only(of_filesystem),
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Space, tab, newline and backslash are printed as a backslash and three octal digits.
fn decode(word: &[u8]) -> OsString {
    let mut decoded = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match after {
            [a, b, c, ..] if first == b'\\' => octal(&[*a, *b, *c]),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() {
            &after[3..]
        } else {
            after
        };
    }
    OsString::from_vec(decoded)
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_and_optional_fields_is_read() {
        let line = br"2036 35 7:300 /vol\134ume /mnt/with\040space rw,noatime shared:2 master:1 - ext4 /dev/loop300 ro,errors=continue";

        let entry = parse(line).expect("it is a line of the table");

        assert_eq!(
            entry,
            Entry {
                id: 2036,
                dev: rustix::fs::makedev(7, 300),
                root: PathBuf::from(r"/vol\ume"),
                target: PathBuf::from("/mnt/with space"),
                filesystem: "ext4".to_owned(),
                source: OsString::from("/dev/loop300"),
                read_only: true,
            }
        );
    }

    #[test]
    fn a_line_that_is_cut_short_is_refused() {
        assert_eq!(parse(b"36 35 98:0 /mnt1 /mnt2 rw,noatime"), None);
    }
}
