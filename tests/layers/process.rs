//! The binary itself, beside the caches within the tests.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cache::client;
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
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The whole answer, asked for until somebody listens; nothing if it was cut off.
pub(crate) async fn ask(url: String) -> Option<Vec<u8>> {
    let client = client();
    for _ in 0..400 {
        match client.get(&url).send().await {
            Ok(answer) if answer.status() == 200 => return Some(answer.bytes().await.ok()?.into()),
            Ok(_) => return None,
            // Nobody listens yet, or not any more.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    None
}
