//! A cache as a node runs it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::upstream::Upstream;

/// A cache in a process of its own, as a node runs it.
pub(crate) struct Process {
    process: Child,
    pub(crate) url: String,
}

impl Process {
    /// One of `registry.test` that keeps what it has in a folder, started with some more.
    pub(crate) fn start(
        upstream: &Upstream,
        folder: &Path,
        more: impl FnOnce(&mut Command),
    ) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = port.local_addr().expect("it listens");
        drop(port);
        #[expect(
            clippy::disallowed_methods,
            reason = "a daemon outlives the call that starts it"
        )]
        let mut command = Command::new(env!("CARGO_BIN_EXE_orlop"));
        command
            .args(["layers", "--anyone", "--log", "error"])
            .args(["--listen", &address.to_string()])
            .arg("--cache")
            .arg(folder)
            .args(["--upstream", &format!("registry.test={}", upstream.url)])
            .stderr(Stdio::null());
        more(&mut command);
        let process = command.spawn().expect("it starts");
        let url = format!("http://{address}");
        Self { process, url }
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
