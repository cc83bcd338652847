//! btrfs subvolumes and their limits, on a filesystem of the test's own.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use orlop::host::gate::Gate;
use orlop::host::subvolume::{self, QuotaMode};
use orlop::host::tree;
use orlop::volume::Bytes;
use rustix::io::Errno;
use support::{Directory, LoopFs};

const MIB: usize = 1 << 20;

fn create(parent: &Directory, name: &str) -> Result<Directory> {
    subvolume::create(&Gate::open(), parent.fd(), OsStr::new(name))?;
    Ok(Directory::open(&parent.path.join(name)))
}

fn snapshot(
    source: &Directory,
    parent: &Directory,
    name: &str,
    read_only: bool,
) -> Result<Directory> {
    let open = Gate::open();
    subvolume::snapshot(&open, source.fd(), parent.fd(), OsStr::new(name), read_only)?;
    Ok(Directory::open(&parent.path.join(name)))
}

fn delete(parent: &Directory, name: &str) -> Result<()> {
    subvolume::delete(&Gate::open(), parent.fd(), OsStr::new(name))
}

/// The modes that this kernel has, each with a filesystem that counts so.
fn counting() -> Result<Vec<(QuotaMode, LoopFs)>> {
    let mut filesystems = Vec::new();
    for mode in [QuotaMode::Full, QuotaMode::Simple] {
        let Some(fs) = LoopFs::new("btrfs") else {
            break;
        };
        let top = Directory::open(fs.path());
        assert_eq!(subvolume::quota_mode(top.fd())?, QuotaMode::Off);
        match subvolume::enable_quota(&Gate::open(), top.fd(), mode) {
            Ok(enabled) => assert_eq!(enabled, mode),
            Err(error) => {
                support::skipped(&format!("quota mode {mode:?}"), &format!("{error:#}"));
                continue;
            }
        }
        assert_eq!(subvolume::quota_mode(top.fd())?, mode);
        filesystems.push((mode, fs));
    }
    Ok(filesystems)
}

fn used(directory: &Directory) -> Result<usize> {
    let usage = subvolume::usage(directory.fd())?.expect("quotas are on");
    Ok(usize::try_from(usage.used.0)?)
}

/// Fills a new file, and says with how many bytes before it was refused.
fn fill(path: &Path, wanted: usize) -> Result<(usize, Option<Errno>)> {
    let file = fs::File::create(path)?;
    for written in 0..wanted / MIB {
        let chunk: Vec<u8> = (0..=250).cycle().skip(written).take(MIB).collect();
        // A limit counts what is on the disk or promised; each chunk goes there.
        let outcome = rustix::io::write(&file, &chunk).and_then(|_| rustix::fs::fsync(&file));
        if let Err(error) = outcome {
            return Ok((written * MIB, Some(error)));
        }
    }
    Ok((wanted, None))
}

#[test]
fn a_limit_holds_however_the_filesystem_counts() -> Result<()> {
    for (mode, fs) in counting()? {
        let volume = create(&Directory::open(fs.path()), "volume")?;
        let limit = Bytes(20 << 20);
        subvolume::set_limit(&Gate::open(), volume.fd(), limit)?;

        let (written, refused) = fill(&volume.path.join("file"), 40 * MIB)?;

        let usage = subvolume::usage(volume.fd())?.expect("quotas are on");
        assert_eq!(refused, Some(Errno::DQUOT), "{mode:?}");
        assert!(
            (16 * MIB..=20 * MIB).contains(&written),
            "{mode:?}: {written}"
        );
        assert_eq!(usage.limit, Some(limit), "{mode:?}");
        assert!(usage.used <= limit, "{mode:?}: {usage:?}");
        assert!(
            usage.used.0 + (64 << 10) >= written as u64,
            "{mode:?}: {usage:?} of {written}"
        );
    }
    Ok(())
}

