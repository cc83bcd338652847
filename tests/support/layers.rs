//! A layer cache beside a node, with some of everything that it counts.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use orlop::layers::image::digest::Digest;

use crate::support::{Killed, get, until};

/// What it serves.
const BLOB: &[u8] = b"a layer";

/// A cache that has one blob on its disk, and whose registry is not there.
pub(crate) struct Layers {
    _process: Killed,
    mirror: String,
    /// Where it is scraped.
    pub(crate) address: String,
}

impl Layers {
    /// One that keeps what it has in `folder`.
    pub(crate) fn start(folder: &Path) -> Self {
        let file = folder.join("blobs").join(Digest::of(BLOB).path());
        fs::create_dir_all(file.parent().expect("it lies in a folder")).expect("it is ours");
        fs::write(file, BLOB).expect("it is ours");
        let [mirror, address] = [(); 2].map(|()| free());
        #[expect(clippy::disallowed_methods, reason = "a test starts what it tests")]
        let process = std::process::Command::new(env!("CARGO_BIN_EXE_orlop"))
            .args(["layers", "--anyone", "--listen", &mirror])
            .args(["--metrics", &address])
            .arg("--cache")
            .arg(folder)
            .stderr(Stdio::null())
            .spawn();
        let process = Killed(process.expect("cargo built the binary"));
        let serves = || std::net::TcpStream::connect(&*mirror).is_ok();
        assert!(until(serves), "the mirror does not serve");
        let layers = Self {
            _process: process,
            mirror,
            address,
        };
        layers.work();
        layers
    }

    /// Serves its blob, and fails to get another.
    pub(crate) fn work(&self) {
        for (blob, status) in [(BLOB, "200"), (b"another", "503")] {
            let page = format!("v2/a/b/blobs/{}?ns=127.0.0.1:1", Digest::of(blob));
            let answer = get(&self.mirror, &page);
            let begun = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&begun), "{answer}");
        }
    }

    pub(crate) fn scrape(&self) -> String {
        let answer = get(&self.address, "metrics");
        let (_, body) = answer.split_once("\r\n\r\n").expect("it has a body");
        body.to_owned()
    }
}

/// An address on which nobody listens.
fn free() -> String {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    port.expect("a port is free").to_string()
}
