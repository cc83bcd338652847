//! What is told of every call: a span, a line, and its place in the histogram; never its content.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service, ServiceExt};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, info, info_span, warn};

use super::proto;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace;

/// Watches the calls of the service beneath.
#[derive(Clone, Debug)]
pub struct Observe<S = ()> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl Observe {
    /// A layer that counts into these metrics.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { inner: (), metrics }
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            inner,
            metrics: self.metrics.clone(),
        }
    }
}

impl<S> Service<Request<Body>> for Observe<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Watched>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A call that waits for its turn is watched already, see `oneshot`.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut call = Call::new(request.uri().path(), self.metrics.clone());
        trace::join(&call.span, call.method, request.headers());
        let answer = self.inner.clone().oneshot(request);
        let answer = answer.instrument(call.span.clone());
        Box::pin(async move {
            let (parts, inner) = answer.await?.into_parts();
            // A call that fails at once says so in its headers, every other one in its trailers.
            call.ended_with(&parts.headers);
            Ok(Response::from_parts(parts, Watched { inner, call }))
        })
    }
}

/// An answer's body, watched for its trailers.
#[derive(Debug)]
pub struct Watched {
    inner: Body,
    call: Call,
}

impl http_body::Body for Watched {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.ended_with(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A call that is still running; one that is dropped was cancelled.
#[derive(Debug)]
struct Call {
    method: &'static str,
    started: Instant,
    span: Span,
    metrics: Arc<Metrics>,
    over: bool,
}

impl Call {
    fn new(path: &str, metrics: Arc<Metrics>) -> Self {
        // Only known methods become labels: what a client makes up must not fill the memory.
        let known = proto::METHODS.iter().find(|known| **known == path);
        let method = known.copied().unwrap_or("unknown");
        metrics.calls();
        Self {
            method,
            started: Instant::now(),
            span: info_span!(
                "call",
                csi.method = method,
                otel.name = Empty,
                otel.status_code = Empty
            ),
            metrics,
            over: false,
        }
    }

    fn ended_with(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.end(&status);
        }
    }

    fn end(&mut self, status: &Status) {
        self.over = true;
        let took = self.started.elapsed();
        let code = name(status.code());
        self.metrics.called(self.method, code, took);
        if status.code() != Code::Ok {
            trace::failed(&self.span);
        }
        let _entered = self.span.enter();
        let error = status.message();
        match status.code() {
            Code::Ok => debug!(code, ?took, "answered"),
            Code::Internal | Code::Unknown => warn!(code, error, ?took, "failed"),
            _ => info!(code, error, ?took, "refused"),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over {
            self.end(&Status::cancelled(
                "the caller hung up, or its deadline passed",
            ));
        }
    }
}

/// The code's name as the gRPC specification writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
