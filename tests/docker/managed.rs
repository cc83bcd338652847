//! The managed plugin: what `make plugin` builds, in a real engine.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::engine::{Engine, is_installed};
use crate::images;
use crate::plugin::in_own_mounts;
use crate::support::{run, skipped, tell};

/// Runs a test with an engine and what the plugin is created from; skips it, and says so, where that can not be.
fn with_managed(test: impl FnOnce(&mut Engine<TempDir>, &Path) + Send) {
    let what = "the managed plugin of Docker";
    if !rustix::process::geteuid().is_root() {
        return skipped(what, "it needs root");
    }
    if !is_installed(what) {
        return;
    }
    in_own_mounts(|| {
        let place = tempfile::Builder::new()
            .prefix("orlop-managed-")
            .tempdir()
            .expect("there is room");
        let (built, directory) = (build(place.path()), place.path().join("engine"));
        let mut engine = Engine::start(directory, place);
        if !images::busybox(&engine) {
            return skipped(what, "there is no /bin/busybox");
        }
        test(&mut engine, &built);
    });
}

/// What `make plugin` makes, of the binary that is tested.
fn build(place: &Path) -> PathBuf {
    let (binary, built) = (place.join("orlop"), place.join("plugin"));
    // With what a debugger needs it has thrice the size.
    let shown = binary.to_str().expect("it is text");
    if run("strip", ["-o", shown, env!("CARGO_BIN_EXE_orlop")]).is_err() {
        fs::copy(env!("CARGO_BIN_EXE_orlop"), &binary).expect("there is room");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/plugin.sh");
    run("sh", [&script, &binary, &built]).expect("it needs nothing else");
    ask_for_what_there_is(&built.join("config.json"));
    built
}

/// Takes out of the plugin's capabilities those that nobody has on this machine: with them it could not be enabled.
fn ask_for_what_there_is(config: &Path) {
    let text = fs::read_to_string(config).expect("it was made");
    let mut value: Value = serde_json::from_str(&text).expect("it is JSON");
    let wanted = value["linux"]["capabilities"].as_array_mut();
    wanted.expect("a list").retain(|name| {
        let name = name.as_str().expect("a name").trim_start_matches("CAP_");
        let has = has(name);
        if !has {
            tell(&format!(
                "the managed plugin is tested without {name}, which this machine has not"
            ));
        }
        has
    });
    fs::write(config, value.to_string()).expect("it can be written");
}

/// Whether a process of this machine can have the capability.
fn has(name: &str) -> bool {
    // Their numbers are those of capability.h.
    let number = match name {
        "DAC_READ_SEARCH" => 2,
        "LINUX_IMMUTABLE" => 9,
        "IPC_LOCK" => 14,
        "SYS_ADMIN" => 21,
        "SYS_RESOURCE" => 24,
        _ => panic!("say here which number {name} has"),
    };
    let status = fs::read_to_string("/proc/self/status").expect("it is there");
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounds = u64::from_str_radix(bounds.expect("Linux tells").trim(), 16);
    bounds.expect("it is a number") >> number & 1 == 1
}

#[test]
fn a_volume_outlives_the_plugin_that_made_it() {
    with_managed(|engine, built| {
        let pools = built.with_file_name("pools");
        fs::create_dir_all(pools.join("gold")).expect("it is new");
        fs::write(
            pools.join("pools.yaml"),
            "pools: [{name: gold, directory: {path: /var/lib/orlop/gold}}]",
        )
        .expect("there is room");
        let create = format!("plugin create orlop {}", built.display());
        let set = format!(
            "plugin set orlop data.source={} ORLOP_POOLS=/var/lib/orlop/pools.yaml",
            pools.display()
        );
        let mounts = "volume inspect --format {{.Status.mounts}} data";
        let run = "run --rm --network=none --volume data:/data busybox sh -c --";
        let status = "volume inspect --format {{.Status.pool}}/{{.Status.size}} data";
        let all = "volume ls --quiet --filter driver=orlop:latest";

        engine.docker(&create);
        engine.docker(&set);
        engine.docker("plugin enable orlop");
        engine.docker("volume create --driver orlop --opt size=64MiB --opt layout=image data");
        engine.docker(&format!("{run} echo rows >/data/rows"));
        assert_eq!(engine.docker(status), "gold/64MiB");
        // What a container sees is the volume, and not a directory of the plugin that it covers.
        let seen = engine.docker(&format!("{run} cat /proc/mounts"));
        let mut seen = seen.lines().filter(|line| line.starts_with("/dev/loop"));
        assert!(seen.any(|line| line.contains(" /data ")));
        engine.docker(
            "run --detach --name first --network=none --volume data:/data busybox sleep 1000",
        );
        assert_eq!(engine.docker(mounts).split(' ').count(), 1);
        let refused = engine
            .tries("plugin disable orlop")
            .expect_err("it is in use");
        assert!(refused.to_string().contains("in use"), "{refused}");
        let refused = engine.tries("volume rm data").expect_err("it is in use");
        assert!(refused.to_string().contains("in use"), "{refused}");

        // A restart of the engine is one of the plugin.
        engine.restart();
        assert_eq!(engine.docker(mounts), "[]");
        engine.docker("start first");
        assert_eq!(engine.docker("exec first cat /data/rows"), "rows");
        engine.docker("rm --force first");
        assert_eq!(engine.docker(mounts), "[]");

        // For Docker it is in use as long as there are volumes.
        engine.docker("plugin disable --force orlop");
        assert!(engine.tries(&format!("{run} true")).is_err());
        engine.docker("plugin enable orlop");
        assert_eq!(engine.docker(&format!("{run} cat /data/rows")), "rows");
        assert_eq!(
            engine.docker("volume inspect --format {{.Status.health}} data"),
            "ok"
        );

        // Also one of another release, made anew, has them.
        engine.docker("plugin rm --force orlop");
        engine.docker(&create);
        engine.docker(&set);
        engine.docker("plugin enable orlop");
        assert_eq!(engine.docker(all), "data");
        assert_eq!(engine.docker(&format!("{run} cat /data/rows")), "rows");

        engine.docker("volume rm data");
        assert_eq!(engine.docker(all), "");
        let left = fs::read_dir(pools.join("gold/volumes")).expect("it is there");
        assert_eq!(left.count(), 0);
        engine.docker("plugin disable orlop");
        engine.docker("plugin rm orlop");
    });
}
