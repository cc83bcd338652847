//! A cache hit needs the same right as a pull.

use crate::cache::{Cache, Seen};
use crate::upstream::{Fault, Upstream};

const A: [(&str, &str); 1] = [("authorization", "Bearer mine")];
const B: [(&str, &str); 1] = [("authorization", "Bearer other")];

async fn as_whom(cache: &Cache, path: &str, who: &[(&str, &str)]) -> Seen {
    cache
        .ask("GET", &format!("/v2/{path}?ns=registry.test"), who)
        .await
}

/// A private image whose tag, manifest and layer A has pulled; their paths.
async fn pulled(upstream: &Upstream, cache: &Cache) -> [String; 3] {
    let layer = upstream.blob("a/b", b"secret layer");
    let manifest = format!(r#"{{"layers":[{{"digest":"{layer}"}}]}}"#);
    let digest = upstream.manifest("a/b", "v1", manifest.as_bytes());
    upstream.lock("mine");
    let paths = [
        "a/b/manifests/v1".to_owned(),
        format!("a/b/manifests/{digest}"),
        format!("a/b/blobs/{layer}"),
    ];
    for path in &paths {
        assert_eq!(as_whom(cache, path, &A).await.status, 200);
    }
    cache.kept(&layer).await;
    paths
}

#[tokio::test]
async fn who_may_not_pull_gets_nothing_from_the_cache() {
    let upstream = Upstream::start().await;
    let cache = Cache::of(&upstream).await;
    let paths = pulled(&upstream, &cache).await;

    for path in &paths {
        for who in [&B[..], &[]] {
            let seen = as_whom(&cache, path, who).await;

            assert_eq!(seen.status, 401, "{path}");
            assert!(seen.headers.contains_key("www-authenticate"));
        }
        assert_eq!(
            cache
                .ask("HEAD", &format!("/v2/{path}?ns=registry.test"), &B)
                .await
                .status,
            401
        );
    }
}

#[tokio::test]
async fn a_right_is_shown_once_and_lasts_through_an_outage_for_its_owner_alone() {
    let upstream = Upstream::start().await;
    let cache = Cache::of(&upstream).await;
    let [_, manifest, layer] = pulled(&upstream, &cache).await;
    let asked = upstream.asked(&[]).len();

    for path in [&manifest, &layer] {
        assert_eq!(as_whom(&cache, path, &A).await.status, 200);
    }
    let asked_again = upstream.asked(&[]).len();
    upstream.fail(
        "/v2/",
        usize::MAX,
        Fault::Status(502, "x-test", "down".to_owned()),
    );

    assert_eq!(asked_again, asked);
    assert_eq!(as_whom(&cache, &layer, &A).await.status, 200);
    assert_eq!(as_whom(&cache, &layer, &[]).await.status, 401);
}

#[tokio::test]
async fn a_right_to_one_repository_is_none_to_the_blobs_of_another() {
    let upstream = Upstream::start().await;
    let cache = Cache::of(&upstream).await;
    let layer = upstream.blob("a/b", b"secret layer");
    let own = upstream.blob("c/d", b"own layer");
    assert_eq!(
        as_whom(&cache, &format!("a/b/blobs/{layer}"), &[])
            .await
            .status,
        200
    );
    assert_eq!(
        as_whom(&cache, &format!("c/d/blobs/{own}"), &[])
            .await
            .status,
        200
    );

    let seen = as_whom(&cache, &format!("c/d/blobs/{layer}"), &[]).await;

    assert_eq!(seen.status, 404);
}
