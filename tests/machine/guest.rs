//! The guest: a stock Debian in QEMU, whose processor is emulated, so that it runs anywhere.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::payload::Payload;

/// How long a boot may take: seven seconds on an idle machine, a minute on a busy one.
const BOOT: Duration = Duration::from_mins(5);

/// Empty disks, `/dev/disk/serial/test1` and so on, and their size, of which only what is written takes room.
const DISKS: [&str; 4] = ["test1", "test2", "test3", "test4"];
const DISK: u64 = 16 << 30;

/// How much of its console is shown when a guest hangs.
const END_OF_CONSOLE: usize = 3000;

/// What is booted; slow to build, so kept.
pub(crate) struct Image(PathBuf);

impl Image {
    /// Builds the guest, or finds it.
    ///
    /// # Errors
    /// This machine can not, and why.
    pub(crate) fn build() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine/build.sh");
        let mut building = command(&script)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        for line in BufReader::new(building.stderr.take().context("it is piped")?).lines() {
            said = line?;
            eprintln!("{said}");
        }
        let mut place = String::new();
        building
            .stdout
            .take()
            .context("it is piped")?
            .read_to_string(&mut place)?;
        match building.wait()?.code() {
            Some(0) => Ok(Self(place.trim().into())),
            Some(75) => bail!(said),
            code => bail!("{} failed ({code:?}): {said}", script.display()),
        }
    }
}

/// The disks of a guest, which can outlive it.
#[derive(Clone)]
pub(crate) struct Disks(Arc<TempDir>);

impl Disks {
    /// Blank ones.
    pub(crate) fn blank() -> Result<Self> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        for serial in DISKS {
            File::create(directory.path().join(serial))?.set_len(DISK)?;
        }
        Ok(Self(Arc::new(directory)))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A running guest; dropped, its power is cut.
pub(crate) struct Guest {
    process: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
    disks: Disks,
}

impl Guest {
    /// Boots one with these disks, and waits until it takes orders.
    pub(crate) fn boot(image: &Image, payload: &Payload, disks: &Disks) -> Result<Self> {
        let mut process = qemu(image, payload, disks.path())?;
        let orders = process.stdin.take().context("it is piped")?;
        let lines = lines_of(process.stdout.take().context("it is piped")?);
        let mut guest = Self {
            process,
            orders,
            lines,
            disks: disks.clone(),
        };
        let started = Instant::now();
        loop {
            let line = guest.line(BOOT.saturating_sub(started.elapsed()))?;
            if line.starts_with("orlop-ready") {
                eprintln!("machine: {} (booted in {:.0?})", line, started.elapsed());
                return Ok(guest);
            }
        }
    }

    /// Runs a command line: its exit code and what it printed.
    ///
    /// # Errors
    /// It took longer than the limit, or the guest died. The guest is of no use then; the end of its console is told.
    pub(crate) fn run(&mut self, command: &str, limit: Duration) -> Result<(i32, String)> {
        self.order(command)?;
        let (started, mut output) = (Instant::now(), String::new());
        loop {
            let line = self
                .line(limit.saturating_sub(started.elapsed()))
                .with_context(|| format!("what it printed until then:\n{output}"))?;
            match line.strip_prefix("orlop-exit ") {
                Some(code) => return Ok((code.parse().context("an exit code")?, output)),
                None => output = output + &line + "\n",
            }
        }
    }

    /// Runs a command line, and prints what it says as it comes; gives its exit code.
    ///
    /// # Errors
    /// As those of [`Guest::run`]; the limit is that of each line.
    pub(crate) fn show(&mut self, command: &str, limit: Duration) -> Result<i32> {
        self.order(command)?;
        let mut shown = std::io::stdout().lock();
        loop {
            let line = self.line(limit)?;
            if let Some(code) = line.strip_prefix("orlop-exit ") {
                return code.parse().context("an exit code");
            }
            writeln!(shown, "{line}").context("the standard output is closed")?;
        }
    }

