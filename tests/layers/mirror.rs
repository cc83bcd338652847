//! What the mirror answers when nothing goes wrong: the read-only half of the distribution specification.

use crate::cache::Cache;
use crate::noise::noise;
use crate::upstream::{Fault, Upstream};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn all_three_dialects_get_the_same_blob_from_one_fetch() {
    let upstream = Upstream::start().await;
    let layer = noise(1, 3 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let cache = Cache::of(&upstream).await;

    for path in [
        format!("/v2/a/b/blobs/{digest}?ns=registry.test"),
        format!("/v2/registry.test/a/b/blobs/{digest}"),
        format!("/v2/a/b/blobs/{digest}"),
    ] {
        let seen = cache.get(&path).await;

        assert_eq!(seen.status, 200, "{path}");
        assert_eq!(seen.headers["docker-content-digest"], digest);
        assert!(seen.bytes() == layer, "{path}");
    }
    assert_eq!(upstream.asked(&["GET", "/blobs/"]).len(), 1);
    assert_eq!(upstream.sent(), layer.len() as u64);
}

#[tokio::test]
async fn many_at_once_share_one_fetch_and_follow_it_while_it_arrives() {
    let upstream = Upstream::start().await;
    let layer = noise(2, 4 * MIB);
    let digest = upstream.blob("a/b", &layer);
    upstream.fail("/blobs/", 1, Fault::StopAt(2 * MIB));
    let cache = Cache::of(&upstream).await;
    let path = format!("/v2/a/b/blobs/{digest}?ns=registry.test");

    let mut answers = Vec::new();
    for _ in 0..16 {
        // The headers come although upstream stands still half way.
        answers.push(cache.begin("GET", &path, &[]).await);
    }
    let first = answers[0]
        .chunk()
        .await
        .expect("it flows")
        .expect("it flows");
    upstream.open_gate();

    assert!(layer.starts_with(&first));
    for answer in answers.into_iter().skip(1) {
        assert!(crate::cache::Seen::of(answer).await.bytes() == layer);
    }
    assert_eq!(upstream.sent(), layer.len() as u64);
}

#[tokio::test]
async fn a_manifest_is_had_by_tag_and_by_digest() {
    let upstream = Upstream::start().await;
    let manifest = br#"{"schemaVersion":2,"layers":[]}"#;
    let digest = upstream.manifest("a/b", "v1", manifest);
    let cache = Cache::of(&upstream).await;

    for reference in ["v1", &digest] {
        for method in ["HEAD", "GET"] {
            let path = format!("/v2/a/b/manifests/{reference}?ns=registry.test");
            let seen = cache.ask(method, &path, &[]).await;

            assert_eq!(seen.status, 200);
            assert_eq!(seen.headers["docker-content-digest"], digest);
            assert_eq!(seen.headers["content-length"], manifest.len().to_string());
            assert_eq!(
                seen.headers["content-type"],
                "application/vnd.oci.image.manifest.v1+json"
            );
            let expected: &[u8] = if method == "GET" { manifest } else { b"" };
            assert_eq!(seen.bytes(), expected);
        }
    }
    assert_eq!(upstream.asked(&["GET"]).len(), 1);
    assert_eq!(upstream.asked(&["HEAD"]).len(), 1);
}

#[tokio::test]
async fn ranges_are_answered_as_http_has_them() {
    let upstream = Upstream::start().await;
    let layer = noise(3, 3000);
    let digest = upstream.blob("a/b", &layer);
    let cache = Cache::of(&upstream).await;
    let path = format!("/v2/a/b/blobs/{digest}?ns=registry.test");

    for (range, status, expected, content_range) in [
        (
            "bytes=500-1499",
            206,
            &layer[500..1500],
            "bytes 500-1499/3000",
        ),
        ("bytes=500-", 206, &layer[500..], "bytes 500-2999/3000"),
        ("bytes=-500", 206, &layer[2500..], "bytes 2500-2999/3000"),
        (
            "bytes=2000-5000",
            206,
            &layer[2000..],
            "bytes 2000-2999/3000",
        ),
        ("bytes=500-0", 416, &[], "bytes */3000"),
        ("bytes=3000-", 416, &[], "bytes */3000"),
    ] {
        let seen = cache.ask("GET", &path, &[("range", range)]).await;

        assert_eq!(seen.status, status, "{range}");
        assert_eq!(seen.bytes(), expected, "{range}");
        assert_eq!(seen.headers["content-range"], content_range);
    }
}

#[tokio::test]
async fn a_blob_is_looked_at_without_fetching_it() {
    let upstream = Upstream::start().await;
    let digest = upstream.blob("a/b", &noise(4, 5000));
    let cache = Cache::of(&upstream).await;
    let path = format!("/v2/a/b/blobs/{digest}?ns=registry.test");

    let seen = cache.ask("HEAD", &path, &[]).await;
    let etag = seen.headers["etag"].clone();
    let unchanged = cache.ask("HEAD", &path, &[("if-none-match", &etag)]).await;

    assert_eq!(
        (seen.status, seen.headers["content-length"].as_str()),
        (200, "5000")
    );
    assert_eq!(unchanged.status, 304);
    assert_eq!(upstream.asked(&["GET"]).len(), 0);
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let upstream = Upstream::start().await;
    let digest = upstream.blob("a/b", b"");
    let cache = Cache::of(&upstream).await;

    let seen = cache
        .get(&format!("/v2/a/b/blobs/{digest}?ns=registry.test"))
        .await;

    assert_eq!((seen.status, seen.bytes().len()), (200, 0));
    assert_eq!(seen.headers["content-length"], "0");
}

#[tokio::test]
async fn what_nobody_has_is_not_found() {
    let upstream = Upstream::start().await;
    let cache = Cache::of(&upstream).await;
    let unknown = format!("sha256:{}", "0".repeat(64));

    for (path, code) in [
        (
            format!("/v2/a/b/blobs/{unknown}?ns=registry.test"),
            "BLOB_UNKNOWN",
        ),
        (
            "/v2/a/b/manifests/none?ns=registry.test".to_owned(),
            "MANIFEST_UNKNOWN",
        ),
        (
            "/v2/a/b/tags/list?ns=registry.test".to_owned(),
            "NAME_UNKNOWN",
        ),
    ] {
        let seen = cache.get(&path).await;
        let looked = cache.ask("HEAD", &path, &[]).await;

        assert_eq!((seen.status, looked.status), (404, 404), "{path}");
        assert!(
            String::from_utf8_lossy(seen.bytes()).contains(code),
            "{path}"
        );
    }
    assert_eq!(cache.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn whatever_would_write_is_refused_and_goes_nowhere() {
    let upstream = Upstream::start().await;
    let digest = upstream.blob("a/b", b"layer");
    let manifest = upstream.manifest("a/b", "v1", b"{}");
    let cache = Cache::of(&upstream).await;

    for (method, path) in [
        ("POST", "blobs/uploads/"),
        ("POST", &*format!("blobs/uploads/?digest={digest}")),
        ("POST", &*format!("blobs/uploads/?mount={digest}&from=c/d")),
        ("PATCH", "blobs/uploads/1"),
        ("PUT", &*format!("blobs/uploads/1?digest={digest}")),
        ("DELETE", "blobs/uploads/1"),
        ("DELETE", &*format!("blobs/{digest}")),
        ("PUT", "manifests/v1"),
        ("PUT", &*format!("manifests/{manifest}")),
        ("DELETE", "manifests/v1"),
        ("DELETE", &*format!("manifests/{manifest}")),
    ] {
        for dialect in ["registry.test/a/b", "a/b"] {
            let seen = cache
                .ask(method, &format!("/v2/{dialect}/{path}"), &[])
                .await;

            assert_eq!(seen.status, 405, "{method} {path}");
            assert_eq!(seen.headers["allow"], "GET, HEAD");
            let said = String::from_utf8_lossy(seen.bytes());
            assert!(said.contains("UNSUPPORTED"), "{said}");
        }
    }
    assert!(upstream.asked(&[]).is_empty());
}

#[tokio::test]
async fn tag_lists_and_referrers_come_from_the_registry() {
    let upstream = Upstream::start().await;
    let subject = upstream.manifest("a/b", "v1", b"{}");
    let index =
        br#"{"schemaVersion":2,"manifests":[{"artifactType":"x/sbom"},{"artifactType":"x/sig"}]}"#;
    upstream.put(
        "/v2/a/b/tags/list",
        br#"{"name":"a/b","tags":["v1"]}"#,
        "application/json",
    );
    // This registry has no referrers door, only the index under the tag of the digest's name.
    upstream.manifest("a/b", &subject.replace(':', "-"), index);
    let cache = Cache::of(&upstream).await;

    let tags = cache.get("/v2/a/b/tags/list?n=5&ns=registry.test").await;
    let all = cache
        .get(&format!("/v2/a/b/referrers/{subject}?ns=registry.test"))
        .await;
    let some = cache
        .get(&format!(
            "/v2/a/b/referrers/{subject}?artifactType=x/sig&ns=registry.test"
        ))
        .await;

    assert_eq!(tags.bytes(), br#"{"name":"a/b","tags":["v1"]}"#);
    assert_eq!(
        all.headers["content-type"],
        "application/vnd.oci.image.index.v1+json"
    );
    assert!(String::from_utf8_lossy(all.bytes()).contains("x/sbom"));
    assert!(!String::from_utf8_lossy(some.bytes()).contains("x/sbom"));
    assert_eq!(some.headers["oci-filters-applied"], "artifactType");
}

#[tokio::test]
async fn a_sha512_blob_is_verified_too() {
    let upstream = Upstream::start().await;
    let digest = "sha512:ee26b0dd4af7e749aa1a8ee3c10ae9923f618980772e473f8819a5d4940e0db27ac185f8a0e1d5f84f88bc887fd67b143732c304cc5fa9ad8e6f57f50028a8ff";
    for (repository, bytes) in [("right", b"test"), ("wrong", b"tost")] {
        upstream.put(&format!("/v2/{repository}/blobs/{digest}"), bytes, "x/y");
    }
    let cache = Cache::of(&upstream).await;

    let wrong = cache
        .get(&format!("/v2/wrong/blobs/{digest}?ns=registry.test"))
        .await;
    let right = cache
        .get(&format!("/v2/right/blobs/{digest}?ns=registry.test"))
        .await;

    assert_eq!(wrong.status, 503);
    assert_eq!((right.status, right.bytes()), (200, b"test".as_slice()));
}
