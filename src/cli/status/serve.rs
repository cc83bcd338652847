//! The status as a page: one file, which is told by server-sent events when something changed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};

use super::shown;
use crate::client::Connection;
use crate::shutdown;
use crate::telemetry::http;

/// How often the node is asked while somebody looks.
const ASK_EVERY: Duration = Duration::from_secs(2);

const PAGE: &str = include_str!("page.html");

/// Nothing from elsewhere, and nothing that the page did not bring itself.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What was seen last, as the page reads it.
type Seen = watch::Sender<Arc<str>>;

/// Serves until the process is told to stop.
pub(super) async fn serve(
    address: SocketAddr,
    token: Option<String>,
    node: Connection,
) -> Result<()> {
    let listener = http::bind(address).await?;
    let shutdown = shutdown::on_signal()?;
    let (seen, _) = watch::channel(Arc::from(""));
    let token: Option<Arc<str>> = token.map(Arc::from);
    let routes = Router::new()
        .route("/", get(page))
        .route("/events", get(events))
        .with_state(seen.clone())
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let token = token.clone();
            async move {
                match token {
                    Some(token) if !knows(&request, &token) => refused(),
                    _ => next.run(request).await,
                }
            }
        }));
    let shown_at = listener.local_addr().unwrap_or(address);
    tracing::info!(address = %shown_at, "serving the status page");
    tokio::select! {
        served = axum::serve(listener, routes) => served.context("the status page's port failed"),
        () = watch_node(&node, &seen) => Ok(()),
        () = shutdown.cancelled() => Ok(()),
    }
}

async fn page() -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, PAGE)
}

/// The state now, and again whenever it has changed.
async fn events(State(seen): State<Seen>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let told = WatchStream::new(seen.subscribe()).filter(|state| !state.is_empty());
    Sse::new(told.map(|state| Ok(Event::default().data(&*state)))).keep_alive(KeepAlive::default())
}

/// Asks the node while somebody looks, and tells when what it says is not what it said.
async fn watch_node(node: &Connection, seen: &Seen) {
    loop {
        if seen.receiver_count() > 0 {
            let state: Arc<str> = match shown(node).await.map(|shown| serde_json::to_string(&shown))
            {
                Ok(Ok(state)) => state.into(),
                Ok(Err(error)) => unreachable_node(&error.into()),
                Err(error) => unreachable_node(&error),
            };
            seen.send_if_modified(|last| {
                let changed = *last != state;
                *last = state;
                changed
            });
        }
        tokio::time::sleep(if seen.receiver_count() > 0 {
            ASK_EVERY
        } else {
            ASK_EVERY / 10
        })
        .await;
    }
}

fn unreachable_node(error: &anyhow::Error) -> Arc<str> {
    serde_json::json!({ "error": format!("{error:#}") })
        .to_string()
        .into()
}

/// Whether a request brings the token: as a bearer, or in the address, for a browser can not do other.
fn knows(request: &Request, token: &str) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let mut told = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("token="))
        .chain(bearer(request.headers()));
    told.any(|told| same(told.as_bytes(), token.as_bytes()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

/// Compares in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |found, (a, b)| found | (a ^ b)) == 0
}

fn refused() -> Response {
    let advice = "this page needs a token: open it as /?token=TOKEN, or send `Authorization: Bearer TOKEN`\n";
    (StatusCode::UNAUTHORIZED, advice).into_response()
}
