//! The router in a Kubernetes: which nodes it finds, by a real API server.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node as NodeObject, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client as Kubernetes};
use orlop::csi::proto::ControllerGetVolumeRequest;
use serde_json::json;
use tonic::{Code, Status};

use crate::api::{Api as Server, HERE};
use crate::calls::Client;
use crate::fleet::{Fleet, client_of, name_of, on, place, until_it};
use crate::node::Node;

pub(crate) const NAMESPACE: &str = "default";

/// The objects that a cluster would have of a fleet.
pub(crate) struct Objects {
    nodes: Api<NodeObject>,
    slices: Api<EndpointSlice>,
    volumes: Api<PersistentVolume>,
    claims: Api<PersistentVolumeClaim>,
    classes: Api<StorageClass>,
}

impl Objects {
    pub(crate) fn new(kubernetes: &Kubernetes) -> Self {
        Self {
            nodes: Api::all(kubernetes.clone()),
            slices: Api::namespaced(kubernetes.clone(), NAMESPACE),
            volumes: Api::all(kubernetes.clone()),
            claims: Api::namespaced(kubernetes.clone(), NAMESPACE),
            classes: Api::all(kubernetes.clone()),
        }
    }

    pub(crate) async fn add_node(&self, at: usize) {
        let name = name_of(at);
        let node = json!({"metadata": {"name": name, "labels": {"topology.orlop.dev/node": name}}});
        let node = serde_json::from_value(node).expect("it is a node");
        self.nodes
            .create(&PostParams::default(), &node)
            .await
            .expect("it is new");
    }

    /// As when the pod of the node starts, is ready, or is not.
    pub(crate) async fn set_ready(&self, fleet: &Fleet, at: usize, ready: bool) {
        self.serve_at(at, fleet.port(at), ready).await;
    }

    pub(crate) async fn serve_at(&self, at: usize, port: u16, ready: bool) {
        let name = format!("orlop-nodes-{}", name_of(at));
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "orlop-nodes"}},
            "ports": [{"name": "router", "port": port}],
            "endpoints": [{"addresses": [HERE], "nodeName": name_of(at), "conditions": {"ready": ready}}],
        });
        let apply = PatchParams::apply("test").force();
        self.slices
            .patch(&name, &apply, &Patch::Apply(slice))
            .await
            .expect("it is a slice");
    }

    async fn remove_slice(&self, at: usize) {
        let name = format!("orlop-nodes-{}", name_of(at));
        self.slices
            .delete(&name, &DeleteParams::default())
            .await
            .expect("it is there");
    }

    pub(crate) async fn remove_node(&self, at: usize) {
        self.nodes
            .delete(&name_of(at), &DeleteParams::default())
            .await
            .expect("it is there");
    }

    /// As a person does who has switched it off.
    pub(crate) async fn taint(&self, at: usize) {
        let off = json!([{"key": "node.kubernetes.io/out-of-service", "value": "off", "effect": "NoExecute"}]);
        let taint = Patch::Merge(json!({"spec": {"taints": off}}));
        self.nodes
            .patch(&name_of(at), &PatchParams::default(), &taint)
            .await
            .expect("it is there");
    }

    pub(crate) async fn add_class(&self, name: &str, on_node_loss: &str) {
        let class = json!({
            "metadata": {"name": name}, "provisioner": "csi.orlop.dev", "parameters": {"onNodeLoss": on_node_loss},
        });
        let class = serde_json::from_value(class).expect("it is a class");
        self.classes
            .create(&PostParams::default(), &class)
            .await
            .expect("it is new");
    }

    /// A claim, and its UID.
    pub(crate) async fn add_claim(&self, name: &str) -> String {
        let claim = json!({"metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}},
        }});
        let claim = serde_json::from_value(claim).expect("it is a claim");
        let made = self.claims.create(&PostParams::default(), &claim).await;
        let made = made.expect("it is new").metadata;
        made.uid.expect("all that is made has one")
    }

    /// Whether a claim is there, and nobody has deleted it: without a controller it does not go by that alone.
    pub(crate) async fn claim_is_kept(&self, name: &str) -> bool {
        let claim = self.claims.get_opt(name).await.expect("it may be asked");
        claim.is_some_and(|claim| claim.metadata.deletion_timestamp.is_none())
    }

    pub(crate) async fn remove_claim(&self, name: &str) {
        let unprotected = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.claims
            .patch(name, &PatchParams::default(), &unprotected)
            .await
            .expect("it is there");
        self.claims
            .delete(name, &DeleteParams::default())
            .await
            .expect("it is there");
    }

    /// The record of a volume on this node, bound to a claim.
    pub(crate) async fn add_bound(&self, name: &str, node: &str, claim: (&str, &str), class: &str) {
        let mut volume = recorded(name, node);
        volume["spec"]["storageClassName"] = class.into();
        volume["spec"]["claimRef"] = json!({
            "kind": "PersistentVolumeClaim", "namespace": NAMESPACE, "name": claim.0, "uid": claim.1,
        });
        let volume = serde_json::from_value(volume).expect("it is a volume");
        self.volumes
            .create(&PostParams::default(), &volume)
            .await
            .expect("it is new");
    }

    pub(crate) async fn remove_volume(&self, name: &str) {
        let unprotected = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.volumes
            .patch(name, &PatchParams::default(), &unprotected)
            .await
            .expect("it is there");
        self.volumes
            .delete(name, &DeleteParams::default())
            .await
            .expect("it is there");
    }
}

