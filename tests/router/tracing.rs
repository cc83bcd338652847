//! Traces over several processes.

use std::sync::Arc;

use orlop::csi::proto::ControllerGetVolumeRequest;
use tonic::Request;

use crate::collector::{Received, collector, hex};
use crate::fleet::{Fleet, client_of, on};
use crate::support::until;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_a_router_passes_on_is_one_trace_down_to_the_node() {
    let received = Received::default();
    let endpoint = collector(Arc::clone(&received)).await;
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value));
    let fleet = Fleet::with(1, "127.0.0.1", env.into());
    let router = fleet.router();
    let mut client = client_of(&router).await;
    let made = client
        .create(on("data", &["a"]))
        .await
        .expect("there is room");

    let mut request = Request::new(ControllerGetVolumeRequest {
        volume_id: made.volume_id,
    });
    let parent = format!("00-{TRACE}-{CALLER}-01").parse();
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", parent.expect("it is ASCII"));
    let answer = client.controller.controller_get_volume(request).await;

    answer.expect("it is there");
    let calls = || {
        let spans = received.lock().clone();
        let ours = spans
            .into_iter()
            .filter(|span| hex(&span.trace_id) == TRACE);
        let calls = ours.filter(|span| span.name == "/csi.v1.Controller/ControllerGetVolume");
        calls.collect::<Vec<_>>()
    };
    assert!(until(|| calls().len() == 2), "{:?}", calls());
    let calls = calls();
    let of = |parent: &str| {
        calls
            .iter()
            .find(|span| hex(&span.parent_span_id) == parent)
    };
    let of_router = of(CALLER).expect("the router's");
    assert!(of(&hex(&of_router.span_id)).is_some(), "{calls:?}");
}
