//! Every call with every kind of nonsense: the right code, a message that says what to do, and nothing changed.

mod case;
mod disks;
mod every;
mod ids;
mod kinds;
mod order;
mod paths;
mod sizes;
mod uses;
mod wishes;

#[path = "../support/calls.rs"]
mod calls;
#[path = "../support/node.rs"]
mod node;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use orlop::csi::proto::{CreateVolumeRequest, NodeStageVolumeRequest};
use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use orlop::names::ENCRYPTION_KEY;
use tempfile::TempDir;

use calls::{Client, MIB};
use case::Case;
use node::Node;
use support::form::KEY;
use support::home::{Ground, Home};

/// A node with a tree, an image and a device, one snapshot of each, the tree staged.
pub(crate) struct House {
    pub(crate) client: Client,
    pub(crate) tree: String,
    pub(crate) image: String,
    pub(crate) device: String,
    pub(crate) snapshot: String,
    /// Where the tree is staged.
    pub(crate) staged: PathBuf,
    /// Where consumers' paths are.
    pub(crate) at: PathBuf,
    pub(crate) pool: PathBuf,
    node: Node,
    /// What its pool is on, if that is not the directory of the node, which goes first.
    home: Option<Home>,
    _data: Option<TempDir>,
}

impl House {
    /// Nothing, and a line that says why, without root.
    pub(crate) async fn new() -> Option<Self> {
        may_mount()?;
        let node = Node::start(&["--node-name", "here"]);
        let pool = node.dir.path().join("data/default");
        Some(Self::furnish(node, pool, usual()).await)
    }

    /// The same, its pool named by a path that leads through a symlink.
    pub(crate) async fn behind_a_symlink() -> Option<Self> {
        may_mount()?;
        let data = tempfile::tempdir().expect("the temporary directory can be written");
        let [real, link] = ["real", "link"].map(|name| data.path().join(name));
        fs::create_dir(&real).expect("the directory is new");
        std::os::unix::fs::symlink(&real, &link).expect("the name is free");
        let node = Node::start(&["--data", &calls::text(&link)]);
        let pool = real.join("default");
        Some(Self {
            _data: Some(data),
            ..Self::furnish(node, pool, usual()).await
        })
    }

    /// The same, its pool on this ground, with these volumes.
    pub(crate) async fn on(ground: Ground, wanted: [CreateVolumeRequest; 3]) -> Option<Self> {
        may_mount()?;
        let home = ground.make()?;
        let paper = tempfile::tempdir().expect("the temporary directory can be written");
        let pool = home.path(paper.path()).join("pool");
        let file = paper.path().join("pools.yaml");
        fs::write(&file, home.pools("default", &pool)).expect("the directory can be written");
        let node = Node::start(&["--pools", &calls::text(&file)]);
        Some(Self {
            home: Some(home),
            ..Self::furnish(node, pool, wanted).await
        })
    }

    async fn furnish(node: Node, pool: PathBuf, wanted: [CreateVolumeRequest; 3]) -> Self {
        let mut client = Client::new(node.channel().await);
        let at = node.dir.path().join("at");
        fs::create_dir(&at).expect("the directory is new");
        let mut ids = Vec::new();
        for volume in wanted {
            let made = client.create(volume).await.expect("there is room");
            ids.push(made.volume_id);
        }
        let [tree, image, device] = ids.try_into().expect("three were made");
        let taken = client.snapshot("snapshot", &tree).await;
        let staged = at.join("staged");
        let stage = NodeStageVolumeRequest {
            volume_id: tree.clone(),
            staging_target_path: calls::text(&staged),
            volume_capability: Some(calls::mounted()),
            secrets: [(ENCRYPTION_KEY.to_owned(), KEY.to_owned())].into(),
            ..Default::default()
        };
        let stage = client.node.node_stage_volume(stage).await;
        stage.expect("it can be staged");
        Self {
            client,
            tree,
            image,
            device,
            snapshot: taken.expect("there is room").snapshot_id,
            staged,
            at,
            pool,
            node,
            home: None,
            _data: None,
        }
    }

    /// Makes all these calls, each of which must be answered as it says and change nothing.
    pub(crate) async fn answers(&self, cases: Vec<Case>) {
        let mut wrong = String::new();
        for case in cases {
            let before = self.state();
            let what = case.what.clone();
            wrong += &case.verdict().await;
            wrong += &self.changes_since(&before, &what);
        }
        assert!(wrong.is_empty(), "{wrong}{}", self.node.log());
    }

    /// The same, where to look at a pool takes long: what changed is looked for at the end.
    pub(crate) async fn answers_all(&self, cases: Vec<Case>) {
        let before = self.state();
        let mut wrong = String::new();
        for case in cases {
            wrong += &case.verdict().await;
        }
        wrong += &self.changes_since(&before, "one of them");
        assert!(wrong.is_empty(), "{wrong}{}", self.node.log());
    }

    fn changes_since(&self, before: &BTreeSet<String>, by: &str) -> String {
        let after = self.state();
        let changes = before.symmetric_difference(&after);
        changes.fold(String::new(), |mut told, change| {
            let _ = writeln!(told, "{by}\n  changed {change}");
            told
        })
    }

    /// All that is there: the pool, the consumers' paths, and the mounts.
    fn state(&self) -> BTreeSet<String> {
        let mut state = self.home.as_ref().map(Home::details).unwrap_or_default();
        state.extend(tree_of(&self.pool));
        state.extend(tree_of(&self.at));
        for mount in Mounts::new(Gate::open())
            .all()
            .expect("the table can be read")
        {
            if mount.target.starts_with(self.node.dir.path()) {
                state.insert(format!("{mount:?}"));
            }
        }
        state
    }
}

/// The volumes of most houses.
fn usual() -> [CreateVolumeRequest; 3] {
    [
        calls::volume("tree", MIB),
        calls::image("image", 16 * MIB, "ext4"),
        calls::device("device", 16 * MIB),
    ]
}

fn may_mount() -> Option<()> {
    let may = rustix::process::geteuid().is_root();
    if !may {
        support::skipped("bad input", "mounting needs root");
    }
    may.then_some(())
}

/// Everything beneath a directory.
fn tree_of(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            // What vanishes between two looks is a change too, but of something else.
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let size = if metadata.is_dir() {
                0
            } else {
                metadata.size()
            };
            let mode = metadata.permissions().mode();
            found.push(format!(
                "{} {mode:o} {size} {}",
                path.display(),
                metadata.ino()
            ));
            if metadata.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

/// Ids of volumes that never were.
pub(crate) fn odd_ids() -> Vec<String> {
    let odd = [
        "..",
        "/",
        ".",
        "default",
        "default/",
        "/default",
        "default/..",
        "default/../default",
        "default/none",
        "nowhere/none",
        "default/tree\0",
        "default/tree\n",
        "\n",
        "\0",
        "default/bäume",
        "日本",
        "default/tree/",
        "default//tree",
        "default/Tree",
        " default/tree",
        "default/tree ",
        "%s%n",
        "-rf",
    ];
    odd.into_iter()
        .map(str::to_owned)
        .chain([huge(), format!("default/{}", huge())])
        .collect()
}

/// One mebibyte of text.
pub(crate) fn huge() -> String {
    "a".repeat(1 << 20)
}
