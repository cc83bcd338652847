//! Trees copied and removed on real filesystems, also while someone rearranges them.

mod support;
#[path = "support/tree.rs"]
mod tree_of;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use orlop::host::clone::{How, clone_file};
use orlop::host::gate::Gate;
use orlop::host::progress::Progress;
use orlop::host::tree;
use proptest::prelude::ProptestConfig;
use proptest::test_runner::{TestCaseError, TestRunner};
use rustix::fs::{AtFlags, CWD, IFlags, Mode, OFlags, RenameFlags, ioctl_setflags, renameat_with};
use support::{Directory, LoopFs, run, skipped};

const KINDS: [&str; 4] = ["ext4", "xfs", "btrfs", "tmpfs"];

fn copy(from: &Directory, to: &Directory) -> Result<()> {
    tree::copy(&Gate::open(), from.fd(), to.fd(), &Progress::default())
}

fn remove(parent: &Directory, name: &str) -> Result<()> {
    tree::remove(&Gate::open(), parent.fd(), OsStr::new(name))
}

#[test]
fn a_copy_is_like_its_source() {
    for kind in KINDS {
        let Some(fs) = LoopFs::new(kind) else {
            continue;
        };
        let top = Directory::open(fs.path());
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 24,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let outcome = runner.run(&tree_of::entries(), |entries| {
            let from = fs.directory("from");
            tree_of::make(&from.path, &entries);
            let to = fs.directory("to");

            let copied = copy(&from, &to);

            let (copy, source) = (tree_of::look(&to.path), tree_of::look(&from.path));
            let differs = source
                .iter()
                .find(|(path, seen)| copy.get(*path) != Some(seen));
            let differs =
                differs.map(|(path, seen)| format!("{path:?}: {seen:?} {:?}", copy.get(path)));
            let (more, less) = (tree_of::occupied(&to.path), tree_of::occupied(&from.path));
            remove(&top, "from").map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            remove(&top, "to").map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            copied.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            proptest::prop_assert!(differs.is_none(), "the copy on {kind} differs: {differs:?}");
            proptest::prop_assert_eq!(copy.len(), source.len());
            proptest::prop_assert!(more <= less + (1 << 20), "{kind}: {more} of {less}");
            proptest::prop_assert!(!from.path.exists() && !to.path.exists());
            Ok(())
        });
        assert!(outcome.is_ok(), "{kind}: {outcome:?}");
    }
}

#[test]
fn a_file_is_shared_where_the_filesystem_can() -> Result<()> {
    for (kind, how) in KINDS
        .into_iter()
        .zip([How::Copied, How::Shared, How::Shared, How::Copied])
    {
        let Some(fs) = LoopFs::new(kind) else {
            continue;
        };
        let from = sparse(&fs.path().join("from"))?;
        let to = File::create_new(fs.path().join("to")).expect("the name is free");
        let progress = Progress::default();

        let done = clone_file(&Gate::open(), &from, &to, &progress).expect("it can be copied");

        assert_eq!(done, how, "on {kind}");
        assert_eq!(to.metadata()?.len(), 1 << 30, "on {kind}");
        assert!(to.metadata()?.blocks() <= from.metadata()?.blocks());
        assert_eq!(progress.done().0, from.metadata()?.blocks() * 512);
        let mut bytes = [0; 6];
        File::open(fs.path().join("to"))?.read_exact_at(&mut bytes, 20 << 20)?;
        assert_eq!(&bytes, b"middle");
    }
    Ok(())
}

/// A file of 1 GiB that holds two words and 4 MiB of written zeroes, and ends with a hole.
fn sparse(path: &Path) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    file.set_len(1 << 30)?;
    file.write_all_at(b"start", 0)?;
    file.write_all_at(&vec![0; 4 << 20], 10 << 20)?;
    file.write_all_at(b"middle", 20 << 20)?;
    file.sync_all()?;
    Ok(file)
}

