//! Loop devices: image files seen as block devices.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use linux_raw_sys::loop_device::{
    LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, LO_FLAGS_READ_ONLY, loop_config,
};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

use super::gate::Gate;
use super::{FileId, block_device, kernel, passing};

/// The kernel's own number for loop devices.
const MAJOR: u32 = 7;

/// How often somebody else may snatch the free device before we give up.
const ATTEMPTS: usize = 64;

/// How long a device may take to go away: somebody may be looking at it, udev for one.
const DETACH_LIMIT: Duration = Duration::from_secs(5);

/// Attaches image files to loop devices of this machine, which all its users share: only the device whose file is the
/// given one is ever changed.
#[derive(Clone, Debug)]
pub struct LoopDevices {
    gate: Gate,
}

/// A loop device with a file attached. It is held open, so that one which clears itself stays until it is mounted.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its node.
    pub path: PathBuf,
    /// Its number: the N of `/dev/loopN`.
    pub number: u32,
    /// Its device number, as in `st_rdev`.
    pub rdev: u64,
    /// Whether nothing can be written to it.
    pub read_only: bool,
    /// Whether it reads and writes the file past the page cache.
    pub direct_io: bool,
    device: File,
}

impl LoopDevices {
    /// Those of this machine.
    pub fn new(gate: Gate) -> Self {
        Self { gate }
    }

    /// The device that `file` is attached to.
    ///
    /// It is known by the file itself: names change, and mean different files in different mount namespaces.
    pub fn find(&self, file: FileId) -> Result<Option<LoopDevice>> {
        let number = self.all()?.get(&file).copied();
        number.map_or(Ok(None), |number| self.holding(number, file))
    }

    /// Attaches `file` to a free device. The caller makes sure that no other thread attaches the same file.
    ///
    /// With `autoclear` the device goes away with its last user: before it is mounted that is the returned value.
    /// Direct I/O is on where the file's filesystem has it.
    ///
    /// # Errors
    /// A kernel without loop devices, or with none free after many attempts.
    pub fn attach(&self, file: &File, read_only: bool, autoclear: bool) -> Result<LoopDevice> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .context("/dev/loop-control: does this kernel have loop devices?")?;
        for _ in 0..ATTEMPTS {
            let number = kernel::free_loop(&control).context("asking for a free loop device")?;
            let device = self.open(number, !read_only)?;
            self.gate
                .pass(format_args!("attaching to {}", node(number).display()))?;
            match kernel::configure_loop(&device, &mut config(file, read_only, autoclear)?) {
                Ok(()) => {
                    if !read_only {
                        self.make_writable(number, &device)?;
                    }
                    return LoopDevice::opened(number, device);
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("attaching to {}", node(number).display()));
                }
            }
        }
        bail!("each of {ATTEMPTS} free loop devices was snatched by somebody else")
    }

    /// Gives the device the size that its file has now.
    pub fn grow(&self, device: &LoopDevice) -> Result<()> {
        let growing = || format!("growing {}", device.path.display());
        self.gate.pass(growing())?;
        kernel::set_loop_capacity(&device.device).with_context(growing)
    }

    /// Detaches `file`, and waits until its device is free again; fine if it is attached to none.
    ///
    /// # Errors
    /// `EBUSY` in the chain when the device is mounted or held open.
    pub fn detach(&self, file: FileId) -> Result<()> {
        let Some(found) = self.find(file)? else {
            return Ok(());
        };
        let LoopDevice {
            path,
            number,
            device,
            ..
        } = found;
        // A device that is mounted would detach itself at the unmount, long after we have said that we could not.
        block_device::wait_until_unclaimed(&path, passing::BRIEF)?;
        self.make_writable(number, &device)?;
        self.gate
            .pass(format_args!("detaching {}", path.display()))?;
        match kernel::clear_loop(&device) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {}
            done => done.with_context(|| format!("detaching {}", path.display()))?,
        }
        // The kernel lets go of the file when the last user closes the device; we are one.
        drop(device);
        let is_held = || anyhow::Ok(self.holding(number, file)?.is_some());
        if passing::wait(DETACH_LIMIT, is_held, |held| matches!(held, Ok(true)))? {
            return Err(Errno::BUSY)
                .with_context(|| format!("{} is still in use: it is open", path.display()));
        }
        Ok(())
    }

    /// Takes back that a device was made read-only: that belongs to its number, and would outlive our use of it.
    fn make_writable(&self, number: u32, device: &File) -> Result<()> {
        let making = || format!("making {} writable", node(number).display());
        if kernel::device_is_read_only(device).with_context(making)? {
            self.gate.pass(making())?;
            kernel::set_device_read_only(device, false).with_context(making)?;
        }
        Ok(())
    }

    /// All devices that a file is attached to, by that file.
    pub fn all(&self) -> Result<HashMap<FileId, u32>> {
        let mut all = HashMap::new();
        for entry in fs::read_dir("/sys/block").context("/sys/block")? {
            let entry = entry.context("/sys/block")?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("loop"));
            // Most devices are free, and are not even opened.
            if let Some(Ok(number)) = number.map(str::parse)
                && entry.path().join("loop").exists()
                && let Some(file) = self.file(number)?
            {
                all.insert(file, number);
            }
        }
        Ok(all)
    }

    /// The device of that number, if it holds `file`.
    pub fn holding(&self, number: u32, file: FileId) -> Result<Option<LoopDevice>> {
        let Some((device, held)) = self.attached(number)? else {
            return Ok(None);
        };
        (held == file)
            .then(|| LoopDevice::opened(number, device))
            .transpose()
    }

    fn file(&self, number: u32) -> Result<Option<FileId>> {
        Ok(self.attached(number)?.map(|(_, file)| file))
    }

    /// The device of that number and its file; nothing if it is gone or free.
    fn attached(&self, number: u32) -> Result<Option<(File, FileId)>> {
        let device = match self.open(number, false) {
            Ok(device) => device,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        match kernel::loop_status(&device) {
            Ok(status) => Ok(Some((
                device,
                FileId {
                    dev: status.lo_device,
                    ino: status.lo_inode,
                },
            ))),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            Err(error) => Err(error)
                .with_context(|| format!("asking {} for its file", node(number).display())),
        }
    }

    /// Opens the node of a device that the kernel has; makes it in a `/dev` that nobody keeps up, a container's.
    fn open(&self, number: u32, writable: bool) -> Result<File> {
        let path = node(number);
        let opening = || format!("opening {}", path.display());
        let rdev = rustix::fs::makedev(MAJOR, number);
        let open = || OpenOptions::new().read(true).write(writable).open(&path);
        let device = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                block_device::make_node(&self.gate, &path, rdev)?;
                open()
            }
            opened => opened,
        };
        let device = device.with_context(opening)?;
        let is = device.metadata().with_context(opening)?.rdev();
        ensure!(is == rdev, "{} is another device", path.display());
        Ok(device)
    }
}

