//! The upstream csi-sanity suite against the real binary, on each kind of volume.

#[path = "support/node.rs"]
mod node;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use node::Node;
use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use orlop::names::ENCRYPTION_KEY;
use support::form::KEY;
use support::home::Ground;
use support::{SPECS_THAT_MODIFY, run, skipped, tell};

/// The specs that may be skipped, by how their names begin, and why.
const NOT_OURS: [(&str, &str); 9] = [
    (
        "Controller Service [Controller Server] ControllerPublishVolume",
        ATTACH,
    ),
    (
        "Controller Service [Controller Server] ControllerUnpublishVolume",
        ATTACH,
    ),
    (
        "Controller Service [Controller Server] volume lifecycle",
        ATTACH,
    ),
    (
        "ModifyVolume [Controller Server] should modify a volume",
        MODIFY,
    ),
    (
        "ModifyVolume [Controller Server] should fail to modify a volume created with",
        MODIFY,
    ),
    (
        "Controller Service [Controller Server] CreateVolume should create volume with a volume attribute class",
        MODIFY,
    ),
    ("GroupController Service [GroupController Server]", GROUP),
    (
        "GroupController Service [GroupController VolumeGroupSnapshots]",
        GROUP,
    ),
    (
        "Controller Service [Controller Server] ListVolumes pagination should detect volumes added between pages",
        "switched off in the suite itself",
    ),
];
const ATTACH: &str = "nothing is attached: volumes are on their node";
const MODIFY: &str = "such a volume has no parameters that can be changed";
const GROUP: &str = "there are no group snapshots";

struct Spec {
    name: String,
    status: String,
    said: String,
}

