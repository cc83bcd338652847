//! Node and plugin in one process, as the managed plugin has it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::plugin::{SOCKET, call, in_own_mounts, start};
use crate::support::{Killed, run, skipped, until};

/// Who mount and unmount at once.
const HANDS: usize = 8;

/// A directory for all that one process has.
struct Place(TempDir);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("csi.sock")
    }

    /// Starts it, and waits until Docker could call.
    fn start(&self) -> Killed {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("the directory can be written");
        let said = [
            ("endpoint", self.socket()),
            ("data", self.path("data")),
            ("mounts", self.path("mounts")),
            ("staging", self.path("staging")),
        ];
        let said = said.map(|(name, path)| format!("--{name}={}", path.display()));
        let words = ["docker".to_owned(), "--with-node".to_owned()];
        let orlop = Path::new(env!("CARGO_BIN_EXE_orlop"));
        let process = Killed(start(orlop, words.into_iter().chain(said), log));
        let serves = || call("Plugin.Activate", &json!({})).is_ok();
        assert!(until(serves), "it does not serve:\n{}", self.log());
        process
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

/// Runs a test in a place of its own; skips it, and says so, without the right to that.
fn alone(test: impl FnOnce(&Place) + Send) {
    if !rustix::process::geteuid().is_root() {
        return skipped("node and Docker plugin in one process", "it needs root");
    }
    in_own_mounts(|| test(&Place(tempfile::tempdir().expect("there is room"))));
}

fn volume(verb: &str, name: &str) -> Value {
    let body = json!({"Name": name, "ID": "a", "Opts": {"size": "16MiB"}});
    let answer = call(&format!("VolumeDriver.{verb}"), &body).expect("it serves");
    answer.expect(verb)
}

fn end(process: &mut Child) {
    kill_process(Pid::from_child(process), Signal::TERM).expect("it runs");
    let ended = process.wait().expect("it is our child");
    assert!(ended.success(), "{ended}");
}

#[test]
fn one_process_is_node_and_plugin_and_ends_as_one() {
    alone(|place| {
        let mut first = place.start();
        volume("Create", "data");
        let at = volume("Mount", "data")["Mountpoint"].clone();
        let at = PathBuf::from(at.as_str().expect("a path"));
        let endpoint = format!("--endpoint={}", place.socket().display());
        let listed = run(env!("CARGO_BIN_EXE_orlop"), ["volume", "ls", &*endpoint]);
        fs::write(at.join("row"), "42").expect("it is mounted");
        end(&mut first.0);
        let left = [SOCKET.into(), place.socket()].map(|path| path.exists());
        let row = fs::read_to_string(at.join("row"));

        let _second = place.start();
        let mounts = volume("Get", "data")["Volume"]["Status"]["mounts"].clone();
        volume("Unmount", "data");
        volume("Remove", "data");

        assert!(listed.is_ok_and(|table| table.contains("default/data")));
        assert_eq!(left, [false, false]);
        assert!(row.is_ok_and(|row| row == "42"), "who uses it goes on");
        assert_eq!(mounts, json!(["a"]));
    });
}

#[test]
fn the_node_serves_until_the_last_call_of_docker_has_ended() {
    alone(|place| {
        let mut process = place.start();
        let (names, done) = (
            (0..HANDS).map(|hand| format!("v{hand}")),
            AtomicUsize::new(0),
        );
        let names: Vec<_> = names.collect();
        for name in &names {
            volume("Create", name);
        }

        let told: Vec<_> = thread::scope(|scope| {
            let work = |name: &String| mount_until_it_is_gone(name, &done);
            let hands = names.iter().map(|name| scope.spawn(move || work(name)));
            let hands: Vec<_> = hands.collect();
            assert!(until(|| done.load(Ordering::Relaxed) > 4 * HANDS));
            end(&mut process.0);
            let told = hands.into_iter().map(|hand| hand.join().expect("no panic"));
            told.collect()
        });

        let refused: Vec<_> = told.into_iter().flatten().collect();
        assert!(refused.is_empty(), "{refused:?}\n{}", place.log());
    });
}

/// Mounts and unmounts until nobody answers; what was refused before that.
fn mount_until_it_is_gone(name: &str, done: &AtomicUsize) -> Option<String> {
    let body = json!({"Name": name, "ID": "a"});
    loop {
        for verb in ["VolumeDriver.Mount", "VolumeDriver.Unmount"] {
            match call(verb, &body) {
                Ok(Ok(_)) => done.fetch_add(1, Ordering::Relaxed),
                Ok(Err(refused)) => return Some(format!("{verb}: {refused}")),
                Err(_) => return None,
            };
        }
    }
}

#[test]
fn what_is_said_of_a_node_that_is_not_asked_for_is_refused() {
    let refused = run(
        env!("CARGO_BIN_EXE_orlop"),
        ["docker", "--pools=/etc/orlop/pools.yaml"],
    );

    let error = format!("{:#}", refused.expect_err("it would be nobody's"));
    assert!(error.contains("--with-node"), "{error}");
}