    /// Starts a command line, whose output comes by [`Guest::line`].
    pub(crate) fn order(&mut self, command: &str) -> Result<()> {
        writeln!(self.orders, "{command}").and_then(|()| self.orders.flush())?;
        Ok(())
    }

    /// Cuts its power; gives what it had said until then and nobody had heard yet.
    pub(crate) fn cut(mut self) -> Result<Vec<String>> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(self.lines.iter().collect())
    }

    /// The next line that it says.
    ///
    /// # Errors
    /// As those of [`Guest::run`].
    pub(crate) fn line(&mut self, limit: Duration) -> Result<String> {
        self.heard(limit)?
            .ok_or_else(|| self.console("the guest hangs"))
    }

    /// The next line that it says within the limit, if it does.
    ///
    /// # Errors
    /// It died.
    pub(crate) fn heard(&mut self, limit: Duration) -> Result<Option<String>> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.console("the guest died")),
        }
    }

    fn console(&self, what: &str) -> anyhow::Error {
        let console = fs::read(self.disks.path().join("console")).unwrap_or_default();
        let end = &console[console.len().saturating_sub(END_OF_CONSOLE)..];
        let end = String::from_utf8_lossy(end);
        anyhow::anyhow!("{what}; the end of its console:\n{end}")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // What it has not written to its disks, nobody wants.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn qemu(Image(image): &Image, payload: &Payload, directory: &Path) -> Result<Child> {
    let mut qemu = command(Path::new("setpriv"));
    // It goes with the thread that boots it, however that ends; those live as long as the harness.
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    // The machine type q35, not microvm, which hangs in one boot of seven. Of the processor no more than tests need:
    // what `max` has above it makes each start of a program dearer to emulate.
    qemu.args([
        "-machine", "q35", "-accel", "tcg", "-cpu", "Westmere", "-smp", "1", "-m", "2048",
    ])
    .args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-nic",
        "none",
    ])
    .arg("-kernel")
    .arg(image.join("vmlinuz"))
    .arg("-initrd")
    .arg(image.join("stage1.cpio"))
    // An emulated timer that a busy machine delays is no broken one: the kernel must not look, and panic. Code that
    // lies elsewhere in each process is translated anew for each (norandmaps).
    .args([
        "-append",
        "console=ttyS0 quiet panic=-1 no_timer_check norandmaps mitigations=off apparmor=0 audit=0 rcupdate.rcu_expedited=1",
    ])
    .arg("-chardev")
    .arg(option("file,id=console,path=", &directory.join("console")))
    .args([
        "-serial",
        "chardev:console",
        "-device",
        "virtio-serial-pci",
        "-device",
        "virtio-rng-pci",
    ])
    .args([
        "-chardev",
        "stdio,id=orders,signal=off",
        "-device",
        "virtserialport,chardev=orders,name=orlop",
    ]);
    let mut disk = |serial: &str, file: &Path, how: &str| {
        let drive = option(&format!("if=none,id={serial},format=raw,{how},file="), file);
        qemu.arg("-drive").arg(drive).args([
            "-device",
            &format!("virtio-blk-pci,drive={serial},serial={serial}"),
        ]);
    };
    disk("root", &image.join("root.erofs"), "readonly=on");
    disk("modules", &image.join("modules.erofs"), "readonly=on");
    disk("payload", &payload.disk(), "readonly=on");
    for serial in DISKS {
        disk(
            serial,
            &directory.join(serial),
            "cache=unsafe,discard=unmap",
        );
    }
    qemu.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting QEMU")
}

/// A value of QEMU's command line, in which a comma is doubled.
fn option(start: &str, path: &Path) -> String {
    start.to_owned() + &path.display().to_string().replace(',', ",,")
}

/// The lines that come, read on a thread of their own, so that waiting for one can end.
fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test runner starts its guest, and talks with it"
)]
fn command(program: &Path) -> std::process::Command {
    std::process::Command::new(program)
}
