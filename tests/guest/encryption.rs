//! Encrypted volumes: what only the key opens, through growth, copies, crashes and the end.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use orlop::config;
use orlop::driver::mounts::StageSpec;
use orlop::host::encryption::beneath;
use orlop::host::gate::Gate;
use orlop::host::space;
use orlop::names::ENCRYPTION_KEY;
use orlop::volume::{Bytes, Error, Filesystem, Secret, Use, Volume};
use tempfile::TempDir;

use crate::client::{Client, From};
use crate::support::home::{Ground, Home, VolumeGroup};
use crate::support::verbs::{Form, KEY, Node};
use crate::support::{run, skipped, takes_long, until};
use crate::tank::Tank;

pub(crate) const SIZE: Bytes = Bytes::MIB.times(64);
pub(crate) const LARGER: Bytes = Bytes::MIB.times(128);

/// What is written, to be looked for where it must not be.
pub(crate) const CONTENT: &str = "what only those who have the key may read";

/// Another key, as long as the right one.
pub(crate) const WRONG: &str = "this is the key of nothing that is encrypted in tests";

/// More changes than a staging makes.
const ENDLESS: u64 = 60;

/// Why a test is skipped that takes minutes.
const LONG: &str = "it takes minutes in a guest: `make test-long` tries it";

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn an_encrypted_image_lives_and_ends() {
    lives_and_ends(Ground::Directory("ext4"), Form::image(Filesystem::Ext4));
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn an_encrypted_thin_volume_lives_and_ends() {
    lives_and_ends(Ground::Lvm { thin: true }, Form::device(Filesystem::Ext4));
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn an_encrypted_thick_volume_lives_and_ends() {
    if !takes_long() {
        return skipped("an encrypted thick volume", LONG);
    }
    lives_and_ends(Ground::Lvm { thin: false }, Form::device(Filesystem::Ext4));
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn the_first_staging_of_an_encrypted_image_survives_a_crash_anywhere() {
    if !takes_long() {
        return skipped("a first staging that is cut off at every step", LONG);
    }
    survives(Ground::Directory("ext4"), Form::image(Filesystem::Ext4));
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn the_key_is_nowhere_but_in_the_kernel() {
    let Some(mut bed) = Bed::new(Ground::Directory("ext4"), Form::image(Filesystem::Ext4)) else {
        return;
    };
    drop(bed.node.take());
    let pools = bed.desk.path().join("pools.yaml");
    let place = bed.place.display();
    let text = format!("pools: [{{ name: pool, directory: {{ path: {place} }} }}]\n");
    fs::write(&pools, text).expect("the desk can be written");
    let node = crate::node::Node::start(&[
        "--log",
        "trace",
        "--pools",
        pools.to_str().expect("it is text"),
    ]);
    let mut client = Client::of(&node);
    let [staging, target] = ["staging", "target"].map(|name| bed.desk.path().join(name));
    let class = [("encryption", "true"), ("layout", "image")];

    let id = client
        .create("one", SIZE.0, &class, &From::Nothing)
        .expect("there is room");
    let without = client.publish(&id, &staging, &target);
    client.key = Some("too short");
    let short = client.publish(&id, &staging, &target);
    client.key = Some(KEY);
    client
        .publish(&id, &staging, &target)
        .expect("it has the key");
    let (device, raw) = devices();
    let processes = holders(node.pid());
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");
    client.delete(&id).expect("it is mounted nowhere");

    for refused in [without, short] {
        let told = refused.expect_err("it has no key");
        assert_eq!(told.code(), tonic::Code::InvalidArgument);
        assert!(told.message().contains(ENCRYPTION_KEY), "{told}");
        assert!(!told.message().contains("too short"), "{told}");
    }
    assert!(node.log().contains("luksFormat"), "commands are logged");
    assert!(!node.log().contains(KEY), "the log has it");
    assert_eq!(processes, Vec::<PathBuf>::new());
    assert_ne!(device, raw);
    assert!(!holds(bed.home.path(&bed.place), KEY), "the disk has it");
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn what_a_deleted_volume_leaves_on_the_disk_opens_no_more_with_its_key() {
    let Some(group) = VolumeGroup::new(false) else {
        return;
    };
    let desk = tempfile::tempdir().expect("a temporary directory can be made");
    let pools = desk.path().join("pools.yaml");
    let lvm = format!(
        "pools: [{{ name: pool, lvm: {{ volumeGroup: {} }} }}]\n",
        group.name
    );
    fs::write(&pools, lvm).expect("the desk can be written");
    let node = crate::node::Node::start(&["--pools", pools.to_str().expect("it is text")]);
    let mut client = Client::of(&node);
    client.key = Some(KEY);
    let [staging, target] = ["staging", "target"].map(|name| desk.path().join(name));
    let class = [("encryption", "true"), ("wipe", "none")];
    let created = client.create("one", SIZE.0, &class, &From::Nothing);
    let id = created.expect("there is room");
    client
        .publish(&id, &staging, &target)
        .expect("it has the key");
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");

    let start = start_of(&group);
    let before = opens(group.device(), start);
    client.delete(&id).expect("it is mounted nowhere");
    let after = opens(group.device(), start);

    before.expect("it is the key");
    let refused = after.expect_err("no key slot is left").to_string();
    assert!(refused.contains("keyslot"), "{refused}");
}

/// Where on its disk the only volume of a group begins.
pub(crate) fn start_of(group: &VolumeGroup) -> u64 {
    let bytes = ["--noheadings", "--nosuffix", "--units=b"];
    let ask = |tool: &str, field: &str, of: &str| {
        let told = run(tool, bytes.iter().chain(&["--options", field, of]));
        told.expect("it is there").trim().to_owned()
    };
    let number = |text: &str| text.parse::<u64>().expect("it is a number");
    let area = ask("pvs", "pe_start", group.device());
    let extent = ask("vgs", "vg_extent_size", &group.name);
    let range = ask("lvs", "seg_pe_ranges", &group.name);
    let first = range.split([':', '-']).nth(1).expect("it is on a disk");
    number(&area) + number(first) * number(&extent)
}

/// Tries the key on what begins there.
fn opens(disk: &str, start: u64) -> anyhow::Result<String> {
    let offset = start.to_string();
    // What was read there before is not what the volume wrote.
    run("blockdev", ["--flushbufs", disk]).expect("it is a disk");
    let show = ["--find", "--show", "--read-only", "--offset", &offset, disk];
    let device = run("losetup", show).expect("there is a loop device");
    let device = device.trim();
    let open = format!(
        "printf %s '{KEY}' | cryptsetup open --test-passphrase --type=luks2 --key-file=- {device}"
    );
    let opened = run("sh", ["-c", &open]);
    run("losetup", ["--detach", device]).expect("nobody uses it");
    opened
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn the_first_staging_of_an_encrypted_dataset_survives_a_crash_anywhere() {
    if !takes_long() {
        return skipped("a first staging that is cut off at every step", LONG);
    }
    survives(Ground::Zfs, Form::TREE);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn an_encrypted_zvol_lives_and_ends() {
    let Some(tank) = Tank::new("encryption") else {
        return;
    };
    run("modprobe", ["dm_crypt"]).expect("the guest has it");
    let mut client = Client::of(tank.node());
    client.key = Some(KEY);
    let [staging, target] = ["staging", "target"].map(|name| tank.place(name));
    let class = [("encryption", "true"), ("layout", "device")];

    let one = client.create("one", SIZE.0, &class, &From::Nothing);
    let one = one.expect("there is room");
    client.publish(&one, &staging, &target).expect("it is new");
    fs::write(target.join("content"), CONTENT).expect("there is room");
    run("sync", [] as [&str; 0]).expect("it can be synced");
    let (device, raw) = devices();
    let readable = [holds(&device, CONTENT), holds(&raw, CONTENT)];
    // Without what the header takes.
    assert_eq!(
        client.grow(&one, LARGER.0).expect("there is room"),
        LARGER.0
    );
    let grown = size_of(&device);
    let snapshot = client.snapshot(&one, "snapshot").expect("it is there");
    client
        .unpublish(&one, &staging, &target)
        .expect("nobody uses it");
    client.delete(&one).expect("it is mounted nowhere");
    let two = client.create("two", 2 * LARGER.0, &[], &From::Snapshot(&snapshot));
    let two = two.expect("there is room");
    client.key = Some(WRONG);
    let wrong = client.publish(&two, &staging, &target);
    client.key = Some(KEY);
    client
        .publish(&two, &staging, &target)
        .expect("it is there");
    let content = fs::read_to_string(target.join("content")).expect("it was restored");
    client
        .unpublish(&two, &staging, &target)
        .expect("nobody uses it");
    client.delete(&two).expect("it is mounted nowhere");
    client.delete_snapshot(&snapshot).expect("nobody uses it");

    assert_eq!(readable, [true, false]);
    assert!(grown >= LARGER.0);
    let wrong = wrong.expect_err("it is not the key");
    assert_eq!(wrong.code(), tonic::Code::InvalidArgument, "{wrong}");
    assert_eq!(content, CONTENT);
    assert_eq!(mappings(), Vec::<PathBuf>::new());
}

/// A pool, and where its volumes are staged.
struct Bed {
    form: Form,
    config: config::Pool,
    node: Option<Node>,
    place: PathBuf,
    desk: TempDir,
    home: Home,
}

impl Bed {
    fn new(ground: Ground, form: Form) -> Option<Self> {
        if let Err(reason) = run("modprobe", ["dm_crypt"]) {
            skipped("a test on encryption", &format!("{reason:#}"));
            return None;
        }
        let desk = tempfile::tempdir().expect("a temporary directory can be made");
        let home = ground.make()?;
        let place = home.path(desk.path()).join("pool");
        let config = config::Pool {
            name: "pool".parse().expect("it is a legal name"),
            kind: home.pool(&place),
        };
        Some(Self {
            form: form.encrypted(),
            node: Some(Node::start(&config, Gate::open()).expect("the pool is new")),
            config,
            place,
            desk,
            home,
        })
    }

    fn restart(&mut self, gate: Gate) {
        // The old one must be gone before the new one can have the pool.
        drop(self.node.take());
        self.node = Some(Node::start(&self.config, gate).expect("the pool opens"));
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("it is started")
    }

    fn staging(&self, volume: &Volume) -> StageSpec {
        let staging = self.desk.path().join(volume.id.name.as_str());
        fs::create_dir_all(&staging).expect("the desk can be written");
        StageSpec {
            volume: volume.id.clone(),
            capability: self.form.used(Use::Writers, false),
            staging,
            key: self.form.key(),
        }
    }

    fn stage(&self, volume: &Volume) {
        let spec = self.staging(volume);
        self.node().stage(&spec).expect("it has the key");
    }

    fn unstage(&self, volume: &Volume) {
        let staging = self.staging(volume).staging;
        let unstaged = self.node().unstage(&volume.id, &staging);
        unstaged.expect("nobody uses it");
    }

    fn at(&self, volume: &Volume) -> PathBuf {
        self.staging(volume).staging.join("content")
    }

    fn read(&self, volume: &Volume) -> String {
        fs::read_to_string(self.at(volume)).expect("it is staged")
    }

    /// That a staging with this key is refused and leaves no mapping.
    fn assert_refused(&self, volume: &Volume, key: Option<&str>) {
        let spec = StageSpec {
            key: key.map(|key| Secret::from(key.as_bytes().to_vec())),
            ..self.staging(volume)
        };
        let before = mappings();
        let told = self.node().stage(&spec).expect_err("it is not the key");
        assert!(matches!(told, Error::Invalid(_)), "{told}");
        assert!(told.to_string().contains(ENCRYPTION_KEY), "{told}");
        assert_eq!(mappings(), before);
    }
}

fn lives_and_ends(ground: Ground, form: Form) {
    let Some(mut bed) = Bed::new(ground, form) else {
        return;
    };
    let one = bed.node().create(&bed.form.spec("one", SIZE));
    let one = one.expect("there is room");
    bed.assert_refused(&one, None);
    bed.stage(&one);
    fs::write(bed.at(&one), CONTENT).expect("there is room");
    run("sync", [] as [&str; 0]).expect("it can be synced");
    let (device, raw) = devices();
    assert!(holds(&device, CONTENT), "it is looked for in the right way");
    assert!(!holds(&raw, CONTENT), "it is not encrypted");
    assert!(size_of(&device) >= SIZE.0, "the header is on top");

    bed.unstage(&one);
    assert_eq!(mappings(), Vec::<PathBuf>::new());
    bed.assert_refused(&one, Some(WRONG));
    bed.assert_refused(&one, None);
    bed.stage(&one);
    assert_eq!(bed.read(&one), CONTENT);

    bed.node().grow(&one.id, LARGER).expect("there is room");
    assert!(size_of(&device) >= LARGER.0, "its mapping is grown");
    let total = space::of(&bed.staging(&one).staging).expect("it is mounted");
    assert!(
        total.bytes.total > LARGER.0 * 3 / 4,
        "its filesystem is grown"
    );

    bed.restart(Gate::open());
    let refused = bed.node().delete(&one.id).expect_err("it is staged");
    assert!(matches!(refused, Error::InUse(_)), "{refused}");
    bed.stage(&one);

    copies(&bed, &one);
    bed.unstage(&one);
    bed.node().delete(&one.id).expect("nobody uses it");
    assert_eq!(mappings(), Vec::<PathBuf>::new());
    assert!(until(|| bed.home.contents(&bed.place).is_empty()));
}

/// A clone, and a snapshot restored larger, of a volume that is staged: each is staged beside it with its key alone.
fn copies(bed: &Bed, one: &Volume) {
    let snapshot = bed
        .node()
        .snapshot("snapshot", &one.id)
        .expect("it is there");
    let mut plain = bed.form.restored("plain", LARGER, &snapshot);
    plain.class.encryption = Some(false);
    let told = bed.node().create(&plain);
    let told = told.expect_err("it has another form").to_string();
    assert!(told.contains("encryption"), "{told}");
    let larger = Bytes(LARGER.0 * 2);
    let restored = bed.form.restored("restored", larger, &snapshot);
    let cloned = bed.form.cloned("cloned", LARGER, one);
    for (spec, least) in [(restored, larger), (cloned, LARGER)] {
        let copy = bed.node().create(&spec).expect("there is room");
        bed.assert_refused(&copy, Some(WRONG));
        bed.stage(&copy);
        assert_eq!(bed.read(&copy), CONTENT);
        let total = space::of(&bed.staging(&copy).staging).expect("it is mounted");
        assert!(
            total.bytes.total > least.0 * 3 / 4,
            "it is as large as asked"
        );
        bed.unstage(&copy);
        bed.node().delete(&copy.id).expect("nobody uses it");
    }
    bed.node()
        .delete_snapshot(&snapshot.id)
        .expect("nobody uses it");
}

/// Cuts the first staging after each of its changes: the next one ends it, and what was whole stays.
fn survives(ground: Ground, form: Form) {
    let Some(mut bed) = Bed::new(ground, form) else {
        return;
    };
    let size = form.filesystem.map_or(SIZE, Filesystem::least).max(SIZE);
    for k in 0..ENDLESS {
        let created = bed.node().create(&bed.form.spec("one", size));
        let one = created.expect("there is room");
        let gate = Gate::cut_after(k);
        bed.restart(gate.clone());
        let staged = bed.node().stage(&bed.staging(&one));
        assert!(staged.is_ok() || gate.was_cut(), "after {k}: {staged:?}");
        let kept = staged.is_ok();
        if kept {
            fs::write(bed.at(&one), CONTENT).expect("there is room");
        }

        bed.restart(Gate::open());
        bed.stage(&one);
        assert!(!kept || bed.read(&one) == CONTENT, "after {k}");
        fs::write(bed.at(&one), CONTENT).expect("there is room");
        bed.unstage(&one);
        bed.stage(&one);
        assert_eq!(bed.read(&one), CONTENT, "after {k}");
        bed.unstage(&one);
        bed.node().delete(&one.id).expect("nobody uses it");
        assert_eq!(mappings(), Vec::<PathBuf>::new(), "after {k}");
        if !gate.was_cut() {
            assert!(k > 4, "a staging that encrypts makes changes");
            return;
        }
    }
    panic!("it never ends");
}

/// The one mapping that is open, and the device beneath it.
fn devices() -> (PathBuf, PathBuf) {
    let open = mappings();
    assert_eq!(open.len(), 1, "{open:?}");
    let mapping = fs::canonicalize(&open[0]).expect("udev made it");
    let rdev = fs::metadata(&mapping).expect("it is a device").rdev();
    let (below, _) = beneath(rdev).expect("it is a mapping");
    (mapping, Path::new("/dev").join(below))
}

fn mappings() -> Vec<PathBuf> {
    let nodes = fs::read_dir("/dev/mapper").expect("there is a device mapper");
    nodes
        .map(|node| node.expect("it can be read").path())
        .filter(|path| {
            let name = path.file_name().and_then(OsStr::to_str);
            name.is_some_and(|name| name.starts_with("orlop-"))
        })
        .collect()
}

fn size_of(device: &Path) -> u64 {
    let told = run("blockdev", [OsStr::new("--getsize64"), device.as_ref()]);
    let told = told.expect("it is a device");
    told.trim().parse().expect("it is a number")
}

/// Whether this text is somewhere in a file, a device, or the files of a directory.
fn holds(place: &Path, text: &str) -> bool {
    let options = ["-raqF", text].map(OsStr::new);
    run("grep", options.into_iter().chain([place.as_ref()])).is_ok()
}

/// What of a process tells its arguments or its environment, and has the key in it; of the tools that it started too.
fn holders(pid: u32) -> Vec<PathBuf> {
    ["cmdline", "environ"]
        .map(|file| PathBuf::from(format!("/proc/{pid}/{file}")))
        .into_iter()
        .filter(|path| holds(path, KEY))
        .collect()
}
