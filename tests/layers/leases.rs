//! What containerd keeps as well is held there by a lease, and not kept twice.

use std::time::{Duration, Instant};

use crate::cache::{Cache, blob, eventually};
use crate::clients::{Containerd, image};
use crate::noise::noise;
use crate::upstream::Upstream;

const MIB: usize = 1 << 20;
const IMAGE: &str = "registry.test/a/b:v1";

/// A cache beside containerd, which may take so many MiB.
async fn beside(containerd: &Containerd, upstream: &Upstream, quota_mib: u64) -> Cache {
    Cache::with(upstream, |settings| {
        settings.content = Some(containerd.content());
        settings.containerd = Some(containerd.socket());
        settings.quota_mib = quota_mib;
    })
    .await
}

/// Has containerd drop what nobody holds, as it does at once whenever it is asked to.
async fn collect(containerd: &Containerd) -> anyhow::Result<()> {
    containerd
        .ctr(&["leases", "create", "--id", "brief"])
        .await?;
    containerd.ctr(&["leases", "rm", "--sync", "brief"]).await?;
    Ok(())
}

#[tokio::test]
async fn what_containerd_keeps_is_held_there_as_long_as_the_quota_has_room() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let upstream = Upstream::start().await;
    let layers = image(&upstream, &[noise(1, 3 * MIB), noise(2, MIB / 2)]);
    let cache = beside(&containerd, &upstream, 1024).await;
    containerd.pull(&cache, &upstream).await.expect("it pulls");

    eventually(|| layers.iter().all(|layer| !cache.file(layer).exists())).await;
    let removed = containerd.ctr(&["images", "rm", "--sync", IMAGE]).await;
    removed.expect("it is there");
    let asked = upstream.asked(&["/blobs/"]).len();
    let seen = cache.get(&blob(&layers[0])).await;

    assert!(seen.bytes() == noise(1, 3 * MIB));
    assert_eq!(upstream.asked(&["/blobs/"]).len(), asked);
    assert!(layers.iter().all(|layer| containerd.holds(layer)));

    // One with less room lets go of the larger.
    drop(cache);
    let _smaller = beside(&containerd, &upstream, 1).await;
    let limit = Instant::now() + Duration::from_secs(30);
    while containerd.holds(&layers[0]) && Instant::now() < limit {
        collect(&containerd).await.expect("it answers");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!containerd.holds(&layers[0]) && containerd.holds(&layers[1]));
}
