//! Runs the demo as a person would, and ends it in other ways; whatever becomes of it, nothing may be left.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{LoopFs, skipped};
use tempfile::TempDir;

/// A directory for a demo, whose path no other test has.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().canonicalize().expect("it is there");
    (directory, path)
}

/// Starts the demo in a directory; nothing, and a line that says why, where it can not run.
fn start(place: &Path, args: &[&str]) -> Option<Child> {
    if !rustix::process::geteuid().is_root() {
        skipped("the demo", "it needs root");
        return None;
    }
    if args.is_empty() && !is_installed() {
        skipped(
            "the demo",
            "PostgreSQL is not installed (Debian: apt-get install postgresql)",
        );
        return None;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "a test runs the program as a person does"
    )]
    let started = std::process::Command::new(env!("CARGO_BIN_EXE_orlop"))
        .args(["demo", "--data"])
        .arg(place)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Some(started.expect("it was just built"))
}

fn is_installed() -> bool {
    let by_version = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let versions = by_version.flatten().map(|entry| entry.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    versions
        .chain(std::env::split_paths(&path))
        .any(|programs| programs.join("initdb").exists())
}

/// Waits for its end; gives the exit code and all that it said, to the standard output and error.
fn end(demo: Child) -> (Option<i32>, String, String) {
    let output = demo.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("it says text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Ends the demo by a signal after it has told this much; gives its exit code and the standard error.
fn end_after(mut demo: Child, told: &str, signal: Signal) -> (Option<i32>, String) {
    let output = demo.stdout.take().expect("it is piped");
    let mut lines = BufReader::new(output).lines();
    let found = lines.any(|line| line.expect("it says text").contains(told));
    assert!(found, "it never told: {told}");
    kill_process(Pid::from_child(&demo), signal).expect("it runs");
    lines.for_each(drop);
    let mut error = String::new();
    let errors = demo.stderr.take().expect("it is piped");
    BufReader::new(errors)
        .read_to_string(&mut error)
        .expect("it says text");
    (demo.wait().expect("it ends").code(), error)
}

/// Everything of a demo in this directory that is still on the machine: mounts in the namespace of any process, and so
/// that process too; loop devices.
fn traces(place: &Path) -> Vec<String> {
    let place = place.display().to_string();
    let below = |directory: &str, file: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().join(file)).collect()
    };
    [
        below("/proc", "mountinfo"),
        below("/sys/block", "loop/backing_file"),
    ]
    .concat()
    .into_iter()
    .filter(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&place)))
    .map(|file| file.display().to_string())
    .collect()
}

fn assert_nothing_left(place: &Path) {
    assert_eq!(traces(place), [""; 0]);
    let entries = fs::read_dir(place).expect("it is there").flatten();
    let entries: Vec<_> = entries.map(|entry| entry.path()).collect();
    assert!(entries.is_empty(), "{entries:?}");
}

#[test]
fn the_rows_come_back_and_nothing_is_left() {
    let (_directory, place) = place();
    let Some(demo) = start(&place, &[]) else {
        return;
    };

    let (code, told, error) = end(demo);

    assert_eq!((code, &*error), (Some(0), ""), "{told}");
    let lines = [
        "volume created: default/cargo of 128 MiB",
        "written: 10,000 rows",
        "snapshot taken of",
        "pod 1 died",
        "the rows are there: 10,000 rows",
        "the rows are deleted: 0 left",
        "snapshot restored: default/restored of 256 MiB",
        "the rows are back: 10,000 rows",
        "all deleted",
        "Shown:",
        "Next:",
    ];
    let mut rest = &*told;
    for line in lines {
        let after = rest.split_once(line);
        rest = after
            .unwrap_or_else(|| panic!("no {line:?}, or out of order, in\n{told}"))
            .1;
    }
    assert_nothing_left(&place);
}

#[test]
fn it_runs_on_other_filesystems_too() {
    for kind in ["xfs", "btrfs"] {
        let Some(filesystem) = LoopFs::new(kind) else {
            continue;
        };
        let place = filesystem.path().join("place");
        fs::create_dir(&place).expect("the filesystem is empty");
        let Some(demo) = start(&place, &[]) else {
            return;
        };

        let (code, told, error) = end(demo);

        assert_eq!((code, &*error), (Some(0), ""), "on {kind}:\n{told}");
        assert_nothing_left(&place);
    }
}

#[test]
fn a_signal_in_the_middle_leaves_nothing() {
    // The first comes while PostgreSQL initialises its data, the second while it serves.
    let moments = [
        ("pod 1 sees it", Signal::TERM),
        ("PostgreSQL started in pod 2", Signal::INT),
    ];
    for (moment, signal) in moments {
        let (_directory, place) = place();
        let Some(demo) = start(&place, &[]) else {
            return;
        };

        let (code, error) = end_after(demo, moment, signal);

        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains("stopped by a signal"), "{error}");
        assert_nothing_left(&place);
    }
}

#[test]
fn even_kill_9_leaves_neither_processes_nor_mounts() {
    let (_directory, place) = place();
    let Some(demo) = start(&place, &[]) else {
        return;
    };

    end_after(demo, "PostgreSQL started in pod 1", Signal::KILL);

    let limit = Instant::now() + Duration::from_secs(10);
    while !traces(&place).is_empty() && Instant::now() < limit {
        std::thread::yield_now();
    }
    assert_eq!(traces(&place), [""; 0]);
}

#[test]
fn a_step_that_fails_is_told_and_leaves_nothing() {
    let (_directory, place) = place();
    let programs = tempfile::tempdir_in("/var/tmp").expect("a directory can be made");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&programs, executable.clone()).expect("it is ours");
    for (name, words) in [
        ("postgres", "echo postgres (PostgreSQL) 99"),
        ("initdb", "echo the disk is on fire >&2; exit 3"),
    ] {
        let program = programs.path().join(name);
        fs::write(
            &program,
            format!("#!/bin/sh\n{words}\n")
                .replace('(', "\\(")
                .replace(')', "\\)"),
        )
        .expect("it can be written");
        fs::set_permissions(&program, executable.clone()).expect("it is ours");
    }
    let programs = programs.path().to_str().expect("its name is text");
    let Some(demo) = start(&place, &["--postgres", programs]) else {
        return;
    };

    let (code, told, error) = end(demo);

    assert_eq!(code, Some(1));
    assert!(told.contains("✗ initialising PostgreSQL's data"), "{told}");
    assert!(
        error.contains("exit status: 3: the disk is on fire"),
        "{error}"
    );
    assert_nothing_left(&place);
}

#[test]
fn what_is_missing_is_told_with_what_to_do() {
    let (_directory, place) = place();
    let Some(demo) = start(&place, &["--postgres", "/nowhere"]) else {
        return;
    };

    let (code, _, error) = end(demo);

    assert_eq!(code, Some(1));
    assert!(error.contains("apt-get install postgresql"), "{error}");
    assert_nothing_left(&place);
}
