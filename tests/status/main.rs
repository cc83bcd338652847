//! The status page, in a real Chromium, over a real node.

#[path = "../support/authority.rs"]
mod authority;
mod browser;
#[path = "../support/calls.rs"]
mod calls;
mod cluster;
#[path = "../router/fleet.rs"]
#[allow(dead_code, reason = "that of the router's tests has more")]
mod fleet;
#[path = "../support/layers.rs"]
#[allow(dead_code, reason = "the node's tests scrape it, too")]
mod layers;
#[path = "../support/node.rs"]
mod node;
#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use browser::Browser;
use calls::{Client, MIB};
use layers::Layers;
use node::Node;
use serde_json::json;
use support::skipped;

/// Tab, Enter, as `WebDriver` writes them.
const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";

const ROWS: &str = "document.querySelectorAll('#volumes tr').length";

/// A page over a node; dropped, both are gone.
struct Page {
    node: Node,
    client: Client,
    server: Child,
    url: String,
}

impl Page {
    async fn serve(arguments: &[&str]) -> Self {
        let node = Node::start(&["--node-name", "deck"]);
        Self::over(node, arguments).await
    }

    async fn over(node: Node, arguments: &[&str]) -> Self {
        let client = Client::new(node.channel().await);
        #[expect(clippy::disallowed_methods, reason = "a test starts what it tests")]
        let mut server = std::process::Command::new(env!("CARGO_BIN_EXE_orlop"))
            .args([
                "status",
                "--serve",
                "127.0.0.1:0",
                "--log-format",
                "json",
                "--endpoint",
            ])
            .arg(&node.socket)
            // Not that of whoever tests.
            .env("ORLOP_LAYERS_CACHE", node.dir.path().join("layers"))
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cargo built the binary");
        let log = BufReader::new(server.stderr.take().expect("it is piped"));
        let address = log.lines().map_while(Result::ok).find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            Some(line["address"].as_str()?.to_owned())
        });
        Self {
            url: format!("http://{}/", address.expect("it says where it serves")),
            node,
            client,
            server,
        }
    }

    /// The code of a request without a browser, and what it gives.
    async fn get(&self, path: &str) -> (u16, String) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("it needs nothing");
        let answer = client.get(format!("{}{path}", self.url)).send().await;
        let answer = answer.expect("it serves");
        (
            answer.status().as_u16(),
            answer.text().await.expect("it is text"),
        )
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_all_that_there_is_and_keeps_up() {
    let Some(browser) = Browser::open().await else {
        return skipped("the status page", "chromedriver is not installed");
    };
    let mut page = Page::serve(&[]).await;
    let data = page
        .client
        .create(calls::volume("data", MIB))
        .await
        .expect("there is room");
    let taken = page
        .client
        .snapshot("before", &data.volume_id)
        .await
        .expect("there is room");

    browser.visit(&page.url).await;
    browser.until(ROWS, 2).await;
    let names =
        "[...document.querySelectorAll('#volumes td:first-child')].map(cell => cell.textContent)";
    let first = browser.eval(names).await;
    let pool = browser
        .eval("document.querySelector('.bar').getAttribute('aria-label')")
        .await;
    let mut restored = calls::volume("again", MIB);
    restored.volume_content_source = Some(calls::of_snapshot(&taken.snapshot_id));
    page.client.create(restored).await.expect("there is room");
    browser.until(ROWS, 3).await;
    let then = browser.eval(names).await;

    assert_eq!(first, json!(["default/data", "└ default/data@before"]));
    assert_eq!(
        then,
        json!(["default/data", "└ default/data@before", "└ default/again"])
    );
    let pool = pool.as_str().expect("the bar has a text");
    assert!(
        pool.contains("% used") && pool.contains("available of"),
        "{pool}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_volumes_are_found_and_sorted_by_keyboard_in_light_and_dark() {
    let Some(browser) = Browser::open().await else {
        return skipped(
            "the status page with 1,000 volumes",
            "chromedriver is not installed",
        );
    };
    let mut page = Page::serve(&[]).await;
    for number in 0..1000 {
        let volume = calls::volume(&format!("v{number}"), MIB * (1 + number % 7));
        page.client.create(volume).await.expect("there is room");
    }
    std::fs::remove_dir_all(page.node.dir.path().join("data/default/volumes/v500/data"))
        .expect("the volume is a directory");

    browser.visit(&page.url).await;
    browser.until(ROWS, 1000).await;
    let sick = browser
        .eval("document.querySelector('#volumes .fault').textContent")
        .await;
    // The first stop is the search, the next the choice, then the titles of the columns.
    browser.press(&format!("{TAB}v99")).await;
    browser.until(ROWS, 11).await;
    browser
        .press(&format!("{TAB}{TAB}{TAB}{TAB}{ENTER}{ENTER}"))
        .await;
    let sorted = browser
        .eval("document.querySelector('[data-by=sizeBytes]').getAttribute('aria-sort')")
        .await;
    let largest = browser
        .eval("document.querySelector('#volumes .number').textContent")
        .await;
    let ground = "getComputedStyle(document.body).backgroundColor";
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        grounds.push(browser.eval(ground).await);
        let file =
            std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("status-{scheme}.png"));
        std::fs::write(file, browser.screenshot().await).expect("the directory can be written");
    }
    let unnamed = browser
        .eval("[...document.querySelectorAll('input, select, button, meter')].filter(one => !(one.labels?.length || one.textContent || one.ariaLabel)).length")
        .await;

    assert!(
        sick.as_str()
            .is_some_and(|text| text.starts_with("DataMissing")),
        "{sick}"
    );
    assert_eq!((sorted, largest), (json!("descending"), json!("7.0 MiB")));
    assert_ne!(grounds[0], grounds[1]);
    assert_eq!(unnamed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_know_the_token_sees_nothing() {
    let page = Page::serve(&["--token", "anchor"]).await;

    let without = page.get("").await;
    let wrong = page.get("events?token=anchox").await;
    let right = page.get("?token=anchor").await;

    assert_eq!(without.0, 401);
    assert!(without.1.contains("/?token=TOKEN"), "{}", without.1);
    assert_eq!(wrong.0, 401);
    assert_eq!(right.0, 200);
    assert!(right.1.starts_with("<!doctype html>"));
}

#[test]
fn a_page_for_everybody_needs_a_token() {
    let ran = support::run(
        env!("CARGO_BIN_EXE_orlop"),
        ["status", "--serve", "0.0.0.0:0"],
    );

    let error = ran.expect_err("anybody could read it");
    assert!(
        format!("{error:#}").contains("give a --token too"),
        "{error:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_layer_caches_did_is_shown_by_where_blobs_came_from() {
    let Some(browser) = Browser::open().await else {
        return skipped(
            "layer caches on the status page",
            "chromedriver is not installed",
        );
    };
    let node = Node::start(&[]);
    let layers = Layers::start(&node.dir.path().join("layers"));
    let nobody = "127.0.0.1:1";
    let metrics = format!("{},{nobody}", layers.address);
    let page = Page::over(node, &["--layers-metrics", &metrics]).await;

    browser.visit(&page.url).await;
    let rows = "document.querySelectorAll('#layers tr').length";
    browser.until(rows, 3).await;
    let cells = "[...document.querySelectorAll('#layers tr')].map(row => [...row.cells].map(cell => cell.textContent))";
    let told = browser.eval(cells).await;

    // One is found beside the node, by its socket; its own metrics say the same; the third is not there.
    let figures = json!(["100 %", "1", "0", "0", "0", "0 B", "0 B", "7 B of 20 GiB"]);
    assert_eq!(told[0][0], "this machine");
    assert_eq!(told[1][0], layers.address.as_str());
    for row in 0..2 {
        let row = told[row].as_array().expect("a row");
        assert_eq!(json!(row[1..]), figures);
    }
    let silent = told[2][1].as_str().expect("a text");
    assert_eq!(told[2][0], nobody);
    assert!(silent.starts_with("does not answer"), "{silent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_over_is_shown_with_what_to_do() {
    let Some(browser) = Browser::open().await else {
        return skipped(
            "leftovers on the status page",
            "chromedriver is not installed",
        );
    };
    let page = Page::serve(&[]).await;
    let none = "document.getElementById('no-orphans').textContent";
    browser.visit(&page.url).await;
    browser.until(none, "There are none.").await;

    let trash = page.node.dir.path().join("data/default/trash/stuck");
    std::fs::create_dir(trash).expect("the pool can be written");

    let told = "document.querySelector('#orphans .wrap')?.textContent.includes('orlop prune')";
    browser.until(told, true).await;
}
