//! The second day: what the doctor finds, what it gives to others, and what is pruned.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::mounted::with_mounts;
use crate::person::{Person, orlop};
use crate::support;

#[test]
fn the_doctor_looks_at_a_node_and_its_pools() {
    let person = Person::new(&[]);

    let table = person.tries("doctor");
    let findings = person.tries("doctor --json").json();

    assert_eq!(table.rows()[0], ["STATUS", "CHECK", "FOUND"]);
    for check in ["kernel", "openat2", "CAP_SYS_ADMIN", "mkfs.xfs", "kubelet"] {
        assert!(finding(&findings, check).is_some(), "{check}: {findings}");
    }
    let status = |check| finding(&findings, check).map(|found| found["status"].clone());
    assert_eq!(status("socket"), Some("ok".into()));
    assert!(is_well(status("pool default")));
    assert_eq!(status("pool default: sizes of trees"), Some("warn".into()));
    assert!(status("pool default: FICLONE").is_some());
}

/// As well as a pool can be on this machine, whose disk may be nearly full.
fn is_well(status: Option<Value>) -> bool {
    status.is_some_and(|status| status == "ok" || status == "warn")
}

#[test]
fn the_doctor_works_without_a_node_and_makes_nothing() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let doctor = |pools: [&str; 2]| {
        let socket = at("missing.sock");
        let fixed = ["doctor", "-o", "json", "--endpoint", &socket];
        orlop(
            fixed.into_iter().chain(pools).map(str::to_owned),
            dir.path(),
        )
    };
    let pools = at("pools.yaml");
    let gone = "pools:\n  - { name: gone, directory: { path: /nowhere } }\n";
    fs::write(&pools, gone).expect("the directory can be written");

    let embedded = doctor(["--data", &at("data")]).json();
    let missing = doctor(["--pools", &pools]);

    let status = |findings: &Value, check| finding(findings, check).map(|it| it["status"].clone());
    assert_eq!(status(&embedded, "socket"), Some("warn".into()));
    assert!(is_well(status(&embedded, "pool default")));
    assert!(!dir.path().join("data").exists());
    assert_eq!(status(&missing.json(), "pool gone"), Some("bad".into()));
    assert_eq!(missing.code, 1);
    assert_eq!(missing.err.lines().count(), 1);
}

#[test]
fn the_doctor_tells_what_no_record_explains_and_how_bad_it_is() {
    let person = Person::new(&[]);
    person.runs("volume create lost --size 1MiB");
    let well = person.tries("doctor -o json");
    let pool = person.path("data/default");
    fs::remove_dir(pool.join("volumes/lost/data")).expect("it is empty");
    fs::create_dir_all(pool.join("volumes/stranger/data")).expect("the pool can be written");
    fs::create_dir(pool.join("trash/old.1")).expect("the pool can be written");
    fs::create_dir(person.path("tls")).expect("it is new");
    fs::write(person.path("tls/tls.crt"), "no certificate").expect("it is new");

    let ran = person.tries("doctor -o json --certificates ~/tls");
    let findings = ran.json();

    // The sizes of trees are not enforced; what else is on this machine may be worse.
    let is = |status| move |one: &Value| one["status"] == status;
    let told = well.json().as_array().cloned().expect("a list");
    assert!(told.iter().any(is("warn")), "{well:?}");
    let worst = if told.iter().any(is("bad")) { 1 } else { 5 };
    assert_eq!(well.code, worst, "{well:?}");
    assert_eq!(ran.code, 1);
    for (check, status, advice) in [
        ("volume default/lost", "bad", "restore a snapshot"),
        ("pool default: unreadable", "warn", "has no volume.json"),
        ("pool default: stuck", "warn", "orlop prune"),
    ] {
        let found = finding(&findings, check).expect(check);
        assert_eq!(found["status"], status, "{found}");
        assert!(found["found"].to_string().contains(advice), "{found}");
    }
    let all = findings.as_array().expect("a list");
    let certificate = all
        .iter()
        .find(|one| one["check"].to_string().contains("tls.crt"));
    assert_eq!(certificate.expect("it is told")["status"], "bad");
}

