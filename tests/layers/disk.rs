//! Disks that are full or emptied under the cache, and caches that are killed.

use std::fs;
use std::time::Duration;

use orlop::host::command::Command;
use orlop::layers::image::digest::Digest;

use crate::cache::{Cache, Seen, blob, blob_in, eventually, put_in, settings};
use crate::clients::tool;
use crate::noise::noise;
use crate::process::{Process, ask};
use crate::upstream::Upstream;

const MIB: usize = 1 << 20;
/// How often it is killed.
const CUTS: u32 = 200;

/// A disk of its own; unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    async fn of_mib(size: usize) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let size = format!("size={size}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]);
        if let Err(error) = tool(mount.arg(folder.path())).await {
            eprintln!("SKIPPED: a test of a full disk, because nothing can be mounted: {error:#}");
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "a test cleans up after itself")]
        let unmount = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
        // It is gone with the machine at the latest.
        let _ = unmount;
    }
}

#[tokio::test]
async fn on_a_full_disk_blobs_are_passed_through_and_what_fits_is_kept() {
    let Some(disk) = Disk::of_mib(8).await else {
        return;
    };
    let upstream = Upstream::start().await;
    let (large, small) = (noise(1, 12 * MIB), noise(2, 2 * MIB));
    let [large_digest, small_digest] = [&large, &small].map(|layer| upstream.blob("a/b", layer));
    let cache = Cache::start(settings(&upstream, disk.0.path().to_owned())).await;

    let first = cache.get(&blob(&large_digest)).await;
    let second = cache.get(&blob(&small_digest)).await;

    assert!(first.bytes() == large && second.bytes() == small);
    cache.kept(&small_digest).await;
    assert!(!cache.file(&large_digest).exists());
    let partial = fs::read_dir(disk.0.path().join("partial")).expect("it is a folder");
    assert_eq!(partial.count(), 0);
}

#[tokio::test]
async fn on_a_disk_that_became_read_only_what_is_kept_is_served_and_the_rest_passed_through() {
    let Some(disk) = Disk::of_mib(32).await else {
        return;
    };
    let upstream = Upstream::start().await;
    let (kept, new) = (noise(3, 2 * MIB), noise(4, 2 * MIB));
    let [kept_digest, new_digest] = [&kept, &new].map(|layer| upstream.blob("a/b", layer));
    let folder = disk.0.path().join("cache");
    fs::create_dir(&folder).expect("there is room");
    let cache = Cache::start(settings(&upstream, folder.clone())).await;
    assert!(cache.get(&blob(&kept_digest)).await.bytes() == kept);
    cache.kept(&kept_digest).await;

    // A mount over the folder, as the files that are open hold the disk itself writable.
    let over = |options: &[&str]| Command::new("mount").args(options).arg(&folder);
    let bound = tool(over(&["--bind"]).arg(&folder)).await;
    bound.expect("it is a folder");
    let turned = tool(over(&["-o", "remount,bind,ro"])).await;
    turned.expect("it is mounted");
    let [old, passed] = [
        cache.get(&blob(&kept_digest)).await,
        cache.get(&blob(&new_digest)).await,
    ];
    let was_kept = cache.file(&new_digest).exists();
    let mended = tool(Command::new("umount").arg(&folder)).await;
    mended.expect("nobody is in it");
    let again = cache.get(&blob(&new_digest)).await;

    assert!(old.bytes() == kept && passed.bytes() == new && again.bytes() == new);
    assert_eq!(upstream.asked(&["GET", &kept_digest]).len(), 1);
    assert!(!was_kept);
    cache.kept(&new_digest).await;
}

#[tokio::test]
async fn a_blob_that_the_runtime_drops_while_it_is_served_is_served_to_its_end() {
    let upstream = Upstream::start().await;
    let layer = noise(5, 48 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let content = tempfile::tempdir().expect("a temporary folder");
    let file = put_in(content.path(), &digest, &layer);
    let cache = Cache::with(&upstream, |settings| {
        settings.content = Some(content.path().to_owned());
    })
    .await;

    // More is on its way than the connection holds, so that the end is read after the file is gone.
    let begun = cache.begin("GET", &blob(&digest), &[]).await;
    fs::remove_file(&file).expect("it is there");
    let seen = Seen::of(begun).await;
    let asked = upstream.asked(&["GET", &digest]).len();
    let again = cache.get(&blob(&digest)).await;

    assert!(seen.bytes() == layer && again.bytes() == layer);
    assert_eq!(asked, 0);
}

#[tokio::test]
#[ignore = "its cuts assume a machine that starts a process within a tenth of a second"]
async fn a_cache_that_is_killed_at_any_moment_never_keeps_or_serves_a_wrong_byte() {
    let upstream = Upstream::start().await;
    let layers: Vec<_> = (0..8).map(|seed| noise(10 + seed, 2 * MIB)).collect();
    let digests: Vec<_> = layers
        .iter()
        .map(|layer| upstream.blob("a/b", layer))
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut whole = 0;

    for cut in 0..CUTS {
        let cache = Process::start(&upstream, folder.path(), |_| {});
        let at = cut as usize % digests.len();
        let url = format!("{}{}", cache.url, blob(&digests[at]));
        let asking = tokio::spawn(ask(url));
        // The moment is the point of it, not a wait for something.
        let after = u64::from(cut * 7919 % 120);
        tokio::time::sleep(Duration::from_millis(after)).await;
        drop(cache);
        asking.abort();
        if let Ok(Some(bytes)) = asking.await {
            assert!(bytes == layers[at], "a wrong byte after {cut} cuts");
            whole += 1;
        }
        // What was kept is dropped now and then, so that the cut falls into the keeping of it again.
        if cut % 16 == 15 {
            for digest in &digests {
                let _ = fs::remove_file(blob_in(folder.path(), digest));
            }
        }
        for digest in &digests {
            if let Ok(bytes) = fs::read(blob_in(folder.path(), digest)) {
                assert_eq!(Digest::of(&bytes).to_string(), *digest);
            }
        }
    }

    let cache = Process::start(&upstream, folder.path(), |_| {});
    for (digest, layer) in digests.iter().zip(&layers) {
        let url = format!("{}{}", cache.url, blob(digest));
        let bytes = ask(url).await.expect("it is served");
        assert!(bytes == *layer);
    }
    let left = || fs::read_dir(folder.path().join("partial")).map_or(1, Iterator::count);
    eventually(|| left() == 0).await;
    assert!(whole > 0, "some answers came before the cut");
}
