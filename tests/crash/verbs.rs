//! The verbs that are cut off: what each needs, does, must have done, and how it is taken back.

use orlop::driver::mounts::EphemeralSpec;
use orlop::volume::{
    Access, Result, Snapshot, SnapshotName, Use, Volume, VolumeId, VolumeName, VolumeSpec,
};

use crate::scene::{LARGER, Scene, USUAL};
use crate::support::form::wishes;
use crate::support::verbs::Node;

/// A verb of the driver on one subject.
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    /// Makes what it needs.
    pub(crate) prepare: fn(&Scene, &Node),
    /// Calls it, the same way each time.
    pub(crate) act: fn(&Scene, &Node) -> Result<()>,
    /// Looks that its result is right, beyond what is listed.
    pub(crate) check: fn(&Scene, &Node),
    /// Takes its result back.
    pub(crate) undo: fn(&Scene, &Node),
}

impl Verb {
    /// Whether such volumes have it: inline volumes are never block devices, and these alone are attached without
    /// being mounted; of some nothing can be modified.
    pub(crate) fn suits(&self, scene: &Scene) -> bool {
        if self.name == "modify" {
            return !scene.changes().is_empty();
        }
        match scene.form.access {
            Access::Mount => !self.name.contains("attached"),
            Access::Block => !self.name.contains("inline"),
        }
    }
}

pub(crate) const VERBS: &[Verb] = &[
    Verb {
        name: "create",
        prepare: nothing,
        act: |scene, node| node.create(&scene.form.spec("subject", USUAL)).map(drop),
        check: usable,
        undo: delete,
    },
    Verb {
        name: "clone",
        prepare: nothing,
        act: |scene, node| {
            let spec = scene.form.cloned("subject", LARGER, &scene.source);
            node.create(&spec).map(drop)
        },
        check: has_content,
        undo: delete,
    },
    Verb {
        name: "restore",
        prepare: nothing,
        act: |scene, node| {
            let spec = scene.form.restored("subject", LARGER, &scene.snapshot);
            node.create(&spec).map(drop)
        },
        check: has_content,
        undo: delete,
    },
    Verb {
        name: "grow",
        prepare: filled,
        act: |scene, node| node.grow(&subject(scene).id, LARGER).map(drop),
        check: has_content,
        undo: delete,
    },
    Verb {
        name: "grow, in use",
        prepare: staged,
        act: |scene, node| node.grow(&subject(scene).id, LARGER).map(drop),
        check: |scene, _| scene.assert_content(&subject(scene)),
        undo: unstage_and_delete,
    },
    Verb {
        name: "modify",
        prepare: filled,
        act: |scene, node| node.modify(&subject(scene).id, scene.changes()).map(drop),
        check: |scene, node| {
            let volume = node.get(&subject(scene).id).expect("it is there");
            assert_eq!(volume.record.modified, wishes(scene.changes()));
            node.stage(&scene.staging(&volume)).expect("it stages");
            scene.assert_changed(&volume);
            scene.assert_content(&volume);
            unstage(scene, node).expect("it unstages");
        },
        undo: delete,
    },
    Verb {
        name: "delete",
        prepare: filled,
        act: |scene, node| node.delete(&subject(scene).id),
        check: nothing,
        undo: nothing,
    },
    Verb {
        name: "delete, attached",
        prepare: staged,
        act: |scene, node| node.delete(&subject(scene).id),
        check: nothing,
        undo: nothing,
    },
    Verb {
        name: "snapshot",
        prepare: nothing,
        act: |scene, node| node.snapshot("subject", &scene.source.id).map(drop),
        check: restorable,
        undo: delete_snapshot,
    },
    Verb {
        name: "delete snapshot",
        prepare: |scene, node| drop(taken(scene, node)),
        act: |scene, node| node.delete_snapshot(&subject_of_snapshot(scene).id),
        check: nothing,
        undo: nothing,
    },
    Verb {
        name: "stage",
        prepare: filled,
        act: |scene, node| node.stage(&scene.staging(&subject(scene))),
        check: |scene, _| scene.assert_content(&subject(scene)),
        undo: unstage_and_delete,
    },
    Verb {
        name: "unstage",
        prepare: staged,
        act: unstage,
        check: has_content,
        undo: delete,
    },
    Verb {
        name: "publish",
        prepare: staged,
        act: |scene, node| node.publish(&scene.publication(&subject(scene))),
        check: |scene, _| scene.assert_content(&subject(scene)),
        undo: |scene, node| {
            let gone = node.unpublish(&subject(scene).id, &scene.target());
            gone.expect("it unpublishes");
            unstage_and_delete(scene, node);
        },
    },
    Verb {
        name: "unpublish",
        prepare: |scene, node| {
            staged(scene, node);
            let published = node.publish(&scene.publication(&subject(scene)));
            published.expect("it is staged");
        },
        act: |scene, node| node.unpublish(&subject(scene).id, &scene.target()),
        check: |scene, _| scene.assert_content(&subject(scene)),
        undo: unstage_and_delete,
    },
    Verb {
        name: "publish inline",
        prepare: nothing,
        act: |scene, node| node.publish_ephemeral(&inline(scene)),
        check: nothing,
        undo: |scene, node| unpublish_inline(scene, node).expect("it unpublishes"),
    },
    Verb {
        name: "unpublish inline",
        prepare: |scene, node| {
            let published = node.publish_ephemeral(&inline(scene));
            published.expect("there is room");
        },
        act: unpublish_inline,
        check: nothing,
        undo: nothing,
    },
];

