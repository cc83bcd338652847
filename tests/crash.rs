//! Every verb on every kind of volume, cut off after each of its changes to the machine: what a crash there leaves.

mod support;

#[path = "crash/scene.rs"]
mod scene;
#[path = "crash/verbs.rs"]
mod verbs;

use orlop::host::gate::Gate;
use orlop::host::namespace;
use orlop::volume::Filesystem;
use scene::{Scene, Seen};
use support::form::Form;
use support::home::Ground;
use support::verbs::Node;
use support::{skipped, tell};
use verbs::{VERBS, Verb};

/// How often the starts after a crash crash too.
const CRASHED_STARTS: u64 = 3;

/// More changes than any verb here makes.
const ENDLESS: u64 = 200;

#[test]
fn trees_on_ext4_survive_a_crash_anywhere() {
    survives(Ground::Directory("ext4"), Form::TREE);
}

#[test]
fn trees_on_xfs_survive_a_crash_anywhere() {
    survives(Ground::Directory("xfs"), Form::TREE);
}

#[test]
fn subvolumes_survive_a_crash_anywhere() {
    survives(Ground::Btrfs, Form::TREE);
}

#[test]
fn images_of_ext4_survive_a_crash_anywhere() {
    survives(Ground::Directory("xfs"), Form::image(Filesystem::Ext4));
}

#[test]
fn images_of_xfs_survive_a_crash_anywhere() {
    survives(Ground::Directory("xfs"), Form::image(Filesystem::Xfs));
}

#[test]
fn images_of_btrfs_survive_a_crash_anywhere() {
    survives(Ground::Directory("xfs"), Form::image(Filesystem::Btrfs));
}

#[test]
fn copied_images_survive_a_crash_anywhere() {
    survives(Ground::Directory("ext4"), Form::image(Filesystem::Ext4));
}

#[test]
fn block_volumes_survive_a_crash_anywhere() {
    survives(Ground::Directory("xfs"), Form::BLOCK);
}

/// Those for which `tests/machine` has a guest, in which a change takes seconds.
macro_rules! in_a_guest {
    ($($name:ident: $ground:expr, $form:expr;)*) => {
        $(#[test] #[ignore = "tests/machine runs it in a guest"] fn $name() { survives($ground, $form); })*
    };
}

in_a_guest! {
    thin_volumes_survive_a_crash_anywhere: Ground::Lvm { thin: true }, Form::device(Filesystem::Ext4);
    thick_volumes_survive_a_crash_anywhere: Ground::Lvm { thin: false }, Form::device(Filesystem::Ext4);
    encrypted_thin_volumes_survive_a_crash_anywhere: Ground::Lvm { thin: true }, Form::device(Filesystem::Ext4).encrypted();
    datasets_survive_a_crash_anywhere: Ground::Zfs, Form::TREE;
    encrypted_datasets_survive_a_crash_anywhere: Ground::Zfs, Form::TREE.encrypted();
    zvols_survive_a_crash_anywhere: Ground::Zfs, Form::device(Filesystem::Ext4);
    quota_trees_on_xfs_survive_a_crash_anywhere: Ground::Quota("xfs"), Form::QUOTA;
    quota_trees_on_ext4_survive_a_crash_anywhere: Ground::Quota("ext4"), Form::QUOTA;
}

/// Cuts all verbs everywhere on this kind, in mounts that end with the test.
fn survives(ground: Ground, form: Form) {
    if !rustix::process::geteuid().is_root() {
        return skipped(&format!("crashes on {ground:?}"), "mounting needs root");
    }
    let desk = tempfile::tempdir().expect("a temporary directory can be made");
    namespace::in_own_mounts(|| {
        let Some(home) = ground.make() else {
            return;
        };
        let scene = Scene::set(home, form, desk.path());
        for verb in VERBS.iter().filter(|verb| verb.suits(&scene)) {
            let cuts = cut_everywhere(&scene, verb);
            assert!(cuts > 0, "{} changes nothing", verb.name);
        }
        scene.strike();
    })
    .expect("root may make a mount namespace");
}

/// Cuts a verb after each of its changes, and says after how many of them it is whole.
fn cut_everywhere(scene: &Scene, verb: &Verb) -> u64 {
    let (before, whole) = uncut(scene, verb);
    for k in 0..ENDLESS {
        let at = format!("{} after {k} changes", verb.name);
        // To be read when it fails.
        tell(&at);
        (verb.prepare)(scene, &scene.start());
        let gate = Gate::cut_after(k);

        let answer = scene
            .try_start(gate.clone())
            .map(|node| (verb.act)(scene, &node));
        let answered = matches!(answer, Ok(Ok(())));
        let was_cut = gate.was_cut();
        assert!(answered || was_cut, "{at}: {answer:?}");
        for j in 0..CRASHED_STARTS {
            drop(scene.try_start(Gate::cut_after(j)));
        }

        let node = scene.start();
        scene.assert_unharmed(&at);
        let after = scene.seen(&node);
        after.assert_one_of(&before, &whole, &at);
        assert!(
            !answered || after == whole,
            "{at}: it was answered, and is gone: {after:?}"
        );
        retry(scene, verb, &node, &whole, &at);
        if !was_cut {
            return k;
        }
    }
    panic!("{} never ends", verb.name);
}

/// What is seen before the verb and after it, when nothing goes wrong.
fn uncut(scene: &Scene, verb: &Verb) -> (Seen, Seen) {
    let node = scene.start();
    (verb.prepare)(scene, &node);
    let before = scene.seen(&node);
    (verb.act)(scene, &node).expect("nothing goes wrong");
    let whole = scene.seen(&node);
    retry(scene, verb, &node, &whole, verb.name);
    (before, whole)
}

/// The verb again, as a caller that got no answer does; then everything is taken back, and nothing may be left.
fn retry(scene: &Scene, verb: &Verb, node: &Node, whole: &Seen, at: &str) {
    (verb.act)(scene, node).unwrap_or_else(|error| panic!("{at}, again: {error}"));
    assert_eq!(scene.seen(node), *whole, "{at}, again");
    (verb.check)(scene, node);
    (verb.undo)(scene, node);
    scene.assert_tidy(node, at);
}
