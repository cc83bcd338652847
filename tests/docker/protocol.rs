//! What Docker says and hears, call by call, without an engine.

use serde_json::{Value, json};

use crate::plugin::{Plugin, SOCKET, with_plugin, with_plugin_started_by};
use crate::support::{run, skipped};

impl Plugin {
    fn create(&self, name: &str, options: &Value) -> Result<Value, String> {
        self.call(
            "VolumeDriver.Create",
            &json!({"Name": name, "Opts": options}),
        )
    }

    fn about(&self, verb: &str, name: &str, id: &str) -> Result<Value, String> {
        self.call(
            &format!("VolumeDriver.{verb}"),
            &json!({"Name": name, "ID": id}),
        )
    }

    fn mount(&self, name: &str, id: &str) -> String {
        let answer = self.about("Mount", name, id).expect("it can be mounted");
        answer["Mountpoint"].as_str().expect("a path").to_owned()
    }

    fn get(&self, name: &str) -> Value {
        self.about("Get", name, "").expect("it is there")["Volume"].clone()
    }
}

#[test]
fn the_plugin_says_what_it_is() {
    with_plugin(|plugin| {
        let is = plugin.call("Plugin.Activate", &json!({}));
        let can = plugin.call("VolumeDriver.Capabilities", &json!({}));

        assert_eq!(is, Ok(json!({"Implements": ["VolumeDriver"]})));
        assert_eq!(can, Ok(json!({"Capabilities": {"Scope": "local"}})));
    });
}

#[test]
fn started_by_a_socket_of_systemd_it_serves_on_that_and_leaves_it() {
    const STARTER: &[&str] = &["systemd-socket-activate", "--listen", SOCKET];
    if run(STARTER[0], ["--version"]).is_err() {
        return skipped("a socket of systemd", "there is no systemd-socket-activate");
    }
    with_plugin_started_by(STARTER, |mut plugin| {
        let is = plugin.call("Plugin.Activate", &json!({}));
        assert_eq!(is, Ok(json!({"Implements": ["VolumeDriver"]})));

        plugin.stop();

        // Systemd listens there until it is needed again.
        assert!(std::fs::exists(SOCKET).expect("it can be looked for"));
    });
}

#[test]
fn a_create_is_repeated_for_the_same_options_and_conflicts_for_others() {
    with_plugin(|plugin| {
        let image = json!({"size": "16MiB", "layout": "image", "fs": "ext4"});

        let first = plugin.create("data", &image);
        let second = plugin.create("data", &image);
        let larger = plugin.create("data", &json!({"size": "32MiB", "layout": "image"}));
        let other = plugin.create("data", &json!({"size": "16MiB", "layout": "tree"}));

        assert_eq!((first, second), (Ok(json!({})), Ok(json!({}))));
        assert!(larger.is_err_and(|error| error.contains("its size is 16MiB")));
        assert!(other.is_err_and(|error| error.contains("its layout is image")));
    });
}

#[test]
fn what_nobody_knows_is_refused_by_name() {
    with_plugin(|plugin| {
        for (options, said) in [
            (json!({"wype": "zero"}), "wype"),
            (json!({"fs": "ntfs"}), "ntfs"),
            (json!({"size": "big"}), "option size"),
            (json!({"pool": "gold"}), "gold"),
            (json!({"from": "nothing"}), "no volume nothing"),
            (json!({"from": "data@never"}), "no snapshot never"),
            (json!({"encryption": "luks"}), "option encryption"),
        ] {
            let error = plugin.create("data", &options).expect_err(said);

            assert!(error.contains(said), "{error}");
        }
        let bad = plugin.create("../data", &json!({})).expect_err("no name");
        assert!(bad.contains("is not a volume's name"), "{bad}");
        assert_eq!(
            plugin.call("VolumeDriver.List", &json!({})),
            Ok(json!({"Volumes": []}))
        );
    });
}

#[test]
fn docker_sees_its_own_names_and_nobody_elses_volumes() {
    with_plugin(|plugin| {
        let long = format!("A_long.name-{}", "f".repeat(64));
        plugin.orlop("volume create kept --size 16MiB");
        for name in ["data", "Data", &long] {
            plugin.create(name, &json!({"size": "16MiB"})).expect(name);
        }

        let all = plugin
            .call("VolumeDriver.List", &json!({}))
            .expect("a list");
        let taken = plugin.create("kept", &json!({"size": "16MiB"}));
        let removed = plugin.about("Remove", "kept", "");

        let mut names: Vec<_> = all["Volumes"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|volume| volume["Name"].as_str().expect("a name").to_owned())
            .collect();
        names.sort_unstable();
        assert_eq!(names, [long.as_str(), "Data", "data"]);
        assert_eq!(plugin.get(&long)["Name"], json!(long));
        assert!(taken.is_err_and(|error| error.contains("Docker did not create it")));
        assert!(removed.is_err_and(|error| error.contains("no volume kept")));
        plugin.orlop("volume inspect default/kept");
    });
}

