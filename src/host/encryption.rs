//! LUKS2 on a device: formatted with a key, opened as a mapping, grown, labelled, erased.
//!
//! The label in the header says whose it is and how far it has come, and is the only record of it. Before a header is
//! written the device gets a mark where the data begins, for cryptsetup writes noise before the header: what has the mark
//! and no header is ours, and nothing is in it yet.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{SeekFrom, seek};

use super::Host;
use super::command::Command;
use super::{device_mapper, filesystem};
use crate::volume::{Bytes, HEADER, Secret};

/// What stands where the data will begin while a header is written before it.
const MARK: &[u8; 41] = b"orlop: a header of LUKS2 is being written";

/// The length of the block that the mark is in, which is also the sector of the mapping.
const BLOCK: usize = 4096;

/// The exit code of cryptsetup for a key that does not fit, and for a device that it can not do this to.
const NO_KEY: i32 = 2;
const NO_HEADER: i32 = 1;

/// A mapping that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its number.
    pub rdev: u64,
}

/// What the header of a device says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Whose it is.
    pub owner: String,
    /// Whether all is in it that belongs there: until then nobody has had it.
    pub whole: bool,
}

/// How the label of a whole one, and of one that is new, is called in its header.
const WHOLE: &str = "orlop";
const NEW: &str = "orlop-new";

/// The label of a device; nothing if it has no header of LUKS2.
pub fn label(host: &Host, device: &Path) -> Result<Option<Label>> {
    let dump = cryptsetup(Command::query("cryptsetup"), "luksDump").accept(NO_HEADER);
    let told = host
        .tools
        .run(&dump.args(["--type", "luks2"]).arg(device))?;
    let value = |key: &str| told.lines().find_map(|line| line.strip_prefix(key));
    let read = |key: &str| value(key).map(|value| value.trim().to_owned());
    Ok(read("Label:")
        .zip(read("Subsystem:"))
        .map(|(owner, state)| {
            let whole = state != NEW;
            Label { owner, whole }
        }))
}

/// Sets the label of a device that has a header, durably.
pub fn set_label(host: &Host, device: &Path, label: &Label) -> Result<()> {
    let config = cryptsetup(Command::new("cryptsetup"), "config").args(label.options());
    host.tools.run(&config.arg(device)).map(drop)
}

/// Makes a header for `owner` on a device that is blank, or on which that was begun before. The label says that it is
/// new.
///
/// # Errors
/// A device that holds anything else: it is left alone.
pub fn format(host: &Host, device: &Path, owner: &str, key: &Secret) -> Result<()> {
    mark(host, device, MARK)?;
    let label = Label {
        owner: owner.to_owned(),
        whole: false,
    };
    // A key of enough random bytes needs no stretching, which by default would take 1 GiB of memory each time.
    let format = cryptsetup(Command::new("cryptsetup"), "luksFormat")
        .args(["--batch-mode", "--type", "luks2", "--key-file", "-"])
        .args(["--cipher", "aes-xts-plain64", "--key-size", "512"])
        .args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"])
        .args(["--sector-size", "4096"])
        .args(["--offset", &(HEADER.0 / 512).to_string()])
        .args(label.options());
    host.tools.run(&format.arg(device).input(key.clone()))?;
    mark(host, device, &[])
}

/// Whether a device without a header may get one: it is blank at its ends, or one was begun.
pub fn may_be_formatted(device: &Path) -> Result<bool> {
    let reading = || format!("reading {}", device.display());
    let file = File::open(device).with_context(reading)?;
    let mut found = [0; MARK.len()];
    file.read_exact_at(&mut found, HEADER.0)
        .with_context(reading)?;
    Ok(found == *MARK || filesystem::blank_ends(&file).with_context(reading)?)
}

/// Opens a device as the mapping `name`; false if the key does not fit.
///
/// The key of the data is not kept in a keyring: without one the mapping can be grown when nobody has the key at hand.
pub fn open(host: &Host, device: &Path, name: &str, key: &Secret) -> Result<bool> {
    let open = cryptsetup(Command::new("cryptsetup"), "open")
        .args(["--type", "luks2", "--key-file", "-", "--disable-keyring"])
        .arg(device)
        .arg(name)
        .accept(NO_KEY);
    host.tools.run(&open.input(key.clone()))?;
    Ok(device_mapper::find(name)?.is_some())
}

/// Closes the mapping `name`; one that is not open is fine.
pub fn close(host: &Host, name: &str) -> Result<()> {
    if device_mapper::find(name)?.is_none() {
        return Ok(());
    }
    let close = cryptsetup(Command::new("cryptsetup"), "close");
    host.tools.run(&close.arg(name)).map(drop)
}

/// Makes an open mapping as large as its device allows.
pub fn grow(host: &Host, mapping: &Path, name: &str, usable: Bytes) -> Result<()> {
    let opening = || format!("opening {}", mapping.display());
    let opened = File::open(mapping).with_context(opening)?;
    if seek(&opened, SeekFrom::End(0)).with_context(opening)? >= usable.0 {
        return Ok(());
    }
    let resize = cryptsetup(Command::new("cryptsetup"), "resize");
    host.tools.run(&resize.arg(name)).map(drop)
}

/// Destroys all that the key opens: afterwards no key does. A device without a header is fine.
pub fn erase(host: &Host, device: &Path) -> Result<()> {
    if label(host, device)?.is_none() {
        return Ok(());
    }
    let erase = cryptsetup(Command::new("cryptsetup"), "erase").arg("--batch-mode");
    host.tools.run(&erase.arg(device)).map(drop)
}

/// The kernel's name of the device beneath the mapping of this name, `loop3`, and its number.
///
/// # Errors
/// A mapping that is of no device, or of several.
pub fn beneath(rdev: u64) -> Result<(String, u64)> {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let slaves = format!("/sys/dev/block/{major}:{minor}/slaves");
    let found = fs::read_dir(&slaves).with_context(|| slaves.clone())?;
    let mut names = found.flatten().map(|entry| entry.file_name());
    let (name, other) = (names.next(), names.next());
    ensure!(other.is_none(), "{slaves} has more than one");
    let name = name.and_then(|name| name.into_string().ok());
    let name = name.with_context(|| format!("{slaves} is empty"))?;
    let number = format!("/sys/class/block/{name}/dev");
    let text = fs::read_to_string(&number).with_context(|| number.clone())?;
    let (major, minor) = text.trim().split_once(':').context(number)?;
    Ok((name, rustix::fs::makedev(major.parse()?, minor.parse()?)))
}

impl Label {
    fn options(&self) -> [&str; 4] {
        let state = if self.whole { WHOLE } else { NEW };
        ["--label", &self.owner, "--subsystem", state]
    }
}

/// Where nobody runs udev, cryptsetup must make its nodes itself, and wait for nothing.
fn cryptsetup(command: Command, action: &str) -> Command {
    let alone = !device_mapper::udev_is_running();
    let command = if alone {
        command.env("DM_DISABLE_UDEV", "1")
    } else {
        command
    };
    command.arg(action)
}

/// Writes the block where the data begins, durably.
fn mark(host: &Host, device: &Path, text: &[u8]) -> Result<()> {
    let writing = || format!("marking {}", device.display());
    host.gate.pass(writing())?;
    let file = File::options().write(true).open(device);
    let file = file.with_context(writing)?;
    let mut block = [0; BLOCK];
    block[..text.len()].copy_from_slice(text);
    file.write_all_at(&block, HEADER.0).with_context(writing)?;
    rustix::fs::fsync(&file).with_context(writing)
}
