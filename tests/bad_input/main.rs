//! Every call with every kind of nonsense: the right code, a message that says what to do, and nothing changed.

mod disks;
mod ids;
mod order;
mod paths;
mod sizes;
mod wishes;

#[path = "../support/calls.rs"]
mod calls;
#[path = "../support/node.rs"]
mod node;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use tempfile::TempDir;
use tonic::{Code, Status};

use calls::{Client, MIB};
use node::Node;

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
    _data: Option<TempDir>,
}

/// One call that must not go through, or must change nothing.
pub(crate) struct Case {
    what: String,
    call: Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>,
    code: Code,
    word: &'static str,
}

/// A call on a client of the house: `call!(house, controller.delete_volume(request))`.
#[macro_export]
macro_rules! call {
    ($house:expr, $service:ident.$method:ident($request:expr)) => {{
        let mut client = $house.client.clone();
        let request = $request;
        $crate::Case::new(stringify!($method), &request.clone(), async move {
            client.$service.$method(request).await.map(drop)
        })
    }};
}

impl Case {
    pub(crate) fn new(
        method: &str,
        request: &impl Debug,
        call: impl Future<Output = Result<(), Status>> + Send + 'static,
    ) -> Self {
        let request: String = format!("{request:?}").chars().take(300).collect();
        Self {
            what: format!("{method} {request}"),
            call: Box::pin(call),
            code: Code::Ok,
            word: "",
        }
    }

    /// With which code it is refused, and a word that its message must hold.
    pub(crate) fn is(self, code: Code, word: &'static str) -> Self {
        Self { code, word, ..self }
    }
}

impl House {
    /// Nothing, and a line that says why, without root.
    pub(crate) async fn new() -> Option<Self> {
        Self::with(|| Node::start(&["--node-name", "here"]), None).await
    }

    /// The same, its pool named by a path that leads through a symlink.
    pub(crate) async fn behind_a_symlink() -> Option<Self> {
        let data = tempfile::tempdir().expect("the temporary directory can be written");
        let [real, link] = ["real", "link"].map(|name| data.path().join(name));
        fs::create_dir(&real).expect("the directory is new");
        std::os::unix::fs::symlink(&real, &link).expect("the name is free");
        Self::with(|| Node::start(&["--data", &calls::text(&link)]), Some(data)).await
    }

    async fn with(start: impl FnOnce() -> Node, data: Option<TempDir>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            support::skipped("bad input", "mounting needs root");
            return None;
        }
        let node = start();
        let mut client = Client::new(node.channel().await);
        let at = node.dir.path().join("at");
        fs::create_dir(&at).expect("the directory is new");
        let wanted = [
            calls::volume("tree", MIB),
            calls::image("image", 16 * MIB, "ext4"),
            calls::device("device", 16 * MIB),
        ];
        let mut ids = Vec::new();
        for volume in wanted {
            ids.push(
                client
                    .create(volume)
                    .await
                    .expect("there is room")
                    .volume_id,
            );
        }
        let [tree, image, device] = ids.try_into().expect("three were made");
        let taken = client.snapshot("snapshot", &tree).await;
        let staged = at.join("staged");
        let stage = client.stage(&tree, &staged, calls::mounted()).await;
        stage.expect("it can be staged");
        Some(Self {
            client,
            tree,
            image,
            device,
            snapshot: taken.expect("there is room").snapshot_id,
            staged,
            at,
            pool: match &data {
                Some(data) => data.path().join("real/default"),
                None => node.dir.path().join("data/default"),
            },
            node,
            _data: data,
        })
    }

    /// Makes all these calls, each of which must be answered as it says and change nothing.
    pub(crate) async fn answers(&self, cases: Vec<Case>) {
        let mut wrong = String::new();
        for case in cases {
            let before = self.state();
            let answer = case.call.await;
            let (code, message) = match &answer {
                Ok(()) => (Code::Ok, ""),
                Err(status) => (status.code(), status.message()),
            };
            let shown: String = message.chars().take(400).collect();
            if code != case.code || !message.contains(case.word) {
                let _ = writeln!(
                    wrong,
                    "{}\n  wanted {:?} {:?}\n  got {code:?} {shown}",
                    case.what, case.code, case.word
                );
            }
            if message.len() > 6000 {
                let _ = writeln!(
                    wrong,
                    "{}\n  the message has {} bytes",
                    case.what,
                    message.len()
                );
            }
            let after = self.state();
            for change in before.symmetric_difference(&after) {
                let _ = writeln!(wrong, "{}\n  changed {change}", case.what);
            }
        }
        assert!(wrong.is_empty(), "{wrong}{}", self.node.log());
    }

    /// All that is there: the pool, the consumers' paths, and the mounts.
    fn state(&self) -> BTreeSet<String> {
        let mut state = BTreeSet::new();
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