#[test]
fn mounts_are_counted_for_each_id_also_over_restarts() {
    with_plugin(|mut plugin| {
        let place = |plugin: &Plugin| plugin.get("data")["Mountpoint"].clone();
        plugin
            .create("data", &json!({"size": "16MiB", "layout": "image"}))
            .expect("there is room");
        assert_eq!(place(&plugin), json!(""));

        let first = plugin.mount("data", "one");
        let again = plugin.mount("data", "one");
        let other = plugin.mount("data", "two");
        std::fs::write(format!("{first}/file"), "content").expect("it is writable");
        plugin.restart();
        plugin.node.kill();
        plugin.node.start_again();

        assert_eq!(first, again);
        assert_ne!(first, other);
        let seen = std::fs::read_to_string(format!("{other}/file"));
        assert_eq!(seen.expect("it is the same volume"), "content");
        let path = plugin.about("Path", "data", "").expect("it is there");
        assert_eq!(path, json!({"Mountpoint": first}));
        for (id, left) in [
            ("one", vec!["one", "two"]),
            ("one", vec!["two"]),
            // One that is not mounted is unmounted already.
            ("one", vec!["two"]),
            ("two", vec![]),
        ] {
            plugin.about("Unmount", "data", id).expect("it is mounted");
            assert_eq!(plugin.get("data")["Status"]["mounts"], json!(left));
        }
        assert_eq!(place(&plugin), json!(""));
        let places = std::fs::read_dir(plugin.path("mounts/default"));
        assert_eq!(places.expect("it was made").count(), 0);
        plugin.about("Remove", "data", "").expect("nobody has it");
    });
}

#[test]
fn a_new_volume_is_empty_where_its_filesystem_has_a_directory_of_its_own() {
    with_plugin(|plugin| {
        let image = json!({"size": "16MiB", "layout": "image", "fs": "ext4"});
        plugin.create("data", &image).expect("there is room");

        let path = plugin.mount("data", "one");

        assert_eq!(std::fs::read_dir(path).expect("it is there").count(), 0);
    });
}

#[test]
fn a_volume_in_use_stays_and_its_users_are_named() {
    with_plugin(|plugin| {
        plugin
            .create("data", &json!({"size": "16MiB"}))
            .expect("room");
        plugin.mount("data", "one");
        plugin.mount("data", "two");

        let error = plugin
            .about("Remove", "data", "")
            .expect_err("it is in use");

        assert!(error.contains("mounts one, two"), "{error}");
        assert!(error.contains("--filter volume=data"), "{error}");
        // What the error says to do about a mount that has no container frees it.
        let said = error.split('`').nth(3).expect("a command");
        plugin.orlop(said.strip_prefix("orlop ").expect("of ours"));
        assert_eq!(plugin.get("data")["Status"]["mounts"], json!(["two"]));
    });
}

#[test]
fn a_volume_is_made_from_another_or_from_a_snapshot_even_of_one_that_is_gone() {
    with_plugin(|plugin| {
        plugin
            .create("My.data", &json!({"size": "16MiB"}))
            .expect("room");
        let path = plugin.mount("My.data", "one");
        std::fs::write(format!("{path}/file"), "old").expect("it is writable");
        let id = plugin.get("My.data")["Status"]["id"].clone();
        plugin.orlop(&format!(
            "snapshot create {} before",
            id.as_str().expect("an id")
        ));
        std::fs::write(format!("{path}/file"), "new").expect("it is writable");

        plugin
            .create("clone", &json!({"from": "My.data"}))
            .expect("it is there");
        let snapshots = plugin.get("My.data")["Status"]["snapshots"].clone();
        plugin.about("Unmount", "My.data", "one").expect("mounted");
        plugin
            .about("Remove", "My.data", "")
            .expect("nobody has it");
        plugin
            .create("restored", &json!({"from": "My.data@before"}))
            .expect("the snapshot stays");

        assert_eq!(snapshots, json!(["before"]));
        for (name, content) in [("clone", "new"), ("restored", "old")] {
            let path = plugin.mount(name, "one");
            let found = std::fs::read_to_string(format!("{path}/file"));
            assert_eq!(found.expect("it was copied"), content);
            plugin.about("Unmount", name, "one").expect("mounted");
        }
    });
}

#[test]
fn a_volume_tells_what_it_is() {
    with_plugin(|plugin| {
        plugin
            .create("data", &json!({"size": "16MiB", "layout": "image"}))
            .expect("room");
        plugin.mount("data", "one");

        let volume = plugin.get("data");

        let status = &volume["Status"];
        assert_eq!(status["id"], json!("default/data"));
        assert_eq!(status["pool"], json!("default"));
        assert_eq!(status["size"], json!("16MiB"));
        assert_eq!(status["filesystem"], json!("ext4"));
        assert_eq!(status["health"], json!("ok"));
        assert!(status["used"].is_string(), "{status}");
        assert!(volume["CreatedAt"].is_string(), "{volume}");
    });
}
