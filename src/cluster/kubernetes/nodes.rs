//! Which nodes there are, as a Kubernetes tells it by its Node objects and by the endpoints of a headless service.
//!
//! A Node whose endpoint is ready serves. One that has none now, but had one or has our label of topology, may have volumes
//! all the same: it is silent. The label is what lasts: the kubelet sets it when the driver registers and leaves it there,
//! whereas it takes the driver off the `CSINode` object whenever the driver's pod goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::all::{All, heard};
use super::records::Absences;
use crate::cluster::nodes::Members;
use crate::names::TOPOLOGY_NODE;

/// Of the ports of the service, the one that is ours, if it has several.
const PORT: &str = "router";

/// A headless service, whose endpoints are the nodes that serve.
#[derive(Clone, Debug)]
pub struct Service {
    /// Where it is.
    pub namespace: String,
    /// What it is called.
    pub name: String,
}

/// What was last seen.
#[derive(Debug, Default)]
struct View {
    /// The Node objects; whether they have our label.
    nodes: All<bool>,
    /// The slices of the service.
    slices: All<Vec<Endpoint>>,
    /// The nodes of which an endpoint was seen, for as long as their objects are there.
    served: BTreeSet<String>,
}

#[derive(Debug)]
struct Endpoint {
    node: String,
    /// If it is ready.
    address: Option<SocketAddr>,
}

/// Tells which nodes there are, until the token is set. While nothing can be asked, what was known stays.
///
/// Must be called inside a runtime.
pub fn follow(
    client: Client,
    service: Service,
    absences: Absences,
    shutdown: CancellationToken,
) -> watch::Receiver<Option<Members>> {
    let (told, members) = watch::channel(None);
    tokio::spawn(async move {
        tokio::select! {
            () = watch(client, &service, &absences, told) => {}
            () = shutdown.cancelled() => {}
        }
    });
    members
}

async fn watch(
    client: Client,
    service: &Service,
    absences: &Absences,
    told: watch::Sender<Option<Members>>,
) {
    let of_service = format!("kubernetes.io/service-name={}", service.name);
    let nodes = Api::<PartialObjectMeta<Node>>::all(client.clone());
    let slices = Api::<EndpointSlice>::namespaced(client, &service.namespace);
    // Only metadata: the status of a Node is long, and told every few minutes.
    let mut nodes = pin!(watcher(nodes, Config::default()).default_backoff());
    let mut slices = pin!(watcher(slices, Config::default().labels(&of_service)).default_backoff());
    let mut view = View::default();
    loop {
        tokio::select! {
            Some(event) = nodes.next() => heard("Nodes", event, |event| view.nodes.take(event, is_ours)),
            Some(event) = slices.next() => {
                heard("EndpointSlices", event, |event| view.slices.take(event, endpoints));
            }
            else => return,
        }
        let Some(members) = view.members() else {
            continue;
        };
        told.send_if_modified(|before| {
            let changed = before.as_ref() != Some(&members);
            if changed {
                absences.note(before.as_ref(), &members);
                let ready = members.values().flatten().count();
                info!(nodes = members.len(), ready, "these nodes are there");
                *before = Some(members);
            }
            changed
        });
    }
}

impl View {
    fn members(&mut self) -> Option<Members> {
        let nodes = self.nodes.known.as_ref()?;
        let mut endpoints = BTreeMap::<&str, Option<SocketAddr>>::new();
        for endpoint in self.slices.known.as_ref()?.values().flatten() {
            let address = endpoints.entry(&endpoint.node).or_default();
            // While a pod is replaced there may be two; both are of that node.
            *address = address.or(endpoint.address);
        }
        self.served
            .extend(endpoints.keys().map(|&node| node.to_owned()));
        self.served.retain(|node| nodes.contains_key(node));
        let ours = nodes
            .iter()
            .filter(|(node, labelled)| **labelled || self.served.contains(*node));
        let member = |(node, _): (&String, _)| {
            let address = endpoints.get(&**node).copied().flatten();
            (node.clone(), address)
        };
        Some(ours.map(member).collect())
    }
}

fn is_ours(node: &PartialObjectMeta<Node>) -> bool {
    node.labels().contains_key(TOPOLOGY_NODE)
}

