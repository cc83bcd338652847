//! What a client sees when the registry, the disk or the cache itself fails.

use std::os::unix::fs::FileExt;

use crate::cache::{Cache, blob, settings};
use crate::noise::noise;
use crate::upstream::{Fault, Upstream};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_cut_connection_is_resumed_inside_the_answer() {
    let upstream = Upstream::start().await;
    let layer = noise(1, 4 * MIB);
    let digest = upstream.blob("a/b", &layer);
    upstream.fail("/blobs/", 1, Fault::CutAt(MIB + 5));
    upstream.fail("/blobs/", 1, Fault::ClaimsMore(7));
    let cache = Cache::of(&upstream).await;

    let seen = cache.get(&blob(&digest)).await;

    assert!(seen.bytes() == layer);
    assert_eq!(upstream.asked(&["GET", "/blobs/"]).len(), 2);
    assert_eq!(upstream.asked(&["GET", "/blobs/", "bytes="]).len(), 1);
}

#[tokio::test]
async fn a_registry_without_ranges_is_resumed_all_the_same() {
    let upstream = Upstream::start().await;
    let layer = noise(2, 4 * MIB);
    let digest = upstream.blob("a/b", &layer);
    upstream.fail("/blobs/", 1, Fault::CutAt(MIB));
    upstream.fail("/blobs/", 1, Fault::NoRange);
    let cache = Cache::of(&upstream).await;

    assert!(cache.get(&blob(&digest)).await.bytes() == layer);
}

#[tokio::test]
async fn wrong_bytes_never_make_a_whole_answer_and_are_not_kept() {
    let upstream = Upstream::start().await;
    let layer = noise(3, 2 * MIB);
    let digest = upstream.blob("a/b", &layer);
    for fault in [Fault::Flip(MIB), Fault::ClaimsLess(9)] {
        upstream.heal();
        upstream.fail("/blobs/", usize::MAX, fault.clone());
        let cache = Cache::of(&upstream).await;

        let seen = cache.get(&blob(&digest)).await;

        assert!(seen.status != 200 || seen.body.is_err(), "{fault:?}");
        assert!(!cache.file(&digest).exists());
        upstream.heal();
        assert!(cache.get(&blob(&digest)).await.bytes() == layer);
    }
}

#[tokio::test]
async fn a_blob_of_one_chunk_is_refused_before_any_header() {
    let upstream = Upstream::start().await;
    let digest = upstream.blob("a/b", &noise(4, 1000));
    upstream.fail("/blobs/", usize::MAX, Fault::Flip(999));
    let cache = Cache::of(&upstream).await;

    assert_eq!(cache.get(&blob(&digest)).await.status, 503);
}

#[tokio::test]
async fn a_wrong_byte_that_was_not_sent_yet_is_mended_inside_the_answer() {
    let upstream = Upstream::start().await;
    let layer = noise(5, 2 * MIB);
    let digest = upstream.blob("a/b", &layer);
    upstream.fail("/blobs/", 1, Fault::Flip(2 * MIB - 1));
    let cache = Cache::of(&upstream).await;

    assert!(cache.get(&blob(&digest)).await.bytes() == layer);
}

#[tokio::test]
async fn a_registry_that_is_down_is_told_before_headers() {
    let upstream = Upstream::start().await;
    let digest = upstream.blob("a/b", b"layer");
    upstream.fail(
        "/blobs/",
        usize::MAX,
        Fault::Status(500, "x-test", "down".to_owned()),
    );
    let cache = Cache::of(&upstream).await;

    let seen = cache.get(&blob(&digest)).await;

    assert_eq!(seen.status, 503);
}

#[tokio::test]
async fn a_registry_that_is_silent_is_asked_again() {
    let upstream = Upstream::start().await;
    let digest = upstream.blob("a/b", b"layer");
    upstream.fail("/blobs/", 1, Fault::Silent);
    let cache = Cache::of(&upstream).await;

    assert_eq!(cache.get(&blob(&digest)).await.bytes(), b"layer");
}

#[tokio::test]
async fn a_registry_that_asks_for_patience_is_left_alone() {
    let upstream = Upstream::start().await;
    let digest = upstream.blob("a/b", b"layer");
    upstream.fail(
        "/blobs/",
        usize::MAX,
        Fault::Status(429, "retry-after", "60".to_owned()),
    );
    let cache = Cache::of(&upstream).await;

    for _ in 0..3 {
        let seen = cache.get(&blob(&digest)).await;

        assert_eq!(seen.status, 503);
        assert!(["59", "60"].contains(&seen.headers["retry-after"].as_str()));
    }
    assert_eq!(upstream.asked(&["/blobs/"]).len(), 1);
}