#[test]
fn written_zeroes_become_holes_in_a_copy() -> Result<()> {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let from = sparse(&directory.path().join("from"))?;
    let to = File::create_new(directory.path().join("to")).expect("the name is free");

    let how = clone_file(&Gate::open(), &from, &to, &Progress::default()).expect("it is copied");

    if how == How::Shared {
        skipped(
            "the holes of a copy",
            "the temporary directory shares blocks",
        );
        return Ok(());
    }
    assert!(to.metadata()?.blocks() * 512 <= 64 << 10);
    Ok(())
}

#[test]
fn a_very_deep_tree_costs_neither_stack_nor_descriptors() -> Result<()> {
    const DEPTH: usize = 10_000;
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let top = Directory::open(directory.path());
    fs::create_dir(top.path.join("from"))?;
    fs::create_dir(top.path.join("to"))?;
    let (from, to) = (
        Directory::open(&top.path.join("from")),
        Directory::open(&top.path.join("to")),
    );
    let mut here = rustix::io::dup(from.fd())?;
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&here, "deeper", Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        here = rustix::fs::openat(&here, "deeper", flags, Mode::empty())?;
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&here, "bottom", flags, Mode::RUSR)?;
    rustix::io::write(&file, &[1; 4096])?;
    rustix::fs::linkat(&here, "bottom", from.fd(), "link", AtFlags::empty())?;
    // Its other name is never met, so its place is remembered to the end.
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&here, "lone", flags, Mode::RUSR)?;
    rustix::fs::linkat(&here, "lone", top.fd(), "other", AtFlags::empty())?;
    let (ended, most) = (AtomicBool::new(false), AtomicUsize::new(0));

    let small_stack = std::thread::Builder::new().stack_size(256 << 10);
    let (linked, size) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
                most.fetch_max(open, Ordering::Relaxed);
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        let walk = small_stack.spawn_scoped(scope, || -> Result<_> {
            copy(&from, &to)?;
            let linked = fs::metadata(to.path.join("link"))?.nlink();
            let sizes = [tree::size(from.fd())?.0, tree::size(to.fd())?.0];
            remove(&top, "to")?;
            remove(&top, "from")?;
            Ok((linked, sizes))
        });
        let outcome = walk.map(std::thread::ScopedJoinHandle::join);
        ended.store(true, Ordering::Relaxed);
        watch.thread().unpark();
        outcome?.expect("the walk does not panic")
    })?;

    assert_eq!((linked, size), (2, [4096, 4096]));
    assert!(most.into_inner() < 200, "descriptors for each level");
    assert_eq!(fs::read_dir(&top.path)?.count(), 1);
    Ok(())
}

#[test]
fn a_mount_inside_is_neither_copied_nor_removed() -> Result<()> {
    let (Some(outer), Some(inner)) = (LoopFs::new("ext4"), LoopFs::new("tmpfs")) else {
        return Ok(());
    };
    let from = outer.directory("from");
    let to = outer.directory("to");
    fs::create_dir(from.path.join("mounted"))?;
    fs::write(inner.path().join("canary"), "alive")?;
    let mounted = from.path.join("mounted");
    run(
        "mount",
        [
            OsStr::new("--bind"),
            inner.path().as_ref(),
            mounted.as_ref(),
        ],
    )?;

    let copied = copy(&from, &to);
    let removed = remove(&Directory::open(outer.path()), "from");
    let canary = fs::read_to_string(mounted.join("canary"));
    run("umount", [&mounted])?;

    copied.expect("the rest is copied");
    assert_eq!(fs::read_dir(to.path.join("mounted"))?.count(), 0);
    let said = format!("{:#}", removed.expect_err("it is refused"));
    assert!(
        said.contains("from/mounted") && said.contains("unmount it first"),
        "{said}"
    );
    assert_eq!(canary.expect("it is there"), "alive");
    Ok(())
}