fn endpoints(slice: &EndpointSlice) -> Vec<Endpoint> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let port = match ports {
        [only] => Some(only),
        several => several
            .iter()
            .find(|port| port.name.as_deref() == Some(PORT)),
    };
    let port = port.and_then(|port| port.port.and_then(|port| u16::try_from(port).ok()));
    let endpoint = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        // Not said is ready, says the API.
        let ready = conditions.and_then(|conditions| conditions.ready) != Some(false);
        let ip = endpoint
            .addresses
            .first()
            .and_then(|ip| ip.parse::<IpAddr>().ok());
        Some(Endpoint {
            node: endpoint.node_name.clone()?,
            address: ip.zip(port).filter(|_| ready).map(SocketAddr::from),
        })
    };
    slice.endpoints.iter().filter_map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use kube::Resource;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    fn slice(name: &str, endpoints: &[(&str, &str, bool)]) -> EndpointSlice {
        let endpoint = |(node, address, ready): &(&str, &str, bool)| json!({"addresses": [address], "nodeName": node, "conditions": {"ready": ready}});
        let all: Vec<_> = endpoints.iter().map(endpoint).collect();
        serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": {"name": name}, "endpoints": all,
            "ports": [{"name": "metrics", "port": 9099}, {"name": "router", "port": 9740}],
        }))
        .expect("it is a slice")
    }

    fn node(name: &str, labelled: bool) -> PartialObjectMeta<Node> {
        let labels = if labelled {
            json!({TOPOLOGY_NODE: name})
        } else {
            json!({})
        };
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))
            .expect("it is metadata")
    }

    /// One that has listed these.
    fn view(nodes: &[(&str, bool)], slices: Vec<EndpointSlice>) -> View {
        let mut view = View::default();
        list(
            &mut view.nodes,
            nodes.iter().map(|(name, labelled)| node(name, *labelled)),
            is_ours,
        );
        list(&mut view.slices, slices, endpoints);
        view
    }

    fn list<K: Resource, T>(
        all: &mut All<T>,
        objects: impl IntoIterator<Item = K>,
        what_matters: impl Fn(&K) -> T,
    ) {
        all.take(Event::Init, &what_matters);
        for object in objects {
            all.take(Event::InitApply(object), &what_matters);
        }
        all.take(Event::<K>::InitDone, &what_matters);
    }

    #[test]
    fn nothing_is_told_before_all_nodes_and_endpoints_were_listed() {
        let mut view = View::default();

        view.slices.take(Event::Init, endpoints);
        view.slices.take(
            Event::InitApply(slice("s", &[("a", "192.0.2.1", true)])),
            endpoints,
        );
        view.slices.take(Event::InitDone, endpoints);
        assert_eq!(view.members(), None);
        view.nodes.take(Event::Init, is_ours);
        view.nodes.take(Event::InitApply(node("a", true)), is_ours);
        assert_eq!(view.members(), None);
    }

    #[test]
    fn a_ready_endpoint_serves_and_a_node_of_ours_without_one_is_silent() {
        let nodes = [
            ("serves", false),
            ("starts", false),
            ("labelled", true),
            ("other", false),
        ];
        let slices = vec![
            slice(
                "one",
                &[
                    ("serves", "192.0.2.1", false),
                    ("starts", "192.0.2.2", false),
                ],
            ),
            slice(
                "two",
                &[
                    ("serves", "192.0.2.3", true),
                    ("no-object", "192.0.2.4", true),
                ],
            ),
        ];

        let members = view(&nodes, slices).members().expect("all is known");

        let expected = [
            ("labelled", None),
            ("serves", Some(([192, 0, 2, 3], 9740).into())),
            ("starts", None),
        ];
        assert_eq!(
            members,
            expected.map(|(name, at)| (name.to_owned(), at)).into()
        );
    }

    #[test]
    fn a_node_that_served_is_silent_until_its_object_goes() {
        let slices = vec![slice("s", &[("a", "192.0.2.1", true)])];
        let mut view = view(&[("a", false)], slices);
        view.members();

        list::<EndpointSlice, _>(&mut view.slices, [], endpoints);
        assert_eq!(view.members(), Some([("a".to_owned(), None)].into()));
        view.nodes.take(Event::Delete(node("a", false)), is_ours);
        assert_eq!(view.members(), Some(Members::new()));
        view.nodes.take(Event::Apply(node("a", false)), is_ours);
        assert_eq!(view.members(), Some(Members::new()));
    }
}