#[test]
fn full_counting_charges_a_clone_for_what_it_shows() -> Result<()> {
    for (mode, fs) in counting()? {
        let top = Directory::open(fs.path());
        let volume = create(&top, "volume")?;
        fill(&volume.path.join("file"), 20 * MIB)?;
        let clone = snapshot(&volume, &top, "clone", false)?;
        subvolume::set_limit(&Gate::open(), clone.fd(), Bytes(25 << 20))?;
        tree::sync(top.fd())?;

        let (before, charged) = (used(&volume)?, used(&clone)?);
        let (written, refused) = fill(&clone.path.join("more"), 15 * MIB)?;
        fill(&volume.path.join("file"), 20 * MIB)?;
        tree::sync(top.fd())?;
        let after = used(&volume)?;

        assert!(before >= 20 * MIB, "{mode:?}: {before}");
        if mode == QuotaMode::Full {
            assert!(charged >= 20 * MIB, "{charged}");
            assert_eq!(refused, Some(Errno::DQUOT));
            assert!(written < 6 * MIB, "{written}");
            assert!(
                after < 21 * MIB,
                "the clone is not on the volume's account: {after}"
            );
        } else {
            // Why a pool does not count like this.
            assert!(charged < MIB, "{charged}");
            assert_eq!((written, refused), (15 * MIB, None));
            assert!(
                after >= 40 * MIB,
                "the clone is on the volume's account: {after}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_snapshot_keeps_what_its_source_had_and_takes_nothing_new() -> Result<()> {
    let Some(fs) = LoopFs::new("btrfs") else {
        return Ok(());
    };
    let top = Directory::open(fs.path());
    let volume = create(&top, "volume")?;
    fs::write(volume.path.join("file"), "then")?;

    let kept = snapshot(&volume, &top, "kept", true)?;
    fs::write(volume.path.join("file"), "now")?;

    let refused = fs::write(kept.path.join("file"), "no").expect_err("it is read-only");
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read_to_string(kept.path.join("file"))?, "then");
    assert!(subvolume::is_subvolume(kept.fd()) && !subvolume::is_subvolume(top_of_ext4().fd()));
    assert!(
        snapshot(&volume, &top, "kept", true).is_err(),
        "the name is taken"
    );
    assert!(create(&top, "a/b").is_err() && create(&top, "").is_err());
    Ok(())
}

fn top_of_ext4() -> Directory {
    Directory::open(&std::env::temp_dir())
}

#[test]
fn a_deleted_subvolume_takes_all_inside_and_its_quota_groups_along() -> Result<()> {
    for (mode, fs) in counting()? {
        let top = Directory::open(fs.path());
        let volume = create(&top, "volume")?;
        fs::create_dir(volume.path.join("folder"))?;
        let folder = Directory::open(&volume.path.join("folder"));
        let inner = create(&folder, "inner")?;
        create(&inner, "innermost")?;
        fill(&inner.path.join("file"), 4 * MIB)?;
        snapshot(&inner, &volume, "kept", true)?;
        drop((folder, inner, volume));

        delete(&top, "volume")?;
        delete(&top, "volume")?;

        assert!(!top.path.join("volume").exists());
        settle(&top, 0)?;
        subvolume::sweep_quotas(&Gate::open(), top.fd())?;

        assert_eq!(groups(&top)?, ["0/5"], "{mode:?}");
    }
    Ok(())
}

#[test]
fn a_quota_group_that_outlives_its_subvolume_is_swept() -> Result<()> {
    let simple = counting()?
        .into_iter()
        .find(|(mode, _)| *mode == QuotaMode::Simple);
    let Some((_, fs)) = simple else {
        return Ok(());
    };
    let top = Directory::open(fs.path());
    let volume = create(&top, "volume")?;
    fill(&volume.path.join("file"), 4 * MIB)?;
    let kept = snapshot(&volume, &top, "kept", true)?;
    drop((volume, kept));

    delete(&top, "volume")?;
    settle(&top, 1)?;
    let charged = groups(&top)?;
    delete(&top, "kept")?;
    settle(&top, 0)?;
    let left = groups(&top)?;
    subvolume::sweep_quotas(&Gate::open(), top.fd())?;

    assert_eq!(
        charged,
        ["0/5", "0/256", "0/257"],
        "its data is still there"
    );
    // The kernel looks only once, and for the second of them perhaps too soon.
    assert!(left.contains(&"0/256".to_owned()), "{left:?}");
    assert_eq!(groups(&top)?, ["0/5"]);
    Ok(())
}

/// Waits until only so many subvolumes are left, and the space of the deleted ones is back.
fn settle(top: &Directory, remaining: usize) -> Result<()> {
    let path = top.path.to_string_lossy();
    let started = Instant::now();
    loop {
        // This also wakes the kernel's thread that gives the space back.
        support::run("btrfs", ["filesystem", "sync", &path])?;
        let deleted = support::run("btrfs", ["subvolume", "list", "-d", &path])?;
        let live = support::run("btrfs", ["subvolume", "list", &path])?;
        if deleted.is_empty() && live.lines().count() == remaining {
            return Ok(());
        }
        anyhow::ensure!(
            started.elapsed() < Duration::from_secs(30),
            "left: {deleted}{live}"
        );
    }
}

/// The quota groups, as the `btrfs` tool lists them.
fn groups(top: &Directory) -> Result<Vec<String>> {
    let listed = support::run(
        "btrfs",
        ["qgroup", "show", "--raw", &top.path.to_string_lossy()],
    )?;
    Ok(listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| word.starts_with("0/"))
        .map(str::to_owned)
        .collect())
}

#[test]
fn a_tree_with_read_only_snapshots_inside_is_removed() -> Result<()> {
    let Some(fs) = LoopFs::new("btrfs") else {
        return Ok(());
    };
    let top = Directory::open(fs.path());
    let volume = fs.directory("volume");
    let inner = create(&volume, "inner")?;
    fs::write(inner.path.join("file"), "kept")?;
    snapshot(&inner, &volume, "kept", true)?;

    tree::remove(&Gate::open(), top.fd(), OsStr::new("volume"))?;

    assert!(!volume.path.exists());
    Ok(())
}

#[test]
fn a_folder_is_not_deleted_as_a_subvolume() {
    let Some(fs) = LoopFs::new("btrfs") else {
        return;
    };
    let folder = fs.directory("folder");

    let refused = delete(&Directory::open(fs.path()), "folder");

    assert!(format!("{:#}", refused.expect_err("it is a folder")).contains("no subvolume"));
    assert!(folder.path.exists());
}
