//! What tests of pools and of the machine share: filesystems on loop files, tools, and a node to talk to.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod bare_disk;
pub(crate) mod form;
pub(crate) mod home;
mod tank;
pub(crate) mod verbs;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use orlop::host::FileId;
use orlop::host::gate::Gate;
use orlop::host::loop_device::LoopDevices;

/// The specs of csi-sanity for which something of a volume must be mutable.
pub(crate) const SPECS_THAT_MODIFY: &str =
    "should (fail to )?modify a volume|should create volume with a volume attribute class";

/// A new filesystem, mounted until it is dropped.
pub(crate) struct LoopFs {
    mount: PathBuf,
    directory: Option<tempfile::TempDir>,
}

impl LoopFs {
    /// Makes and mounts one of 512 MiB: `ext4`, `xfs` (with reflink), `btrfs` or `tmpfs`.
    ///
    /// Nothing, and a line that says why, where this machine can not.
    pub(crate) fn new(kind: &str) -> Option<Self> {
        Self::of_size(kind, 512 << 20)
    }

    /// One of this many bytes, of which only those that are written take room.
    pub(crate) fn of_size(kind: &str, size: u64) -> Option<Self> {
        Self::make(kind, size, &[], "loop,noatime")
    }

    /// One that keeps to quotas of projects: `ext4` or `xfs`.
    pub(crate) fn with_quota(kind: &str, size: u64) -> Option<Self> {
        let options: &[&str] = match kind {
            "ext4" => &["-Oquota,project", "-Equotatype=prjquota"],
            _ => &[],
        };
        Self::make(kind, size, options, "loop,noatime,prjquota")
    }

    fn make(kind: &str, size: u64, options: &[&str], mounted: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped(&format!("a test on {kind}"), "mounting needs root");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let image = directory.path().join("image");
        let mount = directory.path().join("mount");
        std::fs::create_dir(&mount).expect("the directory is new");
        File::create(&image)
            .and_then(|file| file.set_len(size))
            .expect("a sparse file can be made");
        let made = if kind == "tmpfs" {
            let options = format!("-onoatime,size={size}");
            let tmpfs = [OsStr::new("-ttmpfs"), options.as_ref(), "tmpfs".as_ref()];
            run("mount", tmpfs.into_iter().chain([mount.as_ref()]))
        } else {
            let options = options.iter().map(OsStr::new);
            let make = options.chain([OsStr::new("-q"), image.as_ref()]);
            run(&format!("mkfs.{kind}"), make).and_then(|_| {
                let options = [OsStr::new("-o"), mounted.as_ref(), image.as_ref()];
                run("mount", options.into_iter().chain([mount.as_ref()]))
            })
        };
        if let Err(reason) = made {
            skipped(&format!("a test on {kind}"), &format!("{reason:#}"));
            return None;
        }
        let directory = Some(directory);
        Some(Self { mount, directory })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// A new directory in it.
    pub(crate) fn directory(&self, name: &str) -> Directory {
        let path = self.mount.join(name);
        std::fs::create_dir(&path).expect("the name is new");
        Directory::open(&path)
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        // Those that a failed test left; one that is mounted clears itself with its mount.
        let loops = LoopDevices::new(Gate::open());
        for (file, _) in loops_below(&self.mount) {
            let _ = loops.detach(file);
        }
        let gone = run("umount", [self.mount.as_os_str()])
            .or_else(|_| run("umount", [OsStr::new("--lazy"), self.mount.as_ref()]));
        if let Err(reason) = gone {
            eprintln!("{} stays behind: {reason:#}", self.mount.display());
            self.directory.take().map(tempfile::TempDir::keep);
        }
    }
}

/// A process that ends with its test.
pub(crate) struct Killed(pub(crate) std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory with its path.
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    file: File,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> Self {
        let file = File::open(path).expect("the directory is there");
        let path = path.to_owned();
        Self { path, file }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The loop devices whose files are below a directory, and those files.
pub(crate) fn loops_below(directory: &Path) -> Vec<(FileId, PathBuf)> {
    let all = LoopDevices::new(Gate::open()).all();
    let path_of = |number| {
        let told = std::fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file"));
        Some(PathBuf::from(told.ok()?.trim_end()))
    };
    let all = all.expect("the loop devices can be listed").into_iter();
    all.filter_map(|(file, number)| Some((file, path_of(number)?)))
        .filter(|(_, path)| path.starts_with(directory))
        .collect()
}

/// Waits until something is so; false if it is not within half a minute.
pub(crate) fn until(is_so: impl Fn() -> bool) -> bool {
    let limit = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        if Instant::now() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Whether tests may take long: `make test-long` says so by `ORLOP_LONG=1`.
pub(crate) fn takes_long() -> bool {
    std::env::var("ORLOP_LONG").is_ok_and(|value| value == "1")
}

/// Says that something was not tested, past the capture of the test harness.
pub(crate) fn skipped(what: &str, reason: &str) {
    tell(&format!("SKIPPED: {what}, because {reason}"));
}

/// Says something past the capture of the test harness.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs a tool of the machine, and gives what it printed.
pub(crate) fn run<A: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = A>,
) -> Result<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test prepares the machine with its own tools"
    )]
    let output = std::process::Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("{program} does not start"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a server of HTTP answers to who asks for this page, head and body.
pub(crate) fn get(address: &str, page: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody serves");
    let request = format!("GET /{page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("it answers in text");
    answer
}
