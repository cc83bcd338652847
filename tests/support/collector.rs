//! A collector of traces, and what it received.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;

/// The spans that a collector received.
pub(crate) type Received = Arc<Mutex<Vec<Span>>>;

/// Serves OTLP over HTTP as a collector does, and says where.
pub(crate) async fn collector(received: Received) -> String {
    let take = async move |body: Bytes| {
        let request = ExportTraceServiceRequest::decode(body).expect("it is OTLP");
        let scopes = request
            .resource_spans
            .into_iter()
            .flat_map(|it| it.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        received.lock().extend(spans);
    };
    let routes = Router::new().route("/v1/traces", post(take));
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let port = port.expect("a port is free");
    let address = port.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(port, routes).await });
    format!("http://{address}")
}

/// An id as people write it.
pub(crate) fn hex(id: &[u8]) -> String {
    id.iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
