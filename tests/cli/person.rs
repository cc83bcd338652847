//! A person who types commands, with a node of their own.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::node::Node;

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A person with a node.
pub(crate) struct Person {
    pub(crate) node: Node,
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect(&self.err)
    }

    /// The cells of a table, which are two spaces or more apart.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let cells = |line: &str| {
            let cells = line.split("  ").map(str::trim);
            let filled = cells.filter(|cell| !cell.is_empty());
            filled.map(str::to_owned).collect()
        };
        self.out.lines().map(cells).collect()
    }
}

impl Person {
    pub(crate) fn new(args: &[&str]) -> Self {
        let node = Node::start(args);
        Self { node }
    }

    /// Runs `orlop` with the words of this line and its node.
    pub(crate) fn tries(&self, line: &str) -> Ran {
        let staging = self.path("staging");
        let words = line.split_whitespace();
        let words = words.map(|word| word.replace('~', &self.path("").display().to_string()));
        let remote = [
            "--endpoint".to_owned(),
            self.node.socket.display().to_string(),
        ];
        orlop(words.chain(remote), &staging)
    }

    pub(crate) fn runs(&self, line: &str) -> Ran {
        let ran = self.tries(line);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        ran
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.node.dir.path().join(name)
    }
}

pub(crate) fn orlop(args: impl IntoIterator<Item = String>, staging: &Path) -> Ran {
    #[expect(clippy::disallowed_methods, reason = "a test starts what it tests")]
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_orlop"));
    let output = process
        .args(args)
        .env("ORLOP_STAGING", staging)
        .env_remove("CSI_ENDPOINT")
        .output()
        .expect("cargo built the binary");
    Ran {
        code: output.status.code().expect("nobody killed it"),
        out: String::from_utf8(output.stdout).expect("it prints text"),
        err: String::from_utf8(output.stderr).expect("it prints text"),
    }
}
