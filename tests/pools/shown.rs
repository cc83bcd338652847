//! Claims about volumes that are staged and published.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use orlop::driver::mounts::{EphemeralSpec, PublishSpec, StageSpec};
use orlop::host::block_device::is_read_only;
use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use orlop::volume::{Access, Error, MountAttributes, Use, Volume, VolumeSpec};

use crate::claims;
use crate::support::{loops_below, until};
use crate::trial::{Claim, Trial};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_repeated_stage_or_publish_adds_no_mount,
    what_is_read_only_can_not_be_written,
    what_one_may_have_is_refused_to_a_second,
    a_target_that_is_not_ours_is_left_alone,
    an_inline_volume_lives_as_long_as_its_consumer,
];

/// The kernel's number of loop devices.
const LOOP: u32 = 7;

/// How many mounts of ours there are.
fn mounts_on(trial: &Trial) -> usize {
    let all = Mounts::new(Gate::open()).all().expect("it can be read");
    let ours = all
        .iter()
        .filter(|mount| mount.target.starts_with(&trial.desk));
    ours.count()
}

/// How many loop devices of ours there are, when those that are going have gone.
pub(crate) fn no_loops_are_left(trial: &Trial) -> bool {
    until(|| loops_below(&trial.place).is_empty())
}

fn a_repeated_stage_or_publish_adds_no_mount(trial: &mut Trial) {
    let volume = trial.filled("one", "content");
    let staging = trial.staging(&volume);
    let publication = trial.publication(&volume, Use::Writers, false);
    let early = trial.node().publish(&publication);
    assert!(matches!(early, Err(Error::NotStaged(_))), "{early:?}");

    let mounts: Vec<_> = [false, false, true]
        .into_iter()
        .map(|restart| {
            if restart {
                trial.restart();
            }
            trial.node().stage(&staging).expect("it stages");
            trial.node().publish(&publication).expect("it publishes");
            mounts_on(trial)
        })
        .collect();
    let shown = trial.show(&volume);
    assert_eq!(shown.read(), "content");
    shown.hide();

    let most = if trial.form.access == Access::Block {
        1
    } else {
        2
    };
    assert_eq!(mounts, [most; 3]);
    assert_eq!(mounts_on(trial), 0);
    assert!(!publication.target.exists());
    let node = trial.node();
    node.unpublish(&volume.id, &publication.target)
        .expect("it is unpublished already");
    node.unstage(&volume.id, &staging.staging)
        .expect("it is unstaged already");
    assert!(no_loops_are_left(trial));
}

/// The loop device that is published at `target`, if one is.
fn device_of(target: &Path) -> Option<PathBuf> {
    let found = fs::metadata(target).expect("it is published");
    let (major, number) = (
        rustix::fs::major(found.rdev()),
        rustix::fs::minor(found.rdev()),
    );
    let is_loop = found.file_type().is_block_device() && major == LOOP;
    is_loop.then(|| PathBuf::from(format!("/dev/loop{number}")))
}

fn what_is_read_only_can_not_be_written(trial: &mut Trial) {
    let (node, volume) = (trial.node(), trial.filled("one", "content"));
    let publication = trial.publication(&volume, Use::Readers, true);
    node.stage(&trial.staging(&volume)).expect("it stages");

    node.publish(&publication).expect("it publishes");
    let other_way = node.publish(&trial.publication(&volume, Use::Writers, false));
    let written = trial.shown(&volume).try_write("more");
    let device = device_of(&publication.target);

    assert!(written.is_err());
    assert!(
        matches!(other_way, Err(Error::Conflict(_))),
        "{other_way:?}"
    );
    node.unpublish(&volume.id, &publication.target)
        .expect("it unpublishes");
    node.unstage(&volume.id, &publication.staging)
        .expect("it unstages");
    // A device that stayed so would be of no use to whoever gets its number next.
    let stays = device.is_some_and(|path| is_read_only(&path).expect("it is a device"));
    assert!(!stays);
    assert_eq!(trial.read(&volume), "content");
    trial.write(&volume, "more");
    assert_eq!(trial.read(&volume), "more");
}

