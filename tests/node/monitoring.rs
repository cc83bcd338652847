//! What `charts/orlop/monitoring` says of the metrics, held against a real node and a real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use orlop::host::command::{Command, Runner, Tools};
use orlop::host::gate::Gate;
use serde_json::Value;

use crate::calls::{self, Client, MIB};
use crate::layers::Layers;
use crate::node::Node;
use crate::support::get;
use crate::support::{Killed, skipped};
use crate::surroundings::address;
use crate::{PATIENCE, until};

/// Metrics that only a controller has; tests/router sees that it does.
const OF_A_CONTROLLER: [&str; 5] = [
    "orlop_known_snapshots",
    "orlop_known_volumes",
    "orlop_node_look_duration_seconds_bucket",
    "orlop_nodes",
    "orlop_orphans",
];

/// A node with one of everything that is measured, a fault of the pool and one of a volume among it; and a layer cache.
struct Watched {
    layers: Layers,
    node: Node,
    client: Client,
    address: String,
    made: u32,
}

impl Watched {
    async fn start() -> Self {
        let node = Node::start(&["--metrics", "127.0.0.1:0", "--log-format", "json"]);
        until("the port is open", || address(&node).is_some()).await;
        let address = address(&node).expect("it was seen");
        let client = Client::new(node.channel().await);
        let mut watched = Self {
            layers: Layers::start(&node.dir.path().join("layers")),
            node,
            client,
            address,
            made: 0,
        };
        watched.work().await;
        let pool = watched.node.dir.path().join("data/default");
        let lost = watched.client.create(calls::volume("lost", MIB)).await;
        lost.expect("there is room");
        fs::remove_dir(pool.join("volumes/lost/data")).expect("it is empty");
        fs::create_dir(pool.join("trash/stuck")).expect("the pool can be written");
        watched
    }

    /// Calls that start a tool, so that there is something new to count.
    async fn work(&mut self) {
        self.layers.work();
        self.made += 1;
        let mut image = calls::volume(&format!("image{}", self.made), MIB);
        image.parameters = [("layout".to_owned(), "image".to_owned())].into();
        self.client.create(image).await.expect("there is room");
    }

