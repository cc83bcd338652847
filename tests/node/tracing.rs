//! Traces: what a collector receives, and what a caller is told.

use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::Arc;

use orlop::csi::proto::DeleteVolumeRequest;
use tonic::Request;
use tonic::transport::Endpoint;

use crate::calls::{Client, text};
use crate::collector::{Received, collector, hex};
use crate::support::Killed;
use crate::until;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_call_is_found_in_the_trace_of_its_caller() {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let (socket, received) = (dir.path().join("csi.sock"), Received::default());
    #[expect(clippy::disallowed_methods, reason = "a test starts what it tests")]
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_orlop"))
        .args([
            "node",
            "--endpoint",
            &text(&socket),
            "--data",
            &text(dir.path()),
        ])
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            collector(Arc::clone(&received)).await,
        )
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .stderr(Stdio::null())
        .spawn();
    let _node = Killed(child.expect("cargo built the binary"));
    until("it serves", || UnixStream::connect(&socket).is_ok()).await;
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
    let channel = endpoint
        .expect("tonic reads unix endpoints")
        .connect()
        .await;
    let mut client = Client::new(channel.expect("it serves"));

    let mut request = Request::new(DeleteVolumeRequest::default());
    let parent = format!("00-{TRACE}-{CALLER}-01")
        .parse()
        .expect("it is ASCII");
    request.metadata_mut().insert("traceparent", parent);
    let refused = client.controller.delete_volume(request).await;
    let find = || {
        let spans = received.lock().clone();
        spans.into_iter().find(|span| hex(&span.trace_id) == TRACE)
    };
    until("the span arrives", || find().is_some()).await;

    let span = find().expect("it was seen");
    let told = refused.expect_err("it names no volume");
    assert!(
        told.message().ends_with(&format!("(trace {TRACE})")),
        "{told}"
    );
    assert_eq!(span.name, "/csi.v1.Controller/DeleteVolume");
    assert_eq!(hex(&span.parent_span_id), CALLER);
    assert_eq!(span.status.expect("it is told").code, 2);
}
