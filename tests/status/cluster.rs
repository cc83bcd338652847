//! The status page of a cluster, as its controller serves it.

use std::fs;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::fleet::{Fleet, client_of, on};
use crate::layers::Layers;
use crate::node::Node;
use crate::support::{run, skipped, until};

const TOKEN: &str = "0123456789abcdef";

/// A controller of two nodes, and where its page is.
struct Bridge {
    fleet: Fleet,
    router: Node,
    address: String,
    token: PathBuf,
    _dir: tempfile::TempDir,
}

impl Bridge {
    fn new(more: &[&str]) -> Self {
        let (fleet, dir) = (Fleet::of(2), tempfile::tempdir().expect("there is room"));
        let token = dir.path().join("token");
        fs::write(&token, format!("{TOKEN}\n")).expect("there is room");
        let file = token.display().to_string();
        let mut words = vec!["--status", "127.0.0.1:0", "--status-token-file", &file];
        words.extend(more);
        let router = fleet.router_and(&words);
        assert!(until(|| address(&router).is_some()), "{}", router.log());
        Self {
            address: address(&router).expect("it was seen"),
            fleet,
            router,
            token,
            _dir: dir,
        }
    }

    /// Asks for the page, with this in the header for who one is.
    async fn get(&self, authorization: Option<String>) -> reqwest::Response {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build();
        let mut request = client
            .expect("it needs nothing")
            .get(format!("http://{}/", self.address));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.expect("it serves")
    }

    async fn code(&self, authorization: String) -> StatusCode {
        self.get(Some(authorization)).await.status()
    }
}

fn address(router: &Node) -> Option<String> {
    let log = router.log();
    let line = log
        .lines()
        .find(|line| line.contains("serving the status page"))?;
    Some(line.split_once("address=")?.1.trim().to_owned())
}

fn basic(name: &str, password: &str) -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{name}:{password}"))
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_brings_the_token_sees_the_page_and_nobody_else() {
    let bridge = Bridge::new(&[]);

    let nothing = bridge.get(None).await;
    for wrong in [
        format!("Bearer {TOKEN}0"),
        "Bearer 0123456789abcdeF".to_owned(),
        "Bearer ".to_owned(),
        basic("admin", "wrong"),
        basic(TOKEN, ""),
        format!("Basic {TOKEN}"),
        TOKEN.to_owned(),
    ] {
        assert_eq!(bridge.code(wrong.clone()).await, 401, "{wrong}");
    }
    for right in [
        format!("Bearer {TOKEN}"),
        basic("", TOKEN),
        basic("anybody", TOKEN),
    ] {
        assert_eq!(bridge.code(right.clone()).await, 200, "{right}");
    }

    // What asks a person for it is a browser.
    let asked = nothing.headers().get(WWW_AUTHENTICATE).cloned();
    assert_eq!(nothing.status(), 401);
    assert!(asked.is_some_and(|asked| asked.as_bytes().starts_with(b"Basic ")));
    let text = nothing.text().await.expect("it is text");
    assert!(!text.contains("<html"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_changed_counts_at_once_and_one_that_is_gone_admits_nobody() {
    let bridge = Bridge::new(&[]);
    let new = "fedcba9876543210";

    fs::write(&bridge.token, new).expect("it is ours");
    let (old, now) = (
        bridge.code(format!("Bearer {TOKEN}")).await,
        bridge.code(format!("Bearer {new}")).await,
    );
    fs::write(&bridge.token, "").expect("it is ours");
    let empty = bridge.code("Bearer ".to_owned()).await;
    fs::remove_file(&bridge.token).expect("it is ours");
    let gone = bridge.code(format!("Bearer {new}")).await;

    assert_eq!((old, now), (StatusCode::UNAUTHORIZED, StatusCode::OK));
    assert_eq!(
        (empty, gone),
        (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED)
    );
}

#[test]
fn a_page_without_a_token_or_with_a_short_one_is_not_served() {
    let dir = tempfile::tempdir().expect("there is room");
    let short = dir.path().join("token");
    fs::write(&short, "anchor").expect("there is room");
    let start = |more: &[&str]| {
        let fleet = crate::authority::Authority::new();
        let certificates = fleet.sign("controller.orlop.dev", dir.path());
        let certificates = certificates.display().to_string();
        let socket = dir.path().join("csi.sock").display().to_string();
        let words = [
            "controller",
            "--endpoint",
            &socket,
            "--certificates",
            &certificates,
        ];
        let words = words
            .into_iter()
            .chain(["--node", "a=127.0.0.1:1", "--status", "127.0.0.1:0"]);
        let ran = run(
            env!("CARGO_BIN_EXE_orlop"),
            words.chain(more.iter().copied()),
        );
        format!("{:#}", ran.expect_err("it would be open"))
    };
    let file = |file: &Path| file.display().to_string();

    let none = start(&[]);
    let missing = start(&["--status-token-file", &file(&dir.path().join("nothing"))]);
    let short = start(&["--status-token-file", &file(&short)]);

    assert!(none.contains("--status-token-file"), "{none}");
    assert!(missing.contains("openssl rand"), "{missing}");
    assert!(short.contains("fewer than 16 characters"), "{short}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_all_nodes_and_goes_on_when_one_is_lost() {
    let Some(browser) = Browser::open().await else {
        return skipped(
            "the status page of a cluster",
            "chromedriver is not installed",
        );
    };
    let dir = tempfile::tempdir().expect("there is room");
    let layers = Layers::start(dir.path());
    let mut bridge = Bridge::new(&["--layers-metrics", &layers.address]);
    let mut client = client_of(&bridge.router).await;
    for (name, node) in [("one", "a"), ("two", "a"), ("three", "b")] {
        client
            .create(on(name, &[node]))
            .await
            .expect("there is room");
    }

    // As a person types it, who keeps the password in the address.
    browser
        .visit(&format!("http://me:{TOKEN}@{}/", bridge.address))
        .await;
    browser
        .until("document.querySelectorAll('#volumes tr').length", 3)
        .await;
    let nodes = "[...document.querySelectorAll('#nodes li')].map(node => node.textContent)";
    let both = browser.eval(nodes).await;
    let pools = browser
        .eval("document.querySelectorAll('#pools > li').length")
        .await;
    let hits = browser
        .eval("document.querySelector('#layers tr').cells[1].textContent")
        .await;
    let orphans = browser
        .eval("document.getElementById('no-orphans').textContent")
        .await;
    bridge.fleet.nodes[1].kill();
    browser
        .until("document.querySelectorAll('#volumes tr').length", 2)
        .await;
    let one = browser.eval(nodes).await;
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("status-cluster.png");
    fs::write(picture, browser.screenshot().await).expect("the directory can be written");

    assert_eq!(both, json!(["a: 2 volumes, ok", "b: 1 volume, ok"]));
    assert_eq!((pools, hits), (json!(2), json!("100 %")));
    assert!(
        orphans.as_str().is_some_and(|text| text.contains("leads")),
        "{orphans}"
    );
    let lost = one[0].as_str().expect("a text");
    assert!(lost.starts_with("does not answer: b: "), "{lost}");
    assert_eq!(one[1], "a: 2 volumes, ok");
    assert_eq!(one.as_array().map(Vec::len), Some(2));
    assert_ne!(one[0], Value::Null);
}