    fn scrape(&self) -> String {
        let answer = get(&self.address, "metrics");
        let (_, body) = answer.split_once("\r\n\r\n").expect("it has a body");
        body.to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_keep_the_conventions_of_prometheus() {
    if !has_prometheus("the conventions of metrics") {
        return;
    }
    let watched = Watched::start().await;

    for text in [watched.scrape(), watched.layers.scrape()] {
        let check = Command::query("promtool").args(["check", "metrics"]);
        let said = run(&check.input(classic(&text).into_bytes()).with_errors());
        assert_eq!(said, "", "promtool has something to say");
    }
}

#[test]
fn each_alert_fires_on_what_it_is_for() {
    if !has_prometheus("the alert rules") {
        return;
    }
    let rules = monitoring().join("alerts-test.yaml");

    run(&Command::query("promtool")
        .args(["check", "rules", "--lint-fatal"])
        .arg(monitoring().join("alerts.yaml")));
    run(&Command::query("promtool")
        .args(["test", "rules"])
        .arg(rules));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_panels_name_metrics_that_there_are() {
    let watched = Watched::start().await;
    let text = watched.scrape() + &watched.layers.scrape();
    let alerts = fs::read_to_string(monitoring().join("alerts.yaml")).expect("it is there");

    let mut wanted = metrics_in(&alerts);
    for expr in queries(&dashboard()) {
        wanted.extend(metrics_in(&expr));
    }

    for name in OF_A_CONTROLLER {
        assert!(wanted.remove(name), "{name} is not in {wanted:?}");
    }
    assert!(wanted.len() > 25, "{wanted:?}");
    let told: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let missing: Vec<_> = wanted
        .iter()
        .filter(|name| !told.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?} are not in\n{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_answers_each_panel_and_loads_each_rule() {
    if !has_prometheus("the dashboard") {
        return;
    }
    let mut watched = Watched::start().await;
    let (_prometheus, url) = prometheus(&watched);
    let mut open = queries(&dashboard());
    assert!(open.len() > 15, "{open:?}");

    let started = Instant::now();
    while !open.is_empty() {
        assert!(started.elapsed() < PATIENCE, "no data for {open:?}");
        watched.work().await;
        let mut left = Vec::new();
        for expr in open {
            let answer = ask(&url, "query", &[("query", &expr)]).await;
            assert_ne!(answer["status"], "error", "{expr}: {answer}");
            let away = OF_A_CONTROLLER.iter().any(|name| expr.contains(name));
            let answered = has_data(&answer) || (away && answer["status"] == "success");
            if !answered {
                left.push(expr);
            }
        }
        open = left;
    }
    let rules = ask(&url, "rules", &[]).await;
    let rules = rules["data"]["groups"][0]["rules"].as_array().cloned();

    let rules = rules.expect("the rules are loaded");
    assert!(rules.len() > 10, "{rules:?}");
    assert!(
        rules.iter().all(|rule| rule["lastError"].is_null()),
        "{rules:?}"
    );
}

/// Starts one that scrapes the node, and says where it answers.
fn prometheus(watched: &Watched) -> (Killed, String) {
    let dir = watched.node.dir.path();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let address = port.expect("a port is free").to_string();
    let config = format!(
        "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}\nrule_files: [{}]\n\
         scrape_configs:\n  - job_name: orlop-node\n    static_configs: [{{ targets: [{}] }}]\n  \
         - job_name: orlop-layers\n    static_configs: [{{ targets: [{}] }}]\n",
        monitoring().join("alerts.yaml").display(),
        watched.address,
        watched.layers.address
    );
    let file = dir.join("prometheus.yaml");
    fs::write(&file, config).expect("the directory can be written");
    let log = fs::File::create(dir.join("prometheus.log")).expect("the directory can be written");
    #[expect(
        clippy::disallowed_methods,
        reason = "a test starts a server beside what it tests"
    )]
    let server = std::process::Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            dir.join("tsdb").display()
        ))
        .arg(format!("--web.listen-address={address}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    let server = Killed(server.expect("it is installed"));
    (server, format!("http://{address}/api/v1/"))
}

/// What the API answers; null while nobody listens.
async fn ask(url: &str, call: &str, parameters: &[(&str, &str)]) -> Value {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build();
    let url = reqwest::Url::parse_with_params(&format!("{url}{call}"), parameters);
    let asked = client
        .expect("it needs nothing")
        .get(url.expect("it is one"));
    let Ok(answer) = asked.send().await else {
        return Value::Null;
    };
    let body = answer.bytes().await.unwrap_or_default();
    serde_json::from_slice(&body).unwrap_or_default()
}

/// Whether some series has a number.
fn has_data(answer: &Value) -> bool {
    let all = answer["data"]["result"].as_array();
    let number = |one: &Value| one["value"][1].as_str()?.parse::<f64>().ok();
    all.is_some_and(|all| all.iter().filter_map(number).any(f64::is_finite))
}

fn dashboard() -> Value {
    let text = fs::read(monitoring().join("dashboard.json")).expect("it is there");
    serde_json::from_slice(&text).expect("it is JSON")
}

/// The queries of all panels, for everything.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("each asks something"));
    targets
        .map(|target| target["expr"].as_str().expect("in PromQL"))
        .map(|expr| {
            expr.replace("$instance", ".*")
                .replace("$pool", ".*")
                .replace("$__rate_interval", "1m")
        })
        .collect()
}

/// The names of our metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|one: char| !one.is_ascii_alphanumeric() && one != '_')
        .filter(|word| word.starts_with("orlop_"))
        .map(str::to_owned)
        .collect()
}

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/orlop/monitoring")
}

fn has_prometheus(what: &str) -> bool {
    let has = Tools::new(Gate::open()).run(&Command::query("promtool").arg("--version"));
    if has.is_err() {
        skipped(what, "Prometheus is not installed");
    }
    has.is_ok()
}

/// The text in the older format, the only one that promtool checks: what is said of a counter has its `_total` there.
fn classic(text: &str) -> String {
    let counter = |line: &str| {
        let name = line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?;
        Some(name.to_owned())
    };
    let counters: BTreeSet<_> = text.lines().filter_map(counter).collect();
    let lines = text.lines().map(|line| {
        let mut words = line.splitn(4, ' ');
        match [(); 4].map(|()| words.next()) {
            [Some("#"), Some(kind), Some(name), Some(rest)] if counters.contains(name) => {
                format!("# {kind} {name}_total {rest}\n")
            }
            _ => format!("{line}\n"),
        }
    });
    lines.collect()
}

fn run(command: &Command) -> String {
    let ran = Tools::new(Gate::open()).run(command);
    ran.unwrap_or_else(|error| panic!("{error:#}"))
}
