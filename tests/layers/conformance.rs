//! The conformance suite of the distribution specification, as far as it reads, against the mirror.

use std::fs;
use std::path::Path;
use std::time::Duration;

use orlop::host::command::Command;
use orlop::layers::image::digest::Digest;

use crate::cache::Cache;
use crate::clients::{descriptor, tool};
use crate::noise::noise;
use crate::upstream::Upstream;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What writes, by parts of the names; that the mirror refuses it, is a test of its own.
const NOT_OURS: [&str; 4] = ["/delete/", "/push/", "manifest-put", " blobs"];
/// What reads.
const OURS: [&str; 14] = [
    "ping",
    "empty/tag list",
    "empty/referrers",
    "read-only/tag-list",
    "read-only/head/manifest-head-by-tag",
    "read-only/head/manifest-head-by-digest",
    "read-only/head/blob-head",
    "read-only/pull/manifest-by-tag",
    "read-only/pull/manifest-by-digest",
    "read-only/pull/blob-get",
    "read-only/referrers",
    "missing-manifest/by-digest",
    "missing-manifest/by-tag",
    "invalid-digest-format/manifest-get",
];

/// What the suite is told of: it can not write it itself.
struct Content {
    tags: Vec<String>,
    manifests: Vec<String>,
    blobs: Vec<String>,
    subjects: Vec<String>,
}

/// Some of everything that a repository can hold, in `a/b`.
fn fill(upstream: &Upstream) -> Content {
    let config = br#"{"architecture":"amd64","os":"linux"}"#;
    let layer = noise(1, 3 << 20);
    let blobs: [&[u8]; 3] = [config, &layer, b""];
    let image = format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{},"layers":[{}]}}"#,
        descriptor("application/vnd.oci.image.config.v1+json", config),
        descriptor("application/vnd.oci.image.layer.v1.tar", &layer),
    );
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#,
        descriptor(IMAGE, image.as_bytes()),
    );
    let mut content = Content {
        tags: vec!["v1".to_owned(), "v2".to_owned()],
        manifests: [&image, &index]
            .map(|text| Digest::of(text.as_bytes()).to_string())
            .to_vec(),
        blobs: blobs.map(|bytes| upstream.blob("a/b", bytes)).to_vec(),
        subjects: Vec::new(),
    };
    for (names, text, kind) in [
        (["v1", &content.manifests[0]], &image, IMAGE),
        (["v2", &content.manifests[1]], &index, INDEX),
    ] {
        for name in names {
            upstream.put(&format!("/v2/a/b/manifests/{name}"), text.as_bytes(), kind);
        }
    }
    let long = sha512(&layer);
    upstream.put(&format!("/v2/a/b/blobs/{long}"), &layer, "x/y");
    content.blobs.push(long);
    let long = sha512(image.as_bytes());
    upstream.put(
        &format!("/v2/a/b/manifests/{long}"),
        image.as_bytes(),
        IMAGE,
    );
    content.manifests.push(long);
    for (query, tags) in [("", r#""v1","v2""#), ("?last=v1", r#""v2""#)] {
        let list = format!(r#"{{"name":"a/b","tags":[{tags}]}}"#);
        upstream.put(
            &format!("/v2/a/b/tags/list{query}"),
            list.as_bytes(),
            "application/json",
        );
    }
    // One is asked for by the door that a new registry has, the other by the tag that an old one has.
    let [new, old] = [&content.manifests[0], &content.manifests[1]];
    upstream.put(&format!("/v2/a/b/referrers/{new}"), index.as_bytes(), INDEX);
    upstream.put(
        &format!("/v2/a/b/manifests/{}", old.replace(':', "-")),
        index.as_bytes(),
        INDEX,
    );
    content.subjects = vec![new.clone(), old.clone()];
    content
}

fn sha512(bytes: &[u8]) -> String {
    let sum = ring::digest::digest(&ring::digest::SHA512, bytes);
    let hex = sum.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha512:{}", hex.collect::<String>())
}

/// Builds the suite; says so, if it can not be.
async fn suite() -> Option<String> {
    if let Err(missing) = tool(Command::query("go").arg("version")).await {
        eprintln!("SKIPPED: the conformance suite, because building it needs Go: {missing:#}");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layers/conformance.sh");
    let built = tool(Command::new(script).limit(Duration::from_mins(10))).await;
    Some(built.expect("the suite is built").trim().to_owned())
}

/// Runs the suite on a repository as the mirror has it; how each of its tests ended.
async fn run(
    suite: &str,
    cache: &Cache,
    repository: &str,
    content: &Content,
) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = [
        ("OCI_REGISTRY", cache.url.trim_start_matches("http://")),
        ("OCI_REPO1", repository),
        ("OCI_RO_DATA_TAGS", &content.tags.join(" ")),
        ("OCI_RO_DATA_MANIFESTS", &content.manifests.join(" ")),
        ("OCI_RO_DATA_BLOBS", &content.blobs.join(" ")),
        ("OCI_RO_DATA_REFERRERS", &content.subjects.join(" ")),
        ("OCI_RESULTS_DIR", &folder.path().display().to_string()),
    ]
    .map(|(name, value)| format!("{name}={value}"));
    let fixed = [
        "OCI_TLS=disabled",
        "OCI_VERSION=1.1",
        "OCI_API_PUSH=false",
        "OCI_API_BLOBS_DELETE=false",
        "OCI_API_MANIFESTS_DELETE=false",
        "OCI_API_TAGS_DELETE=false",
    ];
    // It ends with 1 if a test was skipped, too.
    let command = Command::new("env")
        .args(settings)
        .args(fixed)
        .arg(suite)
        .accept(1);
    tool(command).await.expect("it runs");
    let report = fs::read_to_string(folder.path().join("junit.xml")).expect("it reports");
    let report = roxmltree::Document::parse(&report).expect("it is XML");
    let tests = report
        .descendants()
        .filter(|node| node.has_tag_name("testcase"));
    let of = |test: roxmltree::Node<'_, '_>, name| {
        let value = test.attribute(name).unwrap_or_default();
        value.trim_start_matches("OCI Conformance Test/").to_owned()
    };
    tests
        .map(|test| (of(test, "name"), of(test, "status")))
        .collect()
}

#[tokio::test]
async fn the_suite_of_the_specification_reads_without_a_failure() {
    let Some(suite) = suite().await else {
        return;
    };
    let upstream = Upstream::start().await;
    let content = fill(&upstream);
    let cache = Cache::of(&upstream).await;

    // Twice each: from upstream, and from the cache.
    for repository in ["registry.test/a/b", "a/b", "registry.test/a/b", "a/b"] {
        let ends = run(&suite, &cache, repository, &content).await;

        let not_passed = ends.iter().filter(|(_, end)| end != "passed");
        let failed: Vec<_> = not_passed
            .filter(|(name, end)| {
                end != "skipped" || !NOT_OURS.iter().any(|part| name.contains(part))
            })
            .collect();
        assert!(failed.is_empty(), "{failed:#?}");
        for what in OURS {
            assert!(
                ends.iter()
                    .any(|(name, end)| name == what && end == "passed"),
                "{what}: {ends:#?}"
            );
        }
    }
}
