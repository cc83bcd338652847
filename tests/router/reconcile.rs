//! Who leads the routers, and what the leader finds: by a real API server and real nodes.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client as Kubernetes};
use orlop::csi::proto::CreateVolumeRequest;
use orlop::csi::proto::inspection::ListOrphansRequest;
use orlop::csi::proto::inspection::oversight_client::OversightClient;
use tonic::{Code, Status};

use crate::api::{Api as Server, HERE};
use crate::calls::{MIB, volume};
use crate::figures::port;
use crate::fleet::{Fleet, client_of, on};
use crate::kubernetes::{NAMESPACE, Objects, record, router, until_so};
use crate::node::Node;
use crate::support::run;

/// Nodes that a Kubernetes knows.
async fn known_fleet(server: &Server, count: usize) -> (Fleet, Objects) {
    let fleet = Fleet::of_at(count, HERE);
    let objects = Objects::new(&server.client().await);
    for at in 0..count {
        objects.add_node(at).await;
        objects.set_ready(&fleet, at, true).await;
    }
    (fleet, objects)
}

/// A volume as a provisioner asks for it, made for this claim.
fn made_for(name: &str, node: &str, namespace: &str) -> CreateVolumeRequest {
    let claim =
        |key: &str, value: &str| (format!("csi.storage.k8s.io/pvc/{key}"), value.to_owned());
    CreateVolumeRequest {
        parameters: [claim("namespace", namespace), claim("name", "data")].into(),
        ..on(name, &[node])
    }
}

/// The orphans that a router tells of, each as `node id`.
async fn orphans(router: &Node) -> Result<Vec<String>, Status> {
    let mut oversight = OversightClient::new(router.channel().await);
    let told = oversight.list_orphans(ListOrphansRequest {}).await?;
    let told = told.into_inner().orphans.into_iter();
    Ok(told
        .map(|orphan| format!("{} {}", orphan.node, orphan.volume_id))
        .collect())
}

async fn until_orphans_are(router: &Node, expected: &[&str]) {
    until_so(async || orphans(router).await.is_ok_and(|found| found == expected)).await;
}

/// What Events say of this object.
async fn told_of(kubernetes: &Kubernetes, kind: &str, name: &str) -> Vec<String> {
    let events = Api::<Event>::all(kubernetes.clone())
        .list(&ListParams::default())
        .await;
    let of = |event: &Event| {
        let regarding = event.regarding.as_ref();
        regarding
            .is_some_and(|of| of.kind.as_deref() == Some(kind) && of.name.as_deref() == Some(name))
    };
    let events = events.expect("they may be listed").items.into_iter();
    events.filter(of).filter_map(|event| event.reason).collect()
}

#[tokio::test]
async fn one_router_leads_until_it_ends_or_does_not_renew() {
    let Some(server) = Server::start().await else {
        return;
    };
    let (fleet, _) = known_fleet(&server, 1).await;
    let leases = Api::<Lease>::namespaced(server.client().await, NAMESPACE);
    let holder = async || {
        let lease = leases.get_opt("orlop-controller").await.ok().flatten();
        lease.and_then(|lease| lease.spec?.holder_identity)
    };
    let held_by = async |name: &str| holder().await.as_deref() == Some(name);
    let start = |name: &str| router(&server, &fleet, &["--identity", name]);

    let mut first = start("first");
    until_so(async || held_by("first").await && orphans(&first).await.is_ok()).await;
    let mut second = start("second");
    client_of(&second).await;
    let refused = orphans(&second).await.expect_err("it does not lead");
    assert_eq!(refused.code(), Code::FailedPrecondition);

    // One that ends gives it up: there is no need to wait until it ends by itself.
    let begun = std::time::Instant::now();
    first.stop();
    until_so(async || held_by("second").await).await;
    assert!(begun.elapsed().as_secs() < 10, "it was not given up");

    // One that dies does not, and is not waited for any longer than its Lease says.
    let third = start("third");
    second.kill();
    until_so(async || held_by("third").await && orphans(&third).await.is_ok()).await;
}

#[tokio::test]
async fn a_volume_that_no_record_names_is_an_orphan_until_one_does() {
    let Some(server) = Server::start().await else {
        return;
    };
    let (fleet, _) = known_fleet(&server, 2).await;
    let kubernetes = server.client().await;
    record(&kubernetes, "known", "a").await;
    // What another node has under its name is not it.
    for at in 0..2 {
        let mut node = fleet.client(at).await;
        let twice = node.create(volume("twice", MIB)).await;
        twice.expect("there is room");
    }
    record(&kubernetes, "twice", "b").await;

    let router = router(&server, &fleet, &["--orphans-after", "1s"]);
    let mut client = client_of(&router).await;
    for request in [
        made_for("known", "a", "shop"),
        made_for("lost", "b", "shop"),
        made_for("docker", "b", "(docker)"),
    ] {
        client.create(request).await.expect("there is room");
    }

    until_orphans_are(&router, &["a default/twice", "b default/lost"]).await;
    assert_eq!(told_of(&kubernetes, "Node", "b").await, ["OrphanedVolumes"]);
    assert_eq!(listed(&router), ["default/twice", "default/lost"]);
    record(&kubernetes, "lost", "b").await;
    until_orphans_are(&router, &["a default/twice"]).await;
    assert_eq!(fleet.counts().await, [2, 3]);
}

