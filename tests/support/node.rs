//! The real binary as `orlop node`, on a socket in a temporary directory.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use orlop::host::FileId;
use orlop::host::gate::Gate;
use orlop::host::loop_device::LoopDevices;
use orlop::host::mount::Mounts;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running node; dropped, it is killed, and what it mounted or attached beneath its directory goes too.
///
/// Started on a thread of `namespace::in_own_mounts`, it mounts there.
pub(crate) struct Node {
    /// Where it serves.
    pub(crate) socket: PathBuf,
    /// A directory of its own, also for the paths of the test; goes with it.
    pub(crate) dir: TempDir,
    role: &'static str,
    args: Vec<String>,
    env: Vec<(String, String)>,
    process: Child,
}

impl Node {
    /// Starts one with these arguments, and waits until it serves. Its pool is `dir/data/default`, unless they say
    /// `--data` or `--pools`; its log is `dir/log`.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_in(new_dir(), "node", args, &[])
    }

    /// The same in another role that serves on a socket.
    #[allow(dead_code, reason = "few tests have another role")]
    pub(crate) fn start_as(role: &'static str, args: &[&str]) -> Self {
        Self::start_in(new_dir(), role, args, &[])
    }

    /// The same with variables in its environment.
    #[allow(dead_code, reason = "few tests tell by variables")]
    pub(crate) fn start_with(role: &'static str, args: &[&str], env: &[(String, String)]) -> Self {
        Self::start_in(new_dir(), role, args, env)
    }

    fn start_in(dir: TempDir, role: &'static str, args: &[&str], env: &[(String, String)]) -> Self {
        let mut args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
        if role == "node" && !args.iter().any(|arg| arg == "--data" || arg == "--pools") {
            let data = dir.path().join("data");
            args.extend(["--data".to_owned(), data.display().to_string()]);
        }
        let socket = dir.path().join("csi.sock");
        let process = spawn(role, &socket, &args, env, dir.path());
        let mut node = Self {
            socket,
            dir,
            role,
            args,
            env: env.to_vec(),
            process,
        };
        node.wait_until_it_serves();
        node
    }

    /// Starts it again, after [`Node::stop`] or [`Node::kill`], with the same arguments on the same socket.
    #[allow(dead_code, reason = "not every test that has a node restarts it")]
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(
            self.role,
            &self.socket,
            &self.args,
            &self.env,
            self.dir.path(),
        );
        self.wait_until_it_serves();
    }

    /// A connection to it.
    #[allow(dead_code, reason = "not every test that has a node calls it itself")]
    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("unix://{}", self.socket.display()))
            .expect("tonic reads unix endpoints")
            .connect()
            .await
            .expect("it serves")
    }

    /// The number of its process.
    #[allow(
        dead_code,
        reason = "not every test that has a node looks at its process"
    )]
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to stop, and waits for its end.
    #[allow(dead_code, reason = "not every test that has a node stops it")]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("it runs");
        self.end()
    }

    /// Waits until it ends.
    #[allow(dead_code, reason = "few that have a node wait for its end")]
    pub(crate) fn end(&mut self) -> ExitStatus {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait().expect("it is our child") {
                return status;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("it does not end:\n{}", self.log());
    }

    /// Kills it as a crash would, and waits for its end.
    pub(crate) fn kill(&mut self) {
        // One that ended before is what is wanted.
        let _ = self.process.kill();
        self.process.wait().expect("it is our child");
    }

    /// What it logged since it was first started.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_of(self.dir.path())).unwrap_or_default()
    }

    fn wait_until_it_serves(&mut self) {
        let started = Instant::now();
        while UnixStream::connect(&self.socket).is_err() {
            let ended = self.process.try_wait().expect("it is our child");
            assert!(
                ended.is_none() && started.elapsed() < PATIENCE,
                "it does not serve ({ended:?}):\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("the log of the node:\n{}", self.log());
        }
        let mounts = Mounts::new(Gate::open()).all().unwrap_or_default();
        for mount in mounts.iter().rev() {
            if mount.target.starts_with(self.dir.path()) {
                let _ = unmount(&mount.target, UnmountFlags::DETACH);
            }
        }
        detach_all_beneath(self.dir.path());
    }
}

fn new_dir() -> TempDir {
    tempfile::Builder::new()
        .prefix("orlop-node-")
        .tempdir()
        .expect("the temporary directory can be written")
}

fn spawn(
    role: &str,
    socket: &Path,
    args: &[String],
    env: &[(String, String)],
    dir: &Path,
) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_of(dir))
        .expect("the directory can be written");
    #[expect(
        clippy::disallowed_methods,
        reason = "a test starts what it tests, and outlives it"
    )]
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_orlop"));
    process
        .arg(role)
        .arg("--endpoint")
        .arg(socket)
        .args(args)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("it is open"))
        .stderr(log)
        .spawn()
        .expect("cargo built the binary")
}

fn log_of(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Detaches the images of all pools beneath `dir` from their loop devices.
fn detach_all_beneath(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            detach_all_beneath(&path);
        } else if entry.file_name() == "image"
            && let Ok(file) = File::open(&path).and_then(|file| Ok(FileId::of(file)?))
        {
            let _ = LoopDevices::new(Gate::open()).detach(file);
        }
    }
}
