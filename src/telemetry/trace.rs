//! Traces for whoever collects them: OTLP over HTTP, if `OTEL_EXPORTER_OTLP_ENDPOINT` says where to.
//!
//! The other variables of the OpenTelemetry specification hold too, such as `OTEL_SERVICE_NAME`.

use std::collections::HashMap;
use std::env;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

/// Where to send them.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
];

/// What sends them, for the whole process.
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// What makes traces of our spans, with each command that is run; nothing, if nobody collects them.
pub(super) fn layer<S>() -> Result<Option<impl Layer<S>>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    if ENDPOINTS.iter().all(|name| env::var_os(name).is_none()) {
        return Ok(None);
    }
    // Whoever installed one before has the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::blocking::Client::new();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .build()
        .context("traces can not be sent: look at OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name("orlop").build())
        .build();
    let tracer = provider.tracer("orlop");
    let ours = Targets::new().with_target("orlop", LevelFilter::DEBUG);
    let layer = tracing_opentelemetry::layer().with_tracer(tracer);
    PROVIDER.get_or_init(|| provider);
    Ok(Some(layer.with_filter(ours)))
}

/// Sends what is not sent yet.
pub(super) fn stop() {
    if let Some(Err(error)) = PROVIDER.get().map(SdkTracerProvider::shutdown) {
        tracing::warn!(%error, "the last traces were not sent");
    }
}

/// Calls `span` by this name, and makes it part of the trace that its caller began, if these headers tell of one
/// (W3C Trace Context).
pub fn join(span: &Span, name: &str, headers: &HeaderMap) {
    if PROVIDER.get().is_none() {
        return;
    }
    span.record("otel.name", name);
    let caller = TraceContextPropagator::new().extract(&Headers(headers));
    if let Err(error) = span.set_parent(caller) {
        tracing::debug!(%error, "a call is not part of its caller's trace");
    }
}

/// What makes a call to another process part of the trace that we are in: its `traceparent`.
pub fn parent() -> Option<String> {
    PROVIDER.get()?;
    let mut headers = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut headers);
    headers.remove("traceparent")
}

/// Marks `span` as one that failed.
pub fn failed(span: &Span) {
    if PROVIDER.get().is_some() {
        span.record("otel.status_code", "ERROR");
    }
}

/// The id of the trace that we are in, if there is one.
pub fn id() -> Option<String> {
    PROVIDER.get()?;
    let context = Span::current().context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| context.trace_id().to_string())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