fn nothing(_: &Scene, _: &Node) {}

/// The volume that a verb is about, as far as a caller knows it before it asks.
fn subject(scene: &Scene) -> Volume {
    let mut volume = scene.source.clone();
    volume.id.name = "subject".parse().expect("it is a legal name");
    volume
}

fn subject_of_snapshot(scene: &Scene) -> Snapshot {
    let mut snapshot = scene.snapshot.clone();
    snapshot.id.name = SnapshotName::from_csi("subject");
    snapshot
}

fn filled(scene: &Scene, node: &Node) {
    staged(scene, node);
    unstage(scene, node).expect("it unstages");
}

fn staged(scene: &Scene, node: &Node) {
    let created = node.create(&scene.form.spec("subject", USUAL));
    let volume = created.expect("there is room");
    node.stage(&scene.staging(&volume)).expect("it stages");
    scene.write(&volume, "content");
}

fn unstage(scene: &Scene, node: &Node) -> Result<()> {
    let volume = subject(scene);
    node.unstage(&volume.id, &scene.staging(&volume).staging)
}

fn taken(scene: &Scene, node: &Node) -> Snapshot {
    let snapshot = node.snapshot("subject", &scene.source.id);
    snapshot.expect("the source exists")
}

/// It can be staged, written and read.
fn usable(scene: &Scene, node: &Node) {
    let volume = subject(scene);
    node.stage(&scene.staging(&volume)).expect("it stages");
    scene.write(&volume, "content");
    scene.assert_content(&volume);
    unstage(scene, node).expect("it unstages");
}

/// It holds what it is to hold.
fn has_content(scene: &Scene, node: &Node) {
    let volume = subject(scene);
    node.stage(&scene.staging(&volume)).expect("it stages");
    scene.assert_content(&volume);
    unstage(scene, node).expect("it unstages");
}

/// What is restored from it holds what the source does.
fn restorable(scene: &Scene, node: &Node) {
    let spec = scene.form.restored("subject", USUAL, &taken(scene, node));
    node.create(&spec).expect("there is room");
    has_content(scene, node);
    delete(scene, node);
}

fn delete(scene: &Scene, node: &Node) {
    let id: VolumeId = subject(scene).id;
    node.delete(&id).expect("nobody uses it");
}

fn unstage_and_delete(scene: &Scene, node: &Node) {
    unstage(scene, node).expect("it unstages");
    delete(scene, node);
}

fn delete_snapshot(scene: &Scene, node: &Node) {
    let deleted = node.delete_snapshot(&subject_of_snapshot(scene).id);
    deleted.expect("nobody uses it");
}

fn inline(scene: &Scene) -> EphemeralSpec {
    EphemeralSpec {
        volume: VolumeSpec {
            ephemeral: true,
            ..scene.form.spec("subject", USUAL)
        },
        capability: scene.form.used(Use::Writers, false),
        target: scene.target(),
        key: scene.form.key(),
    }
}

fn unpublish_inline(scene: &Scene, node: &Node) -> Result<()> {
    let name: VolumeName = subject(scene).id.name;
    node.unpublish_ephemeral(&name, &scene.target())
}