#[tokio::test]
async fn a_redirect_to_a_blob_store_is_followed_with_its_range() {
    let upstream = Upstream::start().await;
    let store = Upstream::start().await;
    let layer = noise(6, 2 * MIB);
    let digest = upstream.blob("a/b", &layer);
    store.put("/store/layer", &layer, "application/octet-stream");
    store.fail("/store/", 1, Fault::CutAt(MIB));
    let target = format!("{}/store/layer", store.url);
    upstream.fail(
        "/blobs/",
        usize::MAX,
        Fault::Status(307, "location", target),
    );
    let cache = Cache::of(&upstream).await;

    assert!(cache.get(&blob(&digest)).await.bytes() == layer);
    assert_eq!(store.asked(&["GET", "bytes="]).len(), 1);
}

#[tokio::test]
async fn a_token_that_anybody_gets_is_bought_once() {
    let upstream = Upstream::start().await;
    let [one, other] = [b"one", b"two"].map(|bytes| upstream.blob("a/b", bytes));
    upstream.lock("t1");
    upstream.sell("t1");
    let cache = Cache::of(&upstream).await;

    assert_eq!(cache.get(&blob(&one)).await.bytes(), b"one");
    assert_eq!(cache.get(&blob(&other)).await.bytes(), b"two");
    assert_eq!(upstream.asked(&["/token"]).len(), 1);
    // An expired one is answered with a challenge, and a new one is bought.
    upstream.lock("t2");
    upstream.sell("t2");
    let third = upstream.blob("a/b", b"three");
    assert_eq!(cache.get(&blob(&third)).await.bytes(), b"three");
    assert_eq!(upstream.asked(&["/token"]).len(), 2);
}

#[tokio::test]
async fn a_challenge_is_relayed_and_the_token_of_the_caller_used() {
    let upstream = Upstream::start().await;
    let digest = upstream.blob("a/b", b"secret layer");
    upstream.lock("mine");
    let cache = Cache::of(&upstream).await;

    let asked = cache.get(&blob(&digest)).await;
    let bearer = [("authorization", "Bearer mine")];
    let answered = cache.ask("GET", &blob(&digest), &bearer).await;

    assert_eq!(asked.status, 401);
    assert!(asked.headers["www-authenticate"].contains("/token"));
    assert_eq!(answered.bytes(), b"secret layer");
}

#[tokio::test]
async fn a_tag_survives_an_outage_and_a_restart() {
    let upstream = Upstream::start().await;
    let digest = upstream.manifest("a/b", "v1", br#"{"layers":[]}"#);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut settings = settings(&upstream, folder.path().to_owned());
    settings.tag_seconds = 0;
    let path = "/v2/a/b/manifests/v1?ns=registry.test";
    let before = Cache::start(settings.clone()).await;
    assert_eq!(before.get(path).await.status, 200);
    before.kept(&digest).await;
    drop(before);
    upstream.fail(
        "/manifests/",
        usize::MAX,
        Fault::Status(502, "x-test", "down".to_owned()),
    );

    let after = Cache::start(settings).await;
    let stale = after.get(path).await;
    upstream.heal();
    let moved = upstream.manifest("a/b", "v1", br#"{"layers":[],"moved":1}"#);
    let fresh = after.get(path).await;

    assert_eq!(
        (stale.status, &stale.headers["docker-content-digest"]),
        (200, &digest)
    );
    assert_eq!(fresh.headers["docker-content-digest"], moved);
}

#[tokio::test]
async fn without_room_a_blob_is_passed_through_verified() {
    let upstream = Upstream::start().await;
    let layer = noise(7, 3 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let cache = Cache::with(&upstream, |settings| settings.quota_mib = 0).await;

    let whole = cache.get(&blob(&digest)).await;
    let part = cache
        .ask("GET", &blob(&digest), &[("range", "bytes=1000-2000999")])
        .await;
    upstream.fail("/blobs/", 1, Fault::Flip(MIB));
    let wrong = cache.get(&blob(&digest)).await;

    assert!(whole.bytes() == layer);
    assert_eq!(part.status, 206);
    assert!(part.bytes() == &layer[1000..2_001_000]);
    assert!(wrong.body.is_err());
    assert!(!cache.file(&digest).exists());
}

#[tokio::test]
async fn a_copy_that_rotted_is_dropped_and_fetched_again() {
    let upstream = Upstream::start().await;
    let layer = noise(8, 2 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let cache = Cache::of(&upstream).await;
    assert!(cache.get(&blob(&digest)).await.bytes() == layer);
    cache.kept(&digest).await;

    let file = std::fs::File::options()
        .write(true)
        .open(cache.file(&digest))
        .expect("it is kept");
    let flipped = [layer[2 * MIB - 1] ^ 1];
    file.write_all_at(&flipped, 2 * MIB as u64 - 1)
        .expect("it is ours");
    drop(file);

    assert!(cache.get(&blob(&digest)).await.bytes() == layer);
    assert_eq!(upstream.asked(&["GET", "/blobs/"]).len(), 2);
}