macro_rules! pass {
    ($($name:ident: $ground:expr, $volumes:expr;)*) => { $(#[test] fn $name() { on($ground, $volumes); })* };
}

macro_rules! pass_in_a_guest {
    ($($name:ident: $ground:expr, $volumes:expr;)*) => {
        $(#[test] #[ignore = "tests/machine runs it in a guest"] fn $name() { on($ground, $volumes); })*
    };
}

pass! {
    trees_on_ext4_pass: Ground::Small("ext4"), TREE;
    trees_on_xfs_pass: Ground::Small("xfs"), TREE;
    trees_on_tmpfs_pass: Ground::Small("tmpfs"), TREE;
    subvolumes_of_btrfs_pass: Ground::Btrfs, TREE;
    block_volumes_on_ext4_pass: Ground::Small("ext4"), BLOCK;
    block_volumes_on_xfs_pass: Ground::Small("xfs"), BLOCK;
    block_volumes_on_tmpfs_pass: Ground::Small("tmpfs"), BLOCK;
    block_volumes_on_btrfs_pass: Ground::Btrfs, BLOCK;
    images_with_ext4_pass: LARGE, image("layout: image\ncsi.storage.k8s.io/fstype: ext4\n", 16);
    images_with_xfs_pass: LARGE, image("layout: image\ncsi.storage.k8s.io/fstype: xfs\n", 304);
    images_with_btrfs_pass: LARGE, image("layout: image\ncsi.storage.k8s.io/fstype: btrfs\n", 256);
}

pass_in_a_guest! {
    thin_volumes_pass: Ground::Lvm { thin: true }, DEVICE;
    thin_block_volumes_pass: Ground::Lvm { thin: true }, BLOCK;
    thick_volumes_pass: Ground::Lvm { thin: false }, DEVICE;
    thick_block_volumes_pass: Ground::Lvm { thin: false }, BLOCK;
    encrypted_thin_volumes_pass: Ground::Lvm { thin: true }, ENCRYPTED;
    datasets_pass: Ground::Zfs, DATASET;
    encrypted_datasets_pass: Ground::Zfs, ENCRYPTED_DATASET;
    zvols_with_ext4_pass: Ground::Zfs, DEVICE;
    zvols_pass: Ground::Zfs, ZVOL;
    quota_trees_on_xfs_pass: Ground::Quota("xfs"), QUOTA;
    quota_trees_on_ext4_pass: Ground::Quota("ext4"), QUOTA;
}

/// A disk for volumes that can not be small.
const LARGE: Ground = Ground::Directory("ext4");

/// Volumes of one kind.
#[derive(Clone, Copy)]
struct Volumes {
    access: &'static str,
    /// The parameters of their class, as YAML.
    parameters: &'static str,
    /// What can be changed of them, as YAML.
    mutable: Option<&'static str>,
    size_mib: u64,
}

const TREE: Volumes = mounted("layout: tree\n");
const QUOTA: Volumes = Volumes {
    mutable: Some("maxInodes: \"100000\"\n"),
    ..mounted("layout: tree\nrequireQuota: \"true\"\n")
};
const DATASET: Volumes = Volumes {
    mutable: Some("compression: lz4\n"),
    ..TREE
};
const ENCRYPTED_DATASET: Volumes = Volumes {
    mutable: Some("recordsize: 16KiB\n"),
    ..mounted("layout: tree\nencryption: \"true\"\n")
};
const ZVOL: Volumes = Volumes {
    mutable: Some("logbias: throughput\n"),
    ..BLOCK
};
const DEVICE: Volumes = mounted("layout: device\n");
const ENCRYPTED: Volumes = mounted("layout: device\nencryption: \"true\"\n");
const BLOCK: Volumes = Volumes {
    access: "block",
    ..mounted("")
};

const fn mounted(parameters: &'static str) -> Volumes {
    image(parameters, 12)
}

const fn image(parameters: &'static str, size_mib: u64) -> Volumes {
    Volumes {
        access: "mount",
        parameters,
        mutable: None,
        size_mib,
    }
}

/// Runs the suite: all specs that are not skipped for a known reason pass, and nothing is left of what they did.
fn on(ground: Ground, volumes: Volumes) {
    let name = format!("{} on {ground:?}, {:?}", volumes.access, volumes.parameters);
    let (Some(suite), Some(home)) = (suite(&name), ground.make()) else {
        return;
    };
    let paper = tempfile::tempdir().expect("the temporary directory can be written");
    let written = |name: &str, text: &str| {
        let path = paper.path().join(name);
        fs::write(&path, text).expect("the directory can be written");
        path.display().to_string()
    };
    let place = home.path(paper.path()).join("pool");
    let pools = written("pools.yaml", &home.pools("pool", &place));
    let node = Node::start(&["--pools", &pools]);

    let mut options = vec![
        format!("-csi.testvolumesize={}", volumes.size_mib << 20),
        format!(
            "-csi.testvolumeexpandsize={}",
            (volumes.size_mib + 16) << 20
        ),
        format!("-csi.testvolumeaccesstype={}", volumes.access),
    ];
    if !volumes.parameters.is_empty() {
        let file = written("parameters.yaml", volumes.parameters);
        options.push(format!("-csi.testvolumeparameters={file}"));
    }
    if volumes.parameters.contains("encryption") {
        let file = written("secrets.yaml", &secrets());
        options.push(format!("-csi.secrets={file}"));
    }
    match volumes.mutable {
        Some(mutable) => {
            let file = written("mutable.yaml", mutable);
            options.push(format!("-csi.testvolumemutableparameters={file}"));
        }
        None => options.push(format!("-ginkgo.skip={SPECS_THAT_MODIFY}")),
    }
    let specs = report(&suite, &node, &options, paper.path());

    count(&name, &specs);
    for spec in &specs {
        assert!(
            spec.status == "passed" || reason(spec).is_some(),
            "{}: {}\n{}",
            spec.name,
            spec.status,
            spec.said
        );
    }
    let passed = specs.iter().filter(|spec| spec.status == "passed").count();
    assert!(
        passed >= 70,
        "only {passed} specs passed: were the others not run?"
    );
    assert!(
        home.contents(&place).is_empty(),
        "{:?}",
        home.contents(&place)
    );
    assert_eq!(mounts_beneath(node.dir.path()), Vec::<PathBuf>::new());
}

/// The secrets of all calls, of which the suite knows but the maps' names; a staging has the key.
fn secrets() -> String {
    format!("NodeStageVolumeSecret: {{ {ENCRYPTION_KEY}: {KEY} }}\n")
}

/// What the suite left mounted.
fn mounts_beneath(beneath: &Path) -> Vec<PathBuf> {
    let mounts = Mounts::new(Gate::open())
        .all()
        .expect("the table can be read");
    let targets = mounts.into_iter().map(|mount| mount.target);
    targets
        .filter(|target| target.starts_with(beneath))
        .collect()
}

/// The suite's program, built on first use.
fn suite(kind: &str) -> Option<PathBuf> {
    let what = format!("csi-sanity {kind}");
    if !rustix::process::geteuid().is_root() {
        skipped(&what, "mounting needs root");
        return None;
    }
    if std::env::var_os("ORLOP_GUEST").is_some() {
        return Some(PathBuf::from("/payload/csi-sanity"));
    }
    if let Err(missing) = run("go", ["version"]) {
        skipped(&what, &format!("building the suite needs Go: {missing:#}"));
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sanity/build.sh");
    let path = run("sh", [script]).expect("the suite can be built");
    Some(PathBuf::from(path.trim()))
}

/// Why the spec may be skipped.
fn reason(spec: &Spec) -> Option<&'static str> {
    let known = NOT_OURS
        .iter()
        .find(|(name, _)| spec.name.starts_with(name));
    known
        .filter(|_| spec.status == "skipped" || spec.status == "pending")
        .map(|(_, reason)| *reason)
}

fn report(suite: &Path, node: &Node, options: &[String], paper: &Path) -> Vec<Spec> {
    let [mount, staging] = ["mount", "staging"].map(|name| node.dir.path().join(name));
    let file = paper.join("report.xml");
    let given = [
        ("csi.endpoint", node.socket.as_path()),
        ("csi.mountdir", &mount),
        ("csi.stagingdir", &staging),
        ("ginkgo.junit-report", &file),
    ];
    let given = given.map(|(key, path)| format!("-{key}={}", path.display()));
    // Whether all went well is read from the report, which also says what did not.
    let ran = run(&suite.display().to_string(), given.iter().chain(options));
    let text = fs::read_to_string(&file).unwrap_or_else(|_| panic!("no report: {ran:?}"));
    read(&text)
}

fn read(report: &str) -> Vec<Spec> {
    let report = roxmltree::Document::parse(report).expect("the report is XML");
    let cases = report
        .descendants()
        .filter(|node| node.has_tag_name("testcase"));
    let spec = |case: roxmltree::Node<'_, '_>| Spec {
        name: case
            .attribute("name")
            .unwrap_or_default()
            .trim_start_matches("[It] ")
            .to_owned(),
        status: case.attribute("status").unwrap_or_default().to_owned(),
        said: case
            .children()
            .filter_map(|part| Some(format!("{}\n{}", part.attribute("message")?, part.text()?)))
            .collect(),
    };
    cases.map(spec).collect()
}

/// Prints the counts.
fn count(kind: &str, specs: &[Spec]) {
    let of = |status: &str| specs.iter().filter(|spec| spec.status == status).count();
    let why = [ATTACH, MODIFY, GROUP].map(|why| {
        let skipped = specs
            .iter()
            .filter(|spec| reason(spec) == Some(why))
            .count();
        format!("{skipped}: {why}")
    });
    let (passed, skipped, pending) = (of("passed"), of("skipped"), of("pending"));
    let failed = specs.len() - passed - skipped - pending;
    tell(&format!(
        "csi-sanity {kind}: {passed} passed, {failed} failed, {skipped} skipped ({})",
        why.join("; ")
    ));
}
