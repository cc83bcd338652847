//! Encrypted volumes: what only the key opens, through growth, copies, crashes and the end.

use std::fs;
use std::path::PathBuf;

use orlop::config;
use orlop::driver::mounts::StageSpec;
use orlop::host::gate::Gate;
use orlop::host::space;
use orlop::names::ENCRYPTION_KEY;
use orlop::volume::{Bytes, Error, Filesystem, Secret, Use, Volume};
use tempfile::TempDir;

use crate::mapping::{devices, holds, mappings, size_of};
use crate::support::form::Form;
use crate::support::home::{Ground, Home};
use crate::support::verbs::Node;
use crate::support::{run, skipped, takes_long, until};

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
fn the_first_staging_of_an_encrypted_dataset_survives_a_crash_anywhere() {
    if !takes_long() {
        return skipped("a first staging that is cut off at every step", LONG);
    }
    survives(Ground::Zfs, Form::TREE);
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