fn what_one_may_have_is_refused_to_a_second(trial: &mut Trial) {
    let volume = trial.create("one");
    let first = trial.publication(&volume, Use::OneWriter, false);
    let second = PublishSpec {
        target: trial.desk.join("second"),
        ..first.clone()
    };
    trial
        .node()
        .stage(&trial.staging(&volume))
        .expect("it stages");
    trial.node().publish(&first).expect("nobody has it");

    for restart in [false, true] {
        if restart {
            trial.restart();
        }
        trial.node().publish(&first).expect("it has it already");
        let refused = trial.node().publish(&second);
        assert!(matches!(refused, Err(Error::InUse(_))), "{refused:?}");
    }

    let node = trial.node();
    node.unpublish(&volume.id, &first.target)
        .expect("it unpublishes");
    node.publish(&second).expect("nobody has it any more");
    node.unpublish(&volume.id, &second.target)
        .expect("it unpublishes");
    node.unstage(&volume.id, &first.staging)
        .expect("it unstages");
}

fn a_target_that_is_not_ours_is_left_alone(trial: &mut Trial) {
    let (node, volume) = (trial.node(), trial.filled("one", "content"));
    let mounts = Mounts::new(Gate::open());
    let (foreign, taken) = (trial.desk.join("foreign"), trial.desk.join("taken"));
    fs::create_dir(&foreign).expect("it is new");
    fs::write(foreign.join("content"), "theirs").expect("there is room");
    if trial.form.access == Access::Mount {
        mounts
            .bind(&foreign, &taken, MountAttributes::default())
            .expect("it is free");
        let staging = StageSpec {
            staging: taken.clone(),
            ..trial.staging(&volume)
        };
        let within = StageSpec {
            staging: trial.place.join("volumes").join("mine"),
            ..trial.staging(&volume)
        };

        let refused = [
            node.stage(&staging),
            node.unstage(&volume.id, &taken),
            node.unpublish(&volume.id, &taken),
        ];
        let invalid = trial.home.has_folders().then(|| node.stage(&within));

        for refused in refused {
            assert!(matches!(refused, Err(Error::InUse(_))), "{refused:?}");
        }
        assert!(
            matches!(invalid, None | Some(Err(Error::Invalid(_)))),
            "{invalid:?}"
        );
        assert_eq!(content_of(&taken), "theirs");
        mounts.unmount(&taken).expect("it was left");
    }

    let busy = trial.publication(&volume, Use::Writers, false);
    let other = trial.create("other");
    let shown = trial.show(&volume);
    node.stage(&trial.staging(&other)).expect("it stages");
    let refused = node.publish(&PublishSpec {
        target: busy.target.clone(),
        ..trial.publication(&other, Use::Writers, false)
    });

    assert!(matches!(refused, Err(Error::InUse(_))), "{refused:?}");
    assert_eq!(shown.read(), "content");
    shown.hide();
    node.unstage(&other.id, &trial.staging(&other).staging)
        .expect("it unstages");
}

fn content_of(directory: &Path) -> String {
    fs::read_to_string(directory.join("content")).expect("it can be read")
}

fn an_inline_volume_lives_as_long_as_its_consumer(trial: &mut Trial) {
    if trial.form.access == Access::Block {
        return;
    }
    let spec = EphemeralSpec {
        volume: VolumeSpec {
            ephemeral: true,
            ..trial.spec("inline")
        },
        capability: trial.form.used(Use::Writers, false),
        target: trial.desk.join("inline"),
        key: trial.form.key(),
    };
    let name = spec.volume.name();

    for restart in [false, true] {
        if restart {
            trial.restart();
        }
        trial
            .node()
            .publish_ephemeral(&spec)
            .expect("there is room");
        assert_eq!(mounts_on(trial), 1);
        let volumes: Vec<Volume> = trial.node().volumes();
        assert!(matches!(&volumes[..], [only] if only.record.ephemeral));
    }
    for _ in 0..2 {
        let gone = trial.node().unpublish_ephemeral(&name, &spec.target);
        gone.expect("it is gone, or is already");
    }

    assert!(trial.node().volumes().is_empty() && !spec.target.exists());
    assert!(no_loops_are_left(trial) && trial.is_tidy());
}