/// What the command line lists as orphans.
fn listed(router: &Node) -> Vec<String> {
    let socket = router.socket.display().to_string();
    let args = [
        "volume",
        "ls",
        "--orphans",
        "-o",
        "name",
        "--endpoint",
        &socket,
    ];
    let printed = run(env!("CARGO_BIN_EXE_orlop"), args).expect("it can be asked");
    printed.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn only_who_says_so_has_orphans_deleted_and_only_those_of_claims_that_are_gone() {
    let Some(server) = Server::start().await else {
        return;
    };
    let (fleet, objects) = known_fleet(&server, 1).await;
    let uid = objects.add_claim("data").await;
    let args = ["--orphans-after", "1s", "--delete-orphans-after", "2s"];
    let router = router(&server, &fleet, &args);
    let mut client = client_of(&router).await;

    let awaited = format!("pvc-{uid}");
    for request in [
        made_for(&awaited, "a", NAMESPACE),
        made_for("pvc-of-a-claim-that-is-gone", "a", NAMESPACE),
        on("by-hand", &["a"]),
    ] {
        client.create(request).await.expect("there is room");
    }

    let left = [
        "a default/by-hand".to_owned(),
        format!("a default/{awaited}"),
    ];
    until_orphans_are(&router, &left.each_ref().map(String::as_str)).await;
    until_so(async || fleet.counts().await == [2]).await;
    objects.remove_claim("data").await;
    until_orphans_are(&router, &["a default/by-hand"]).await;
    until_so(async || fleet.counts().await == [1]).await;
}

#[tokio::test]
async fn a_record_whose_volume_is_not_there_is_told_with_its_claim() {
    let Some(server) = Server::start().await else {
        return;
    };
    let (fleet, objects) = known_fleet(&server, 1).await;
    let kubernetes = server.client().await;
    let args = ["--orphans-after", "1s", "--metrics", "127.0.0.1:0"];
    let router = router(&server, &fleet, &args);
    client_of(&router).await;
    let uid = objects.add_claim("data").await;

    objects.add_bound("gone", "a", ("data", &uid), "any").await;

    for (kind, name) in [
        ("PersistentVolume", "gone"),
        ("PersistentVolumeClaim", "data"),
    ] {
        until_so(async || told_of(&kubernetes, kind, name).await == ["VolumeMissing"]).await;
    }
    let figure = r#"orlop_orphans{node="a",kind="record"} 1"#;
    until_so(async || scraped(&router).await.contains(figure)).await;
    objects.remove_volume("gone").await;
    until_so(async || !scraped(&router).await.contains("orlop_orphans{")).await;
}

async fn scraped(router: &Node) -> String {
    let url = format!("http://127.0.0.1:{}/metrics", port(router).await);
    let answer = reqwest::get(url).await;
    answer.expect("it serves").text().await.expect("it is text")
}

#[tokio::test]
async fn only_a_claim_whose_class_lets_go_is_released_and_only_if_its_node_is_lost() {
    let Some(server) = Server::start().await else {
        return;
    };
    let (fleet, objects) = known_fleet(&server, 3).await;
    let kubernetes = server.client().await;
    for (class, on_node_loss) in [("lets-go", "release"), ("keeps", "keep")] {
        objects.add_class(class, on_node_loss).await;
    }
    let router = router(&server, &fleet, &["--release-claims-after", "2s"]);
    client_of(&router).await;
    for (name, node, class) in [
        ("gone", "a", "lets-go"),
        ("kept", "a", "keeps"),
        ("off", "b", "lets-go"),
        ("silent", "c", "lets-go"),
    ] {
        let uid = objects.add_claim(name).await;
        objects.add_bound(name, node, (name, &uid), class).await;
    }

    // One leaves, one is said to be off for good, and one only does not serve.
    objects.remove_node(0).await;
    objects.taint(1).await;
    for at in 0..3 {
        objects.set_ready(&fleet, at, false).await;
    }

    for name in ["gone", "off"] {
        until_so(async || !objects.claim_is_kept(name).await).await;
        let told = told_of(&kubernetes, "PersistentVolumeClaim", name).await;
        assert_eq!(told, ["NodeLost"]);
    }
    for name in ["kept", "silent"] {
        assert!(objects.claim_is_kept(name).await, "{name}");
    }
}
