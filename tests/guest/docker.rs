//! Docker's volumes with what only this kernel has: encryption.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::encryption::{CONTENT, WRONG};
use crate::plugin::{call, in_own_mounts, start};
use crate::support::form::KEY;
use crate::support::home::Ground;
use crate::support::{Killed, until};

/// Node and plugin in one process, over a pool of images.
struct Plugin {
    desk: TempDir,
    process: Option<Killed>,
}

impl Plugin {
    fn at(&self, name: &str) -> PathBuf {
        self.desk.path().join(name)
    }

    /// Starts it anew with these arguments, too.
    fn start(&mut self, more: &[&str]) {
        drop(self.process.take());
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.at("log"))
            .expect("there is room");
        let said = [
            ("endpoint", "csi.sock"),
            ("pools", "pools.yaml"),
            ("mounts", "mounts"),
            ("staging", "staging"),
        ];
        let said = said.map(|(name, path)| format!("--{name}={}", self.at(path).display()));
        let words = ["docker".to_owned(), "--with-node".to_owned()];
        let words = words.into_iter().chain(said);
        let words = words.chain(more.iter().map(|&word| word.to_owned()));
        let orlop = Path::new(env!("CARGO_BIN_EXE_orlop"));
        self.process = Some(Killed(start(orlop, words, log)));
        let serves = || call("Plugin.Activate", &json!({})).is_ok();
        assert!(until(serves), "{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }
}

fn ask(verb: &str, name: &str) -> Result<Value, String> {
    let options = json!({"size": "64MiB", "layout": "image", "encryption": "true"});
    let body = json!({"Name": name, "ID": "a", "Opts": options});
    call(&format!("VolumeDriver.{verb}"), &body).expect("it serves")
}

fn mount(name: &str) -> PathBuf {
    let answer = ask("Mount", name).expect("it can be mounted");
    answer["Mountpoint"].as_str().expect("a path").into()
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn what_docker_keeps_encrypted_opens_with_the_key_of_its_plugin_alone() {
    let ground = Ground::Directory("ext4");
    in_own_mounts(|| {
        let Some(home) = ground.make() else {
            return;
        };
        let desk = tempfile::tempdir().expect("a temporary directory can be made");
        let mut plugin = Plugin {
            desk,
            process: None,
        };
        let place = plugin.at("pool");
        fs::write(plugin.at("pools.yaml"), home.pools("pool", &place)).expect("there is room");
        let [right, wrong] = [("right", KEY), ("wrong", WRONG)].map(|(name, key)| {
            fs::write(plugin.at(name), format!("{key}\n")).expect("there is room");
            format!("--encryption-key-file={}", plugin.at(name).display())
        });

        plugin.start(&[]);
        let without = ask("Create", "data").expect_err("there is no key");
        plugin.start(&[&right]);
        ask("Create", "data").expect("there is room");
        let at = mount("data");
        fs::write(at.join("row"), CONTENT).expect("it is mounted");
        let mounts = fs::read_to_string("/proc/thread-self/mounts").expect("there is /proc");
        let here = format!(" {} ", at.display());
        let mapped = mounts.lines().find(|line| line.contains(&here));
        let mapped = mapped.expect("it is mounted").starts_with("/dev/dm-");
        ask("Unmount", "data").expect("it is mounted");
        let on_disk = fs::read(place.join("volumes/data/image")).expect("it is an image");
        plugin.start(&[&wrong]);
        let refused = ask("Mount", "data").expect_err("it is another key");
        plugin.start(&[&right]);
        let row = fs::read_to_string(mount("data").join("row"));
        ask("Unmount", "data").expect("it is mounted");
        ask("Remove", "data").expect("nobody uses it");
        let log = plugin.log();
        drop(plugin);

        assert!(without.contains("--encryption-key-file"), "{without}");
        assert!(mapped, "{mounts}");
        assert!(
            !on_disk
                .windows(CONTENT.len())
                .any(|part| part == CONTENT.as_bytes())
        );
        assert!(refused.contains("does not open"), "{refused}");
        assert!(row.is_ok_and(|row| row == CONTENT));
        assert!(!log.contains(KEY) && !log.contains(WRONG));
    });
}
