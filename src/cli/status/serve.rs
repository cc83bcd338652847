//! The status as a page: one file, which is told by server-sent events when something changed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::Watched;
use super::token::{Token, refused};

/// How often it is looked whether somebody looks.
const IDLE: Duration = Duration::from_millis(200);

const PAGE: &str = include_str!("page.html");

/// Nothing from elsewhere, and nothing that the page did not bring itself.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What was seen last, as the page reads it.
type Seen = watch::Sender<Arc<str>>;

/// Serves the page of what is watched until the token is set, to who brings the other one.
pub(in crate::cli) async fn serve(
    port: TcpListener,
    token: Option<Token>,
    watched: Watched,
    shutdown: CancellationToken,
) -> Result<()> {
    let (seen, _) = watch::channel(Arc::from(""));
    let routes = Router::new()
        .route("/", get(page))
        .route("/events", get(events))
        .with_state(seen.clone())
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let token = token.clone();
            async move {
                match token {
                    Some(token) if !token.is_in(request.uri(), request.headers()).await => {
                        refused()
                    }
                    _ => next.run(request).await,
                }
            }
        }));
    if let Ok(address) = port.local_addr() {
        tracing::info!(%address, "serving the status page");
    }
    tokio::select! {
        served = axum::serve(port, routes) => served.context("the status page's port failed"),
        () = watch(&watched, &seen) => Ok(()),
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

/// Asks while somebody looks, and tells when what is there is not what was there.
async fn watch(watched: &Watched, seen: &Seen) {
    loop {
        if seen.receiver_count() > 0 {
            let state: Arc<str> = match watched.look().await.map(|it| serde_json::to_string(&it)) {
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
        let is_seen = seen.receiver_count() > 0;
        tokio::time::sleep(if is_seen { watched.pause() } else { IDLE }).await;
    }
}

fn unreachable_node(error: &anyhow::Error) -> Arc<str> {
    serde_json::json!({ "error": format!("{error:#}") })
        .to_string()
        .into()
}
