//! Claims about what is done to volumes while they are used.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use orlop::host::filesystem::can_grow_mounted;
use orlop::volume::{Access, Error, Layout};

use crate::claims;
use crate::shown::no_loops_are_left;
use crate::support::until;
use crate::trial::{Claim, LARGER, Trial};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_volume_in_use_is_not_deleted_also_after_a_restart,
    a_volume_grows_while_it_is_used,
    a_snapshot_of_a_volume_in_use_is_whole,
    rows_that_are_synced_before_a_snapshot_are_in_it,
    a_clone_is_made_while_its_source_is_written,
];

/// How many rows are in a log before a snapshot of it is taken.
const SOME_ROWS: usize = 20;

fn a_volume_in_use_is_not_deleted_also_after_a_restart(trial: &mut Trial) {
    let volume = trial.filled("one", "content");
    let staging = trial.staging(&volume);
    trial.show(&volume);

    for restart in [false, true] {
        if restart {
            trial.restart();
        }
        let refused = trial.node().delete(&volume.id);
        assert!(matches!(refused, Err(Error::InUse(_))), "{refused:?}");
    }
    let shown = trial.show(&volume);
    assert_eq!(shown.read(), "content");
    if trial.form.access == Access::Block {
        let early = trial.node().unstage(&volume.id, &staging.staging);
        assert!(matches!(early, Err(Error::InUse(_))), "{early:?}");
    }
    shown.hide();

    trial.node().delete(&volume.id).expect("nobody uses it");
    assert!(no_loops_are_left(trial) && trial.is_tidy());
}

fn a_volume_grows_while_it_is_used(trial: &mut Trial) {
    let (node, larger) = (trial.node(), LARGER);
    let volume = trial.filled("one", "content");
    let shown = trial.show(&volume);
    // It is in memory alone when the device changes.
    shown.write("newer");

    let grown = node.grow(&volume.id, larger).expect("there is room");
    assert_eq!(grown.record.usable(), larger);
    assert_eq!(shown.read(), "newer");
    if !trial.form.is_tree() {
        let now = trial.form.filesystem.is_none_or(can_grow_mounted);
        assert_eq!(shown.reaches(larger), now);
    }
    shown.hide();

    let shown = trial.show(&grown);
    assert_eq!(shown.read(), "newer");
    assert!(trial.form.is_tree() || shown.reaches(larger));
    shown.hide();
}

fn a_snapshot_of_a_volume_in_use_is_whole(trial: &mut Trial) {
    let (node, volume) = (trial.node(), trial.create("one"));
    let shown = trial.show(&volume);
    shown.write("before");

    let snapshot = node.snapshot("snapshot", &volume.id).expect("it is taken");
    // It would stand still for ever if it was left frozen.
    shown.write("after");
    let restored = trial.form.restored("two", LARGER, &snapshot);
    let restored = node.create(&restored).expect("there is room");

    assert_eq!(trial.read(&restored), "before");
    assert_eq!(shown.read(), "after");
    shown.hide();
    assert!(no_loops_are_left(trial));
}

/// As a database does it: a log that is written, and synced, while the snapshot is taken.
fn rows_that_are_synced_before_a_snapshot_are_in_it(trial: &mut Trial) {
    if trial.form.access == Access::Block {
        return;
    }
    let (node, volume) = (trial.node(), trial.create("one"));
    let shown = trial.show(&volume);
    let log = shown.target.join("rows");
    let (synced, ended) = (AtomicUsize::new(0), AtomicBool::new(false));

    let (before, snapshot) = thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::File::create(&log).expect("there is room");
            for row in 1.. {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                writeln!(file, "{row}").expect("there is room");
                file.sync_data().expect("there is room");
                synced.store(row, Ordering::Relaxed);
            }
        });
        let has_begun = until(|| synced.load(Ordering::Relaxed) >= SOME_ROWS);
        let before = synced.load(Ordering::Relaxed);
        let snapshot = node.snapshot("snapshot", &volume.id);
        ended.store(true, Ordering::Relaxed);
        assert!(has_begun, "nothing is written");
        (before, snapshot.expect("there is room"))
    });
    shown.hide();
    let restored = trial.form.restored("two", LARGER, &snapshot);
    let restored = node.create(&restored).expect("there is room");
    let shown = trial.show(&restored);
    let text = fs::read_to_string(shown.target.join("rows")).expect("it was there");
    shown.hide();

    // The last row may have been on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let rows: Vec<usize> = whole.lines().flat_map(str::parse).collect();
    assert!(rows.len() >= before, "{} of {before}: {text}", rows.len());
    assert!(rows.iter().copied().eq(1..=rows.len()), "{text}");
}

fn a_clone_is_made_while_its_source_is_written(trial: &mut Trial) {
    let (node, volume) = (trial.node(), trial.filled("one", "at rest"));
    let shown = trial.show(&volume);
    let ended = AtomicBool::new(false);

    let clone = thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                shown.write("in flux");
            }
        });
        let clone = node.create(&trial.form.cloned("two", LARGER, &volume));
        ended.store(true, Ordering::Relaxed);
        clone.expect("there is room")
    });

    // A file is emptied before it is written again. A tree is copied file by file, and one that is emptied just then
    // keeps the length that it had, as a hole; an image or a subvolume is of one instant.
    let content = trial.read(&clone);
    let emptied = trial.form.layout == Some(Layout::Tree) && content.bytes().all(|byte| byte == 0);
    let whole = ["at rest", "in flux", ""].contains(&&*content);
    assert!(whole || emptied, "{content:?}");
    shown.write("own");
    trial.write(&clone, "another");
    assert_eq!(shown.read(), "own");
    shown.hide();
}
