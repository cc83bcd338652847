//! A Docker Engine of the test's own, in processes and mounts that end with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};

use crate::plugin::{Plugin, start, with_plugin};
use crate::support::{run, skipped, until};

/// A running engine, with the plugin beside it or with another thing that it needs; dropped, it is killed, and with it all
/// its containers.
pub(crate) struct Engine<P = Plugin> {
    process: Child,
    directory: PathBuf,
    pub(crate) plugin: P,
}

/// Runs a test with an engine; skips it, and says so, where there can be none.
pub(crate) fn with_engine(what: &str, test: impl FnOnce(Engine) + Send) {
    if is_installed(what) {
        with_plugin(|plugin| {
            let directory = plugin.path("engine");
            test(Engine::start(directory, plugin));
        });
    }
}

/// Whether there is an engine; says so, if not.
pub(crate) fn is_installed(what: &str) -> bool {
    let is = run("dockerd", ["--version"]).is_ok();
    if !is {
        let reason = "there is no Docker Engine (Debian: apt-get install docker.io)";
        skipped(what, reason);
    }
    is
}

impl<P> Engine<P> {
    /// Starts one in this directory, which it makes.
    pub(crate) fn start(directory: PathBuf, plugin: P) -> Self {
        fs::create_dir(&directory).expect("it is new");
        let process = spawn(&directory);
        let engine = Self {
            process,
            directory,
            plugin,
        };
        engine.wait_until_it_serves();
        engine
    }

    /// Runs `docker` with the words of this line; the last is taken as it is after ` -- `.
    pub(crate) fn tries(&self, line: &str) -> Result<String> {
        let (words, last) = match line.split_once(" -- ") {
            Some((words, last)) => (words, Some(last)),
            None => (line, None),
        };
        let host = format!("--host={}", self.host());
        let words = words.split_whitespace().chain(last);
        let said = run("docker", std::iter::once(&*host).chain(words))?;
        Ok(said.trim().to_owned())
    }

    /// The same of what must not fail.
    pub(crate) fn docker(&self, line: &str) -> String {
        self.tries(line).expect(line)
    }

    /// Makes an image of the files in a directory.
    pub(crate) fn import(&self, root: &Path, name: &str) {
        let archive = self.directory.join(format!("{name}.tar"));
        let tar = [
            "-C".as_ref(),
            root.as_os_str(),
            "-cf".as_ref(),
            archive.as_os_str(),
            ".".as_ref(),
        ];
        run("tar", tar).expect("there is room");
        self.docker(&format!("import {} {name}", archive.display()));
    }

    /// Asks it to stop, which ends its containers, and starts it again.
    pub(crate) fn restart(&mut self) {
        let engine = self.pid().expect("it runs");
        kill_process(engine, Signal::TERM).expect("it runs");
        self.process.wait().expect("it is our child");
        self.start_again();
    }

    fn start_again(&mut self) {
        let _ = fs::remove_file(self.directory.join("pid"));
        self.process = spawn(&self.directory);
        self.wait_until_it_serves();
    }

    fn wait_until_it_serves(&self) {
        assert!(
            until(|| self.tries("info").is_ok()),
            "it does not serve:\n{}",
            self.log()
        );
    }

    /// The engine's own process; ours only waits for it.
    fn pid(&self) -> Option<Pid> {
        let parent = self.process.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        Pid::from_raw(children.ok()?.split_whitespace().next()?.parse().ok()?)
    }

    fn kill(&mut self) {
        if let Some(engine) = self.pid() {
            // One that ended before is what is wanted.
            let _ = kill_process(engine, Signal::KILL);
        }
        self.process.wait().expect("it is our child");
    }

    fn host(&self) -> String {
        format!("unix://{}/sock", self.directory.display())
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(50).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl<P> Drop for Engine<P> {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the log of the engine:\n{}", self.log());
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            remove_cgroups(&hierarchy.path().join(cgroup(&self.directory)));
        }
    }
}

/// The engine is process 1 of its own: with it all its containers end.
fn spawn(directory: &Path) -> Child {
    let place = |name: &str| directory.join(name).display().to_string();
    let log = File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .expect("the directory can be written");
    let unshare = "--pid --fork --kill-child --mount-proc --propagation slave dockerd --bridge=none --iptables=false \
                   --ip6tables=false --ip-masq=false --ip-forward=false --userland-proxy=false --oom-score-adjust=0";
    let places = [
        format!("--data-root={}", place("data")),
        format!("--exec-root={}", place("exec")),
        format!("--pidfile={}", place("pid")),
        format!("--host=unix://{}", place("sock")),
        format!("--cgroup-parent=/{}", cgroup(directory)),
    ];
    let words = unshare.split_whitespace().map(str::to_owned);
    start(Path::new("unshare"), words.chain(places), log)
}

/// The control group of all containers of one engine.
fn cgroup(directory: &Path) -> String {
    let node = directory.parent().and_then(Path::file_name);
    node.expect("it is in the node's directory")
        .to_string_lossy()
        .into_owned()
}

/// Removes a control group without processes, and those in it.
fn remove_cgroups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
