//! The upstream csi-sanity suite against the real binary, on each kind of volume.

#[path = "support/node.rs"]
mod node;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use node::Node;
use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use support::{LoopFs, run, skipped, tell};

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
    ("ModifyVolume [Controller Server]", MODIFY),
    (
        "Controller Service [Controller Server] CreateVolume should create volume with a volume attribute class",
        MODIFY,
    ),
    (
        "Controller Service [Controller Server] CreateVolume should not create volume with an invalid volume attribute class",
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
const MODIFY: &str = "a volume has no parameters that can be changed";
const GROUP: &str = "there are no group snapshots";

/// One run of the suite.
struct Kind<'a> {
    name: &'a str,
    /// Which kind of pool, on which disk; a directory pool beside the socket, if nothing.
    pool: Option<(&'a str, &'a Path)>,
    /// The parameters of the class, as YAML.
    parameters: &'a str,
    access: &'a str,
    size_mib: u64,
}

struct Spec {
    name: String,
    status: String,
    said: String,
}

#[test]
fn trees_on_ext4_pass() {
    on("ext4", "directory", TREE);
}

#[test]
fn trees_on_xfs_pass() {
    on("xfs", "directory", TREE);
}

#[test]
fn trees_on_tmpfs_pass() {
    on("tmpfs", "directory", TREE);
}

#[test]
fn subvolumes_of_btrfs_pass() {
    on("btrfs", "btrfs", TREE);
}

#[test]
fn block_volumes_on_ext4_pass() {
    on("ext4", "directory", BLOCK);
}

#[test]
fn block_volumes_on_xfs_pass() {
    on("xfs", "directory", BLOCK);
}

#[test]
fn block_volumes_on_tmpfs_pass() {
    on("tmpfs", "directory", BLOCK);
}

#[test]
fn block_volumes_on_btrfs_pass() {
    on("btrfs", "btrfs", BLOCK);
}

#[test]
fn images_with_ext4_pass() {
    images("ext4", 16);
}

#[test]
fn images_with_xfs_pass() {
    images("xfs", 304);
}

#[test]
fn images_with_btrfs_pass() {
    images("btrfs", 256);
}

const TREE: (&str, &str, &str) = ("tree", "mount", "layout: tree\n");
const BLOCK: (&str, &str, &str) = ("block", "block", "");

/// With a pool of this kind on a filesystem of its own.
fn on(filesystem: &str, kind: &str, (what, access, parameters): (&str, &str, &str)) {
    let Some(disk) = LoopFs::new(filesystem) else {
        return;
    };
    pass(&Kind {
        name: &format!("{kind}/{what} on {filesystem}"),
        pool: Some((kind, disk.path())),
        parameters,
        access,
        size_mib: 12,
    });
}

/// With images in a pool on whatever the temporary directory is on: the disks of the others are too small.
fn images(filesystem: &str, size_mib: u64) {
    pass(&Kind {
        name: &format!("directory/image with {filesystem}"),
        pool: None,
        parameters: &format!("layout: image\ncsi.storage.k8s.io/fstype: {filesystem}\n"),
        access: "mount",
        size_mib,
    });
}

/// Runs the suite: all specs that are not skipped for a known reason pass, and nothing is left of what they did.
fn pass(kind: &Kind<'_>) {
    let Some(suite) = suite(kind.name) else {
        return;
    };
    let paper = tempfile::tempdir().expect("the temporary directory can be written");
    let written = |name: &str, text: &str| {
        let path = paper.path().join(name);
        fs::write(&path, text).expect("the directory can be written");
        path.display().to_string()
    };
    let pool;
    let node = if let Some((kind, disk)) = kind.pool {
        pool = disk.join("pool");
        fs::create_dir(&pool).expect("the disk is new");
        let place = format!("{kind}: {{ path: {} }}", pool.display());
        let file = written(
            "pools.yaml",
            &format!("pools: [{{ name: default, {place} }}]"),
        );
        Node::start(&["--pools", &file])
    } else {
        let node = Node::start(&[]);
        pool = node.dir.path().join("data/default");
        node
    };

    let mut options = vec![
        format!("-csi.testvolumesize={}", kind.size_mib << 20),
        format!("-csi.testvolumeexpandsize={}", (kind.size_mib + 16) << 20),
        format!("-csi.testvolumeaccesstype={}", kind.access),
    ];
    if !kind.parameters.is_empty() {
        let file = written("parameters.yaml", kind.parameters);
        options.push(format!("-csi.testvolumeparameters={file}"));
    }
    let specs = report(&suite, &node, &options, paper.path());

    count(kind.name, &specs);
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
    assert_eq!(left(&pool, node.dir.path()), Vec::<PathBuf>::new());
}

/// What the suite left in the pool, and what it left mounted.
fn left(pool: &Path, beneath: &Path) -> Vec<PathBuf> {
    let entries = ["volumes", "snapshots", "making", "trash"]
        .iter()
        .flat_map(|part| fs::read_dir(pool.join(part)).expect("the pool is there"))
        .map(|entry| entry.expect("it can be read").path());
    let mounts = Mounts::new(Gate::open())
        .all()
        .expect("the table can be read");
    let mounts = mounts
        .into_iter()
        .map(|mount| mount.target)
        .filter(|target| target.starts_with(beneath));
    entries.chain(mounts).collect()
}

/// The suite's program, built on first use.
fn suite(kind: &str) -> Option<PathBuf> {
    let what = format!("csi-sanity {kind}");
    if !rustix::process::geteuid().is_root() {
        skipped(&what, "mounting needs root");
        return None;
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