pub(crate) fn router(server: &Server, fleet: &Fleet, more: &[&str]) -> Node {
    let config = server.config().display().to_string();
    let certificates = fleet.router_certificates().display().to_string();
    let args = [
        "--kubeconfig",
        &config,
        "--namespace",
        NAMESPACE,
        "--certificates",
        &certificates,
    ];
    Node::start_as("controller", &[&args, more].concat())
}

/// Waits until the router knows all nodes that there are.
async fn until_all_were_heard(client: &mut Client) {
    until_it(client, async |client| {
        client.delete("default/nothing").await
    })
    .await;
}

/// Waits for a condition.
pub(crate) async fn until(it_is: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !it_is() {
        assert!(Instant::now() < limit, "it does not become so");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The same, of what has to be asked for.
pub(crate) async fn until_so(it_is: impl AsyncFn() -> bool) {
    let limit = Instant::now() + Duration::from_mins(1);
    while !it_is().await {
        assert!(Instant::now() < limit, "it does not become so");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the volume can not be asked for, and gives the refusal.
async fn until_it_is_away(client: &mut Client, id: &str) -> Status {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let request = ControllerGetVolumeRequest {
            volume_id: id.to_owned(),
        };
        match client.controller.controller_get_volume(request).await {
            Err(status) if status.message().contains("no address") => return status,
            other => assert!(Instant::now() < limit, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn nodes_are_found_and_lost_by_their_objects_and_endpoints() {
    let Some(server) = Server::start().await else {
        return;
    };
    let fleet = Fleet::of_at(2, HERE);
    let objects = Objects::new(&server.client().await);
    for at in 0..2 {
        objects.add_node(at).await;
        objects.set_ready(&fleet, at, true).await;
    }

    let first = router(&server, &fleet, &[]);
    let mut client = client_of(&first).await;
    let id = client
        .create(on("data", &["b"]))
        .await
        .expect("there is room")
        .volume_id;

    // Its pod goes: what is there stays there, and neither this router nor a new one says otherwise.
    objects.remove_slice(1).await;
    let fresh = router(&server, &fleet, &[]);
    let mut fresh = Client::new(fresh.channel().await);
    let elsewhere = until_it(&mut fresh, async |client| {
        client.create(on("other", &["a"])).await
    })
    .await;
    assert_eq!(place(&elsewhere), "a");
    for client in [&mut client, &mut fresh] {
        let refused = until_it_is_away(client, &id).await;
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains(" b"), "{refused}");
    }

    // Its pod comes back.
    objects.set_ready(&fleet, 1, true).await;
    for client in [&mut client, &mut fresh] {
        until_it(client, async |client| {
            client.create(on("data", &["b"])).await
        })
        .await;
    }
    until_it(&mut client, async |client| client.delete(&id).await).await;
    assert_eq!(fleet.counts().await, [1, 0]);

    // It leaves for good, and is waited for no longer.
    objects.set_ready(&fleet, 1, false).await;
    objects.remove_node(1).await;
    until_all_were_heard(&mut client).await;
    until_all_were_heard(&mut fresh).await;
}

fn recorded(name: &str, node: &str) -> serde_json::Value {
    json!({"metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"],
        "csi": {"driver": "csi.orlop.dev", "volumeHandle": format!("default/{name}")},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "topology.orlop.dev/node", "operator": "In", "values": [node]},
        ]}]}},
    }})
}

/// The record of a volume that is on this node, as the provisioner would have made it.
pub(crate) async fn record(kubernetes: &Kubernetes, name: &str, node: &str) {
    let volume = recorded(name, node);
    let volume = serde_json::from_value(volume).expect("it is a volume");
    let volumes = Api::<PersistentVolume>::all(kubernetes.clone());
    volumes
        .create(&PostParams::default(), &volume)
        .await
        .expect("it is new");
}

#[tokio::test]
async fn of_a_volume_that_is_nowhere_only_the_node_of_its_record_is_asked() {
    let Some(server) = Server::start().await else {
        return;
    };
    let fleet = Fleet::of_at(2, HERE);
    let kubernetes = server.client().await;
    let objects = Objects::new(&kubernetes);
    for at in 0..2 {
        objects.add_node(at).await;
    }
    objects.set_ready(&fleet, 0, true).await;
    record(&kubernetes, "was-on-a", "a").await;
    record(&kubernetes, "was-on-b", "b").await;

    let patient = router(&server, &fleet, &[]);
    let mut client = Client::new(patient.channel().await);
    until_it(&mut client, async |client| {
        client.delete("default/was-on-a").await
    })
    .await;
    for unclear in ["default/was-on-b", "default/nothing"] {
        let refused = client.delete(unclear).await.expect_err("b may have it");
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains(" b"), "{refused}");
    }

    objects.remove_node(1).await;
    until_all_were_heard(&mut client).await;
    let refused = client
        .delete("default/was-on-b")
        .await
        .expect_err("it may come back");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(
        refused.message().contains("node b, which is not there"),
        "{refused}"
    );

    let forgetful = router(&server, &fleet, &["--forget-lost-nodes-after", "1s"]);
    let mut client = Client::new(forgetful.channel().await);
    until_it(&mut client, async |client| {
        client.delete("default/was-on-b").await
    })
    .await;
    let events = Api::<Event>::all(kubernetes)
        .list(&ListParams::default())
        .await;
    let events = events.expect("they may be listed").items;
    let told = events
        .iter()
        .find(|event| event.reason.as_deref() == Some("NodeLost"));
    let regarding = told.and_then(|event| event.regarding.as_ref()?.name.as_deref());
    assert_eq!(regarding, Some("was-on-b"));
}
