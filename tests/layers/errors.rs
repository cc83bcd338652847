//! A disk that gives errors: of what it keeps, of what is written to it, and at the moment of keeping.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orlop::host::command::Command;
use rustix::fs::Advice;

use crate::cache::{Cache, Seen, blob, eventually, put_in, settings};
use crate::clients::{Containerd, image, tool};
use crate::noise::noise;
use crate::upstream::{Fault, Upstream};

const MIB: usize = 1 << 20;

/// A filesystem in a file, which can fail.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// One whose file takes room as it is written to, in a folder of this size.
    async fn new(room_mib: usize) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = Self { folder };
        let room = format!("size={room_mib}m");
        let below = Command::new("mount").args(["-t", "tmpfs", "-o", &room, "tmpfs"]);
        let mounted = async {
            tool(below.arg(disk.folder.path())).await?;
            fs::create_dir(disk.path())?;
            File::create(disk.file())?.set_len(128 << 20)?;
            tool(
                Command::new("mkfs.ext4")
                    .args(["-q", "-m", "0"])
                    .arg(disk.file()),
            )
            .await?;
            disk.mount().await
        };
        if let Err(error) = mounted.await {
            eprintln!("SKIPPED: a test of a failing disk, because there can be none: {error:#}");
            return None;
        }
        Some(disk)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    async fn mount(&self) -> anyhow::Result<String> {
        let mount = Command::new("mount").args(["-o", "loop"]);
        tool(mount.arg(self.file()).arg(self.path())).await
    }

    /// From now on every call gets an error.
    async fn fail(&self) {
        let stop = Command::new("xfs_io").args(["-x", "-c", "shutdown"]);
        tool(stop.arg(self.path())).await.expect("ext4 can do that");
    }

    /// The same disk after a repair, for which nobody may use it.
    async fn heal(&self) {
        let unmount = || tool(Command::new("umount").arg(self.path()));
        let limit = Instant::now() + Duration::from_secs(20);
        while let Err(error) = unmount().await {
            assert!(Instant::now() < limit, "{error:#}");
        }
        self.mount().await.expect("it can be mounted");
    }

    /// Takes as much from now on as it says that it has.
    async fn grow(&self) {
        let grow = Command::new("mount").args(["-o", "remount,size=160m"]);
        let grown = tool(grow.arg(self.folder.path())).await;
        grown.expect("there is memory");
    }

    /// Lets reads of this file fail, which is the last one that was written; all others go on.
    fn fail_reads(&self, of: &Path) {
        let file = File::open(of).expect("it is there");
        file.sync_all().expect("it is written");
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("it is a file");
        let disk = File::options().write(true).open(self.file());
        disk.and_then(|disk| disk.set_len(4 << 20))
            .expect("it is ours");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for folder in [self.path(), self.folder.path().to_owned()] {
            #[expect(clippy::disallowed_methods, reason = "a test cleans up after itself")]
            let unmount = std::process::Command::new("umount")
                .arg("--lazy")
                .arg(folder)
                .status();
            // It is gone with the machine at the latest.
            let _ = unmount;
        }
    }
}

fn has_partial(cache: &Cache) -> bool {
    let folder = fs::read_dir(cache.folder().join("partial"));
    folder.is_ok_and(|mut folder| folder.next().is_some())
}

#[tokio::test]
async fn a_copy_that_can_not_be_read_is_dropped_and_the_rest_comes_from_upstream() {
    let Some(disk) = Disk::new(160).await else {
        return;
    };
    let upstream = Upstream::start().await;
    let layer = noise(1, 24 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let cache = Cache::start(settings(&upstream, disk.path())).await;
    assert!(cache.get(&blob(&digest)).await.bytes() == layer);
    cache.kept(&digest).await;

    disk.fail_reads(&cache.file(&digest));
    let seen = cache.get(&blob(&digest)).await;
    let again = cache.get(&blob(&digest)).await;

    assert!(seen.bytes() == layer && again.bytes() == layer);
    assert!(upstream.asked(&["GET", &digest]).len() >= 2);
}

#[tokio::test]
async fn a_disk_that_fails_while_a_blob_arrives_is_left_alone_and_the_answer_goes_on() {
    let Some(disk) = Disk::new(160).await else {
        return;
    };
    let upstream = Upstream::start().await;
    let layers = [noise(2, 8 * MIB), noise(3, 1000)];
    let digests = image(&upstream, &layers);
    let folder = disk.path().join("cache");
    fs::create_dir(&folder).expect("there is room");
    let cache = Cache::start(settings(&upstream, folder)).await;
    upstream.fail(&digests[0], 1, Fault::StopAt(4 * MIB));

    let mut begun = cache.begin("GET", &blob(&digests[0]), &[]).await;
    let first = begun.chunk().await.expect("it flows").expect("it flows");
    disk.fail().await;
    upstream.open_gate();
    let rest = Seen::of(begun).await;

    assert!([first.as_ref(), rest.bytes()].concat() == layers[0]);
    // What the disk does not give is passed through: a runtime notices nothing.
    if let Some(containerd) = Containerd::start() {
        containerd.pull(&cache, &upstream).await.expect("it pulls");
        assert!(digests.iter().all(|digest| containerd.holds(digest)));
    }

    let settings = settings(&upstream, cache.folder().to_owned());
    drop(cache);
    disk.heal().await;
    let cache = Cache::start(settings).await;
    assert!(!cache.file(&digests[0]).exists() && !has_partial(&cache));
    assert!(cache.get(&blob(&digests[0])).await.bytes() == layers[0]);
    cache.kept(&digests[0]).await;
}

#[tokio::test]
async fn a_blob_that_can_not_be_written_through_is_not_kept_and_fetched_again() {
    // The disk says that there is room, and what is below it has none.
    let Some(disk) = Disk::new(12).await else {
        return;
    };
    let upstream = Upstream::start().await;
    let layer = noise(4, 16 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let cache = Cache::start(settings(&upstream, disk.path())).await;

    let seen = cache.get(&blob(&digest)).await;
    eventually(|| !has_partial(&cache)).await;
    let kept = cache.file(&digest).exists();
    let again = cache.get(&blob(&digest)).await;

    assert!(seen.bytes() == layer && again.bytes() == layer);
    assert!(!kept);
    assert_eq!(upstream.asked(&["GET", &digest]).len(), 2);
    // The second was not tried to be kept.
    let to_keep = cache.metric("layers_blobs_opened_total{source=\"upstream\"}");
    assert_eq!(to_keep, Some(1.0));
    disk.grow().await;
    let limit = Instant::now() + Duration::from_mins(1);
    while !cache.file(&digest).exists() {
        assert!(Instant::now() < limit, "it is not kept again");
        assert!(cache.get(&blob(&digest)).await.bytes() == layer);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_copy_of_the_runtime_that_rotted_is_passed_over() {
    let upstream = Upstream::start().await;
    let layer = noise(5, 2 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let content = tempfile::tempdir().expect("a temporary folder");
    let mut rotten = layer.clone();
    rotten[5] ^= 1;
    put_in(content.path(), &digest, &rotten);
    let cache = Cache::with(&upstream, |settings| {
        settings.content = Some(content.path().to_owned());
    })
    .await;

    let first = cache.get(&blob(&digest)).await;
    let second = cache.get(&blob(&digest)).await;

    // Of the first chunk nobody could know yet.
    assert!(first.body.as_ref().is_err() || first.bytes() == layer);
    assert!(second.bytes() == layer);
    assert_eq!(upstream.asked(&["GET", &digest]).len(), 1);
}