#[test]
fn a_bundle_has_what_helps_and_no_secret() {
    let person = Person::new(&[]);
    person.runs("volume create data --size 1MiB");
    let secrets = ["in-the-env", "in-the-file", "in-the-log", "in-a-header"];
    let pools = format!(
        "# password: in-the-file\npools:\n  - {{ name: default, directory: {{ path: {} }} }}\n",
        person.path("data/default").display()
    );
    fs::write(person.path("pools.yaml"), pools).expect("it is new");
    let log = "volume created\nmount -o username=me,password=in-the-log\n\
               Authorization: Bearer in-a-header\nit said in-the-env\n";
    fs::write(person.path("node.log"), log).expect("it is new");
    let line = "doctor --bundle ~/help.tar.gz --pools ~/pools.yaml --node-log ~/node.log";
    let at = |word: &str| word.replace('~', &person.path("").display().to_string());
    let endpoint = person.node.socket.display().to_string();
    let words = line.split_whitespace().map(at);

    #[expect(clippy::disallowed_methods, reason = "a test starts what it tests")]
    let ran = std::process::Command::new(env!("CARGO_BIN_EXE_orlop"))
        .args(words.chain(["--endpoint".to_owned(), endpoint]))
        .env("REGISTRY_TOKEN", secrets[0])
        .env("ORLOP_STATUS_TOKEN", secrets[0])
        .output()
        .expect("cargo built the binary");

    let archive = person.path("help.tar.gz");
    let mode = fs::metadata(&archive).map(|found| found.permissions().mode() & 0o777);
    assert_eq!(mode.ok(), Some(0o600), "{ran:?}");
    let text = support::run("tar", ["-xzOf".into(), archive.clone().into_os_string()]);
    let text = text.expect("it is an archive");
    for wanted in [
        "\"default/data\"",
        "volume created",
        "ORLOP_STATUS_TOKEN",
        "Linux ",
        "ext4",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    for secret in secrets {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let again = person.tries("doctor --bundle ~/help.tar.gz");
    assert!(again.err.contains("not there yet"), "{again:?}");
}

#[test]
fn what_is_deleted_and_stuck_is_pruned_only_when_asked() {
    let person = Person::new(&[]);
    person.runs("volume create data --size 1MiB");
    let stuck = person.path("data/default/trash/old.1");
    fs::create_dir_all(&stuck).expect("the pool can be written");
    fs::write(stuck.join("file"), vec![7; 8192]).expect("the pool can be written");

    let shown = person.runs("prune");
    let kept = stuck.exists();
    let pruned = person.runs("prune --yes -o json");
    let after = person.runs("prune --yes");

    assert_eq!(shown.rows()[1], ["stuck", "default", "old.1", "8KiB"]);
    assert!(shown.err.contains("nothing was removed"), "{shown:?}");
    assert!(kept && !stuck.exists());
    assert_eq!(pruned.json()[0]["name"], "old.1");
    assert!(after.err.contains("nothing is left over"), "{after:?}");
    assert_eq!(person.runs("volume ls -o name").out, "default/data\n");
}

#[test]
fn an_inline_volume_is_pruned_when_its_pod_is_gone() {
    let person = Person::new(&[]);
    for name in ["csi-here", "csi-gone"] {
        person.runs(&format!("volume create {name} --size 1MiB"));
        let file = person.path(&format!("data/default/volumes/{name}/volume.json"));
        let record = fs::read_to_string(&file).expect("it was created");
        let inline = record.replacen('{', "{\"ephemeral\": true,", 1);
        fs::write(file, inline).expect("the pool can be written");
    }
    let volume = person.path("kubelet/pods/1234/volumes/kubernetes.io~csi/scratch");
    let elsewhere = person.tries("prune --yes --kubelet ~/nowhere");
    fs::create_dir_all(&volume).expect("it is new");
    fs::write(
        volume.join("vol_data.json"),
        r#"{"volumeHandle":"csi-here"}"#,
    )
    .expect("it is new");

    let pruned = person.runs("prune --yes --kubelet ~/kubelet -o name");

    assert!(
        elsewhere.err.contains("inline volumes stay"),
        "{elsewhere:?}"
    );
    assert_eq!(pruned.out, "csi-gone\n");
    assert_eq!(person.runs("volume ls -o name").out, "default/csi-here\n");
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let dir = tempfile::tempdir().expect("a directory can be made");

    let words = ["man".to_owned(), dir.path().display().to_string()];
    let ran = orlop(words, dir.path());

    assert_eq!(ran.code, 0, "{ran:?}");
    let page = |name: &str| fs::read_to_string(dir.path().join(name)).expect(name);
    assert!(page("orlop.1").contains("Persistent volumes"));
    assert!(page("orlop-volume-create.1").contains("require\\-quota"));
    assert!(!dir.path().join("orlop-man.1").exists());
}

#[test]
fn records_of_every_release_are_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/records");
    for release in list(&fixtures) {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let pool = dir.path().join("default");
        for (shelf, record) in [("volumes", "volume.json"), ("snapshots", "snapshot.json")] {
            for name in list(&fixtures.join(&release).join(shelf)) {
                let entry = pool.join(shelf).join(&name);
                fs::create_dir_all(entry.join("data")).expect("the directory is ours");
                fs::write(entry.join("image"), "").expect("the directory is ours");
                let from = fixtures.join(&release).join(shelf).join(&name).join(record);
                fs::copy(from, entry.join(record)).expect("the directory is ours");
            }
        }

        let person = Person::new(&["--data", &dir.path().display().to_string()]);
        let volumes = person.runs("volume ls -o name").out;
        let snapshots = person.runs("snapshot ls -o name").out;

        assert_eq!(
            volumes.lines().count(),
            list(&fixtures.join(&release).join("volumes")).len()
        );
        assert!(volumes.contains("default/again\n"), "{release}: {volumes}");
        let wanted = "default/image@tuesday\ndefault/shop@friday\ndefault/tree@monday\n";
        assert_eq!(sorted(&snapshots), wanted, "{release}");
        let again = person.runs("volume inspect default/again -o json").json();
        assert_eq!(again["sizeBytes"], 1_u64 << 30);
        assert_eq!(again["source"]["snapshot"], "default/tree@monday");
        let shop = person.runs("volume ls -o json").json();
        let shop = shop.as_array().expect("a list").iter();
        let mut shop = shop.filter(|volume| volume["id"] == "default/shop");
        assert_eq!(shop.next().expect(&release)["claim"]["name"], "Käse & Wein");
    }
}

#[test]
fn what_the_pages_say_of_images_works_without_orlop() {
    with_mounts(|mut person| {
        person.runs("volume create data --size 8MiB --layout image");
        person.runs("volume mount default/data ~/mnt");
        fs::write(person.path("mnt/row"), "42").expect("it is mounted");
        person.runs("snapshot create default/data monday");
        person.runs("volume unmount default/data ~/mnt");
        person.node.kill();
        fs::create_dir(person.path("by-hand")).expect("it is new");

        for image in ["volumes/data/image", "snapshots/monday/image"] {
            let (image, at) = (
                person.path("data/default").join(image),
                person.path("by-hand"),
            );
            let options: [&OsStr; 3] = ["-oloop,ro".as_ref(), image.as_ref(), at.as_ref()];
            support::run("mount", options).expect("docs/on-disk.md says so");
            let row = fs::read_to_string(at.join("row"));
            support::run("umount", [&at]).expect("nobody uses it");

            assert!(row.is_ok_and(|row| row == "42"), "{}", image.display());
        }
    });
}

fn list(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it is there");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("it can be listed").file_name();
    let names = entries.map(|entry| name(entry).to_string_lossy().into_owned());
    names.collect()
}

fn sorted(lines: &str) -> String {
    let mut lines: Vec<_> = lines.lines().collect();
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

fn finding<'a>(findings: &'a Value, check: &str) -> Option<&'a Value> {
    let all = findings.as_array().expect("a list");
    all.iter().find(|finding| finding["check"] == check)
}
