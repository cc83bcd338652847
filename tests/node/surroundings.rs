//! The kubelet, and those who watch.

use std::fs;
use std::os::unix::net::UnixStream;

use orlop::csi::proto::GetPluginInfoRequest;
use orlop::csi::proto::pluginregistration::registration_client::RegistrationClient;
use orlop::csi::proto::pluginregistration::{InfoRequest, RegistrationStatus};
use tonic::transport::{Channel, Endpoint};

use crate::calls::{Client, text};
use crate::node::Node;
use crate::support::get;
use crate::until;

async fn dial(socket: &str) -> Channel {
    let endpoint =
        Endpoint::from_shared(format!("unix://{socket}")).expect("tonic reads unix endpoints");
    endpoint.connect().await.expect("somebody serves")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubelet_learns_of_the_driver_and_dials_it() {
    let registry = tempfile::tempdir().expect("the temporary directory can be written");
    let socket = registry.path().join("orlop@csi.orlop.dev-reg.sock");
    let mut node = Node::start(&["--kubelet-registration", &text(registry.path())]);
    until("it registers", || UnixStream::connect(&socket).is_ok()).await;
    let mut kubelet = RegistrationClient::new(dial(&text(&socket)).await);

    let info = kubelet
        .get_info(InfoRequest {})
        .await
        .expect("it answers")
        .into_inner();
    let plugin = Client::new(dial(&info.endpoint).await)
        .identity
        .get_plugin_info(GetPluginInfoRequest {})
        .await;
    let registered = RegistrationStatus {
        plugin_registered: true,
        error: String::new(),
    };
    kubelet
        .notify_registration_status(registered)
        .await
        .expect("it answers");
    drop(kubelet);
    let status = node.stop();

    assert_eq!(
        (&*info.r#type, &*info.supported_versions),
        ("CSIPlugin", &["1.0.0".to_owned()][..])
    );
    assert_eq!(info.name, plugin.expect("it answers").into_inner().name);
    assert!(status.success(), "{}", node.log());
    assert_eq!(
        fs::read_dir(registry.path()).expect("it is there").count(),
        0,
        "the kubelet would dial what is left"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_the_kubelet_ends_the_process_with_its_reason() {
    let registry = tempfile::tempdir().expect("the temporary directory can be written");
    let socket = registry.path().join("orlop@csi.orlop.dev-reg.sock");
    let mut node = Node::start(&["--kubelet-registration", &text(registry.path())]);
    until("it registers", || UnixStream::connect(&socket).is_ok()).await;
    let mut kubelet = RegistrationClient::new(dial(&text(&socket)).await);

    let refused = RegistrationStatus {
        plugin_registered: false,
        error: "wrong moon".to_owned(),
    };
    kubelet
        .notify_registration_status(refused)
        .await
        .expect("it answers");
    drop(kubelet);
    until("it ends", || {
        node.log()
            .contains("the kubelet refused the driver csi.orlop.dev: wrong moon")
    })
    .await;

    assert!(!node.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_watch_see_health_and_counts() {
    let node = Node::start(&["--metrics", "127.0.0.1:0", "--log-format", "json"]);
    until("the port is open", || address(&node).is_some()).await;
    let address = address(&node).expect("it was seen");
    let mut client = Client::new(node.channel().await);
    client.volumes().await;
    client.delete("").await.expect_err("it is no id");

    let [healthz, readyz, metrics] =
        ["healthz", "readyz", "metrics"].map(|page| get(&address, page));

    assert!(healthz.starts_with("HTTP/1.1 200"), "{healthz}");
    assert!(readyz.starts_with("HTTP/1.1 200"), "{readyz}");
    for line in [
        "orlop_rpc_duration_seconds_count{method=\"/csi.v1.Controller/ListVolumes\",code=\"OK\"} 1",
        "orlop_rpc_duration_seconds_count{method=\"/csi.v1.Controller/DeleteVolume\",code=\"INVALID_ARGUMENT\"} 1",
        "orlop_volumes{pool=\"default\"} 0.0",
        "orlop_pool_usable{pool=\"default\"} 1.0",
        "orlop_pool_fill_ratio{pool=\"default\",part=\"bytes\"} 0.",
        "orlop_queue_duration_seconds_count ",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

/// Where the metrics are, by the log.
pub(crate) fn address(node: &Node) -> Option<String> {
    let log = node.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut told = lines.filter_map(|line| Some(line["address"].as_str()?.to_owned()));
    told.next_back()
}
