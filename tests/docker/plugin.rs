//! The real binary as `orlop docker` beside a node, where mounts are nobody else's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use orlop::host::namespace;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::node::Node;
use crate::support::{run, skipped, until};

/// Where Docker looks for the plugin.
pub(crate) const SOCKET: &str = "/run/docker/plugins/orlop.sock";

/// A plugin and its node; dropped, both are killed.
pub(crate) struct Plugin {
    process: Child,
    starter: &'static [&'static str],
    pub(crate) node: Node,
}

/// Runs a test with a plugin in mounts of its own, `/run/docker` among them; skips it, and says so, without the right to
/// that.
pub(crate) fn with_plugin(test: impl FnOnce(Plugin) + Send) {
    with_plugin_started_by(&[], test);
}

/// The same with a plugin that a program starts, with these words before its own.
pub(crate) fn with_plugin_started_by(starter: &'static [&str], test: impl FnOnce(Plugin) + Send) {
    if !rustix::process::geteuid().is_root() {
        skipped("the Docker volume plugin", "it needs root");
        return;
    }
    in_own_mounts(|| {
        let node = Node::start(&[]);
        let plugin = Plugin {
            process: spawn(&node, starter),
            node,
            starter,
        };
        plugin.wait_until_it_serves();
        test(plugin);
    });
}

/// Does this where mounts are nobody else's, and `/run/docker` is empty.
pub(crate) fn in_own_mounts(work: impl FnOnce() + Send) {
    let work = || {
        for directory in ["/run/docker", "/run/containerd"] {
            std::fs::create_dir_all(directory).expect("root may");
            run("mount", ["-t", "tmpfs", "tmpfs", directory]).expect("root may");
        }
        // The engine lives in mounts that follow these.
        run("mount", ["--make-rshared", "/"]).expect("they are ours");
        work();
    };
    namespace::in_own_mounts(work).expect("root may make a mount namespace");
}

impl Plugin {
    /// Calls it as Docker does, and gives its answer.
    #[expect(clippy::unused_self, reason = "only who has one can call it")]
    pub(crate) fn call(&self, verb: &str, body: &Value) -> Result<Value, String> {
        call(verb, body).expect("it serves")
    }

    /// Kills it as a crash would, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.node, self.starter);
        self.wait_until_it_serves();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).expect("it runs");
        let ended = self.process.wait().expect("it is our child");
        assert!(ended.success(), "{ended}: {}", self.log());
    }

    /// Runs `orlop` with the words of this line, as a person would.
    pub(crate) fn orlop(&self, line: &str) {
        let endpoint = self.node.socket.display().to_string();
        let words = line.split_whitespace();
        let words = words.chain(["--endpoint", &endpoint]);
        run(env!("CARGO_BIN_EXE_orlop"), words).expect(line);
    }

    /// A path in the directory of the node, which goes with it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.node.dir.path().join(name)
    }

    fn wait_until_it_serves(&self) {
        assert!(
            until(|| UnixStream::connect(SOCKET).is_ok()),
            "it does not serve:\n{}",
            self.log()
        );
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("docker.log")).unwrap_or_default()
    }

    fn kill(&mut self) {
        // One that ended before is what is wanted.
        let _ = self.process.kill();
        self.process.wait().expect("it is our child");
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the log of the plugin:\n{}", self.log());
        }
    }
}

/// Calls what serves at [`SOCKET`] as Docker does, and gives its answer; an error, if it went away before it gave one.
pub(crate) fn call(verb: &str, body: &Value) -> io::Result<Result<Value, String>> {
    let body = body.to_string();
    let mut stream = UnixStream::connect(SOCKET)?;
    write!(
        stream,
        "POST /{verb} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let body: Value = serde_json::from_str(body).expect(&answer);
    if head.starts_with("HTTP/1.1 200") {
        return Ok(Ok(body));
    }
    Ok(Err(body["Err"].as_str().expect("it says why").to_owned()))
}

fn spawn(node: &Node, starter: &[&str]) -> Child {
    let place = |name: &str| node.dir.path().join(name);
    let log = File::options()
        .create(true)
        .append(true)
        .open(place("docker.log"))
        .expect("the directory can be written");
    let ours = [
        env!("CARGO_BIN_EXE_orlop").into(),
        "docker".into(),
        format!("--endpoint={}", node.socket.display()),
        format!("--mounts={}", place("mounts").display()),
        format!("--staging={}", place("staging").display()),
    ];
    let mut words = starter.iter().map(|word| (*word).to_owned()).chain(ours);
    let program = words.next().expect("there is ours");
    start(Path::new(&program), words, log)
}

/// Starts a program that serves, with its log in a file.
pub(crate) fn start(program: &Path, args: impl IntoIterator<Item = String>, log: File) -> Child {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test starts what it tests, and outlives it"
    )]
    let mut process = std::process::Command::new(program);
    process
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("it is open"))
        .stderr(log)
        .spawn()
        .expect("it is installed")
}