impl LoopDevice {
    /// The open device alone.
    pub fn into_file(self) -> File {
        self.device
    }

    fn opened(number: u32, device: File) -> Result<Self> {
        let status = kernel::loop_status(&device)
            .with_context(|| format!("asking {} for its state", node(number).display()))?;
        let has = |flag: u32| status.lo_flags & flag != 0;
        let direct_io = has(LO_FLAGS_DIRECT_IO as u32);
        if !direct_io {
            tracing::debug!(
                number,
                "no direct I/O: the filesystem of its file refuses it"
            );
        }
        Ok(Self {
            path: node(number),
            number,
            rdev: rustix::fs::makedev(MAJOR, number),
            read_only: has(LO_FLAGS_READ_ONLY as u32),
            direct_io,
            device,
        })
    }
}

fn node(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

fn config(file: &File, read_only: bool, autoclear: bool) -> Result<loop_config> {
    let mut info = kernel::no_loop_info();
    info.lo_flags = LO_FLAGS_DIRECT_IO as u32;
    if read_only {
        info.lo_flags |= LO_FLAGS_READ_ONLY as u32;
    }
    if autoclear {
        info.lo_flags |= LO_FLAGS_AUTOCLEAR as u32;
    }
    Ok(loop_config {
        fd: u32::try_from(file.as_raw_fd()).context("a descriptor below zero")?,
        block_size: block_size(file)?,
        info,
        __reserved: [0; 8],
    })
}

/// The least block that the file can be read and written in past the page cache; 512 where that is not known.
fn block_size(file: &File) -> Result<u32> {
    let asked = StatxFlags::DIOALIGN;
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, asked)
        .context("asking for the file's alignment")?;
    Ok(match found.stx_dio_offset_align {
        least @ 512..=4096 if least.is_power_of_two() => least,
        _ => 512,
    })
}

fn is_gone(error: &anyhow::Error) -> bool {
    let gone = [libc::ENXIO, libc::ENODEV, libc::ENOENT].map(Some);
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| gone.contains(&error.raw_os_error()))
}
