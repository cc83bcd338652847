//! What runs in the guest: the binaries of the tests and Orlop itself, as the same cargo built them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::run;

/// Where cargo put the binary that the tests start, and where they look for it in the guest too.
const ORLOP: &str = env!("CARGO_BIN_EXE_orlop");

/// Builds upstream's suite, and says where.
const SANITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sanity/build.sh");

/// How the names of those begin that are parts of other trials.
const APART: [&str; 3] = ["figures::", "many::", "power::"];

/// A test target, built.
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) binary: PathBuf,
    /// The names of its ignored tests.
    pub(crate) tests: Vec<String>,
}

/// A disk with the binaries on it.
pub(crate) struct Payload {
    directory: TempDir,
}

/// Builds these targets, which is nothing to do if they are tested too, and asks them for their ignored tests.
pub(crate) fn suites(names: &[&str]) -> Result<Vec<Suite>> {
    let mut arguments = vec!["test", "--locked", "--no-run", "--message-format=json"];
    if !cfg!(debug_assertions) {
        arguments.push("--release");
    }
    arguments.extend(names.iter().flat_map(|name| ["--test", name]));
    let arguments = arguments.into_iter().map(str::to_owned);
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let messages = run(
        "env",
        without_this_package().chain([cargo]).chain(arguments),
    )?;
    names
        .iter()
        .map(|name| Suite::among(&messages, name))
        .collect()
}

/// Unsets what cargo tells a test of its package: a build script that reads the same would run again, and all that depends
/// on it would be built again, now and by the next cargo.
fn without_this_package() -> impl Iterator<Item = String> {
    let of_package = |name: &String| {
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "OUT_DIR"
    };
    let names = std::env::vars().map(|(name, _)| name).filter(of_package);
    names.map(|name| format!("--unset={name}"))
}

impl Suite {
    fn among(messages: &str, name: &str) -> Result<Self> {
        let binary = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["target"]["name"] == name)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .with_context(|| format!("cargo built no test target {name}"))?;
        let listed = run(&text(&binary)?, ["--list", "--ignored", "--format=terse"])?;
        let tests = listed
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .filter(|test| !APART.iter().any(|apart| test.starts_with(apart)));
        Ok(Self {
            name: name.to_owned(),
            tests: tests.map(str::to_owned).collect(),
            binary,
        })
    }
}

impl Payload {
    /// Packs the binaries, without what only a debugger needs.
    pub(crate) fn pack(suites: &[Suite]) -> Result<Self> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let content = directory.path().join("content");
        fs::create_dir(&content)?;
        let binaries = suites
            .iter()
            .map(|suite| (suite.name.as_str(), suite.binary.as_path()));
        for (name, binary) in binaries.chain([("orlop", Path::new(ORLOP))]) {
            let packed = content.join(name);
            let strip = [
                OsStr::new("--strip-debug"),
                "-o".as_ref(),
                packed.as_ref(),
                binary.as_ref(),
            ];
            run("strip", strip)?;
        }
        if suites.iter().any(|suite| suite.name == "sanity") {
            let program = run("sh", [SANITY]).context("building csi-sanity, which needs Go")?;
            fs::copy(program.trim(), content.join("csi-sanity"))?;
        }
        fs::write(content.join("links"), format!("orlop\t{ORLOP}\n"))?;
        let payload = Self { directory };
        run(
            "mkfs.erofs",
            [
                OsStr::new("--quiet"),
                payload.disk().as_ref(),
                content.as_ref(),
            ],
        )?;
        fs::remove_dir_all(content)?;
        Ok(payload)
    }

    /// The disk.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory.path().join("payload.erofs")
    }
}

/// Runs a test on this machine: whether it passed, and what it said.
pub(crate) fn run_here(binary: &Path, arguments: &[&str]) -> Result<(bool, String)> {
    #[expect(clippy::disallowed_methods, reason = "a test runner starts tests")]
    let output = std::process::Command::new(binary)
        .args(arguments)
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    ensure!(text.is_some(), "{} is no text", path.display());
    text.context("it is text")
}