#[test]
fn immutable_entries_and_closed_directories_are_removed() -> Result<()> {
    let Some(fs) = LoopFs::new("ext4") else {
        return Ok(());
    };
    let closed = fs.directory("closed");
    fs::create_dir(closed.path.join("inner"))?;
    for name in ["inner/file", "file"] {
        let file = File::create(closed.path.join(name))?;
        ioctl_setflags(file, IFlags::IMMUTABLE)?;
    }
    let inner = File::open(closed.path.join("inner"))?;
    rustix::fs::fchmod(&inner, Mode::empty())?;
    ioctl_setflags(inner, IFlags::APPEND)?;
    ioctl_setflags(closed.fd(), IFlags::IMMUTABLE)?;
    let top = Directory::open(fs.path());

    remove(&top, "closed").expect("flags do not protect it");
    remove(&top, "closed").expect("removing nothing is fine");

    assert!(!closed.path.exists());
    Ok(())
}

#[test]
fn a_cut_copy_is_removed_and_made_again() -> Result<()> {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let top = Directory::open(directory.path());
    fs::create_dir_all(top.path.join("from/a/b"))?;
    fs::write(top.path.join("from/a/one"), "1")?;
    fs::hard_link(top.path.join("from/a/one"), top.path.join("from/a/b/two"))?;
    symlink("one", top.path.join("from/a/three"))?;
    let from = Directory::open(&top.path.join("from"));

    for k in 0.. {
        let gate = Gate::cut_after(k);
        fs::create_dir(top.path.join("to"))?;
        let to = Directory::open(&top.path.join("to"));
        let copied = tree::copy(&gate, from.fd(), to.fd(), &Progress::default());
        assert_eq!(copied.is_err(), gate.was_cut(), "after {k} changes");
        let removing = Gate::cut_after(k);
        let removed = tree::remove(&removing, top.fd(), OsStr::new("to"));
        assert_eq!(removed.is_err(), removing.was_cut(), "after {k} changes");
        remove(&top, "to").expect("the rest goes");
        if !gate.was_cut() {
            assert!(k > 10, "only {k} changes pass the gate");
            break;
        }
    }

    assert!(!top.path.join("to").exists());
    Ok(())
}

/// Swaps two names until it is told to end.
fn swap(one: &Path, other: &Path, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        let _ = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
    }
}

#[test]
fn whoever_swaps_entries_meanwhile_leads_nobody_out_of_the_tree() -> Result<()> {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let top = Directory::open(directory.path());
    fs::create_dir(top.path.join("outside"))?;
    let canary = top.path.join("outside/file");
    fs::write(&canary, "secret")?;
    let ended = AtomicBool::new(false);
    let tree = top.path.join("tree");
    let swaps = [("inner", "away"), ("file", "out")];

    std::thread::scope(|scope| -> Result<()> {
        for (one, other) in swaps {
            let (one, other) = (tree.join(one), tree.join(other));
            let ended = &ended;
            scope.spawn(move || swap(&one, &other, ended));
        }
        let _end = Ending(&ended);
        for round in 0..300 {
            let next = top.path.join("next");
            fs::create_dir_all(next.join("inner"))?;
            fs::write(next.join("inner/mine"), "mine")?;
            fs::write(next.join("file"), "mine")?;
            symlink("../outside", next.join("away"))?;
            symlink("../outside/file", next.join("out"))?;
            fs::rename(&next, &tree)?;
            fs::create_dir(top.path.join("copy"))?;
            let to = Directory::open(&top.path.join("copy"));
            let _ = copy(&Directory::open(&tree), &to);
            let leaked = tree_of::look(&to.path)
                .values()
                .any(|seen| seen.holds(b"secret"));
            assert!(!leaked, "round {round} copied what is outside");
            remove(&top, "copy").expect("nobody touches the copy");
            let mut attempts = 0;
            while remove(&top, "tree").is_err() {
                attempts += 1;
                assert!(attempts < 1000, "a tree that only shrinks is not removed");
            }
            assert_eq!(fs::read_to_string(&canary)?, "secret", "round {round}");
        }
        Ok(())
    })
}

/// Tells the other threads to end, also when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
