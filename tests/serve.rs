//! Serves a driver of its own over a socket, and looks at what its clients and the kubelet get to see.

#[path = "serve/registration.rs"]
mod registration;
#[path = "serve/served.rs"]
mod served;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use orlop::csi::proto::pluginregistration::InfoRequest;
use orlop::csi::proto::pluginregistration::registration_client::RegistrationClient;
use orlop::csi::proto::{
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, ProbeRequest, ProbeResponse,
};
use orlop::csi::socket::Socket;
use tonic::{Code, Request};

use served::{PATIENCE, Served, channel, refused, until, within};

#[tokio::test]
async fn a_client_is_served_over_a_socket_of_mode_0600() {
    let served = Served::start(PATIENCE);

    let answer = served
        .client()
        .await
        .get_plugin_info(GetPluginInfoRequest {})
        .await;

    answer.expect("the driver answers");
    let metadata = fs::symlink_metadata(served.endpoint.path()).expect("it is there");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
}

#[tokio::test]
async fn a_second_server_is_refused_and_the_first_serves_on() {
    let served = Served::start(PATIENCE);

    let second = Socket::bind(&served.endpoint);

    let error = second.expect_err("the first one is alive").to_string();
    assert!(error.contains("another process serves"), "{error}");
    let answer = served
        .client()
        .await
        .get_plugin_info(GetPluginInfoRequest {})
        .await;
    answer.expect("the first one answers");
}

#[tokio::test]
async fn a_running_call_ends_well_after_shutdown() {
    let mut served = Served::start(PATIENCE);
    let call = served.slow_call().await;

    served.shutdown.cancel();
    until(async || refused(served.endpoint.path()).await).await;
    let early = tokio::time::timeout(Duration::from_millis(100), &mut served.server).await;
    assert!(early.is_err(), "it waits for the call");
    served.driver.released.add_permits(1);

    within(call)
        .await
        .expect("no panic")
        .expect("the call was let through");
    within(served.server)
        .await
        .expect("no panic")
        .expect("a clean end");
    assert!(!served.endpoint.path().exists(), "the socket is removed");
}

#[tokio::test]
async fn a_call_that_never_ends_is_given_up_at_the_limit() {
    let served = Served::start(Duration::from_millis(50));
    let call = served.slow_call().await;

    served.shutdown.cancel();

    within(served.server)
        .await
        .expect("no panic")
        .expect("a clean end");
    assert!(!call.is_finished());
}

#[tokio::test]
async fn every_call_is_counted_by_method_and_code() {
    let served = Served::start(PATIENCE);
    let mut client = served.client().await;

    client
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .expect("the driver answers");
    let failed = client
        .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
        .await;
    let call = served.slow_call().await;
    call.abort();

    assert_eq!(failed.expect_err("it fails").code(), Code::Internal);
    let counted = async || {
        served.count("/csi.v1.Identity/GetPluginInfo", "OK") == 1
            && served.count("/csi.v1.Identity/GetPluginCapabilities", "INTERNAL") == 1
            && served.count("/csi.v1.Identity/Probe", "CANCELLED") == 1
    };
    until(counted).await;
}

#[tokio::test]
async fn a_failed_call_is_one_line_with_its_method_and_reason() {
    let log = tempfile::NamedTempFile::new().expect("a file can be made");
    let lines = Arc::new(log.reopen().expect("it is there"));
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines)
        .with_ansi(false);
    let _logging = tracing::subscriber::set_default(subscriber.finish());
    let served = Served::start(PATIENCE);
    let mut client = served.client().await;

    client
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .expect("the driver answers");
    let failed = client
        .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
        .await;

    failed.expect_err("it fails");
    let log = fs::read_to_string(log.path()).expect("it is there");
    let calls: Vec<_> = log.lines().filter(|line| line.contains("call{")).collect();
    assert_eq!(calls.len(), 1, "{log}");
    for part in [
        "WARN",
        "csi.method=\"/csi.v1.Identity/GetPluginCapabilities\"",
        "code=\"INTERNAL\"",
        "error=\"the disk is on fire\"",
    ] {
        assert!(calls[0].contains(part), "{log}");
    }
}

#[tokio::test]
async fn no_more_than_256_calls_run_at_once() {
    let served = Served::start(PATIENCE);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let client = served.client().await;
        for _ in 0..90 {
            let mut client = client.clone();
            calls.spawn(async move { client.probe(ProbeRequest {}).await });
        }
    }
    until(async || served.driver.entered.available_permits() >= 256).await;

    let mut client = served.client().await;
    let next = client.get_plugin_info(GetPluginInfoRequest {});
    let answered = tokio::time::timeout(Duration::from_millis(100), next).await;
    assert!(answered.is_err(), "all places are taken");
    served.driver.released.add_permits(1);

    for answer in within(calls.join_all()).await {
        answer.expect("every call has its turn");
    }
}

#[tokio::test]
async fn a_method_that_a_client_makes_up_is_no_label() {
    let served = Served::start(PATIENCE);
    let mut client = RegistrationClient::new(channel(&served.endpoint).await);
    let mut grpc = tonic::client::Grpc::new(channel(&served.endpoint).await);
    let codec = tonic_prost::ProstCodec::<ProbeRequest, ProbeResponse>::default();

    let elsewhere = client.get_info(InfoRequest {}).await;
    grpc.ready().await.expect("somebody answers");
    let path = "/made.up/Method".parse().expect("it is a path");
    let made_up = grpc.unary(Request::new(ProbeRequest {}), path, codec).await;

    assert_eq!(elsewhere.expect_err("not here").code(), Code::Unimplemented);
    assert_eq!(made_up.expect_err("nowhere").code(), Code::Unimplemented);
    let counted = async || {
        served.count("unknown", "UNIMPLEMENTED") == 1
            && served.count("/pluginregistration.Registration/GetInfo", "UNIMPLEMENTED") == 1
    };
    until(counted).await;
}
