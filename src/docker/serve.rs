//! Docker's plugin protocol: a POST of JSON for each call, answered by JSON.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Call, Plugin};

/// What Docker calls the form of an answer.
const FORM: &str = "application/vnd.docker.plugins.v1.2+json";

/// Serves until the token is set, then gives running calls `drain_limit` to end.
///
/// Calls that are still running then are abandoned: the node ends what it began.
pub async fn serve(
    listener: UnixListener,
    plugin: Plugin,
    shutdown: CancellationToken,
    drain_limit: Duration,
) -> Result<()> {
    let plugin = Arc::new(plugin);
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain_limit).await;
    };
    let served = axum::serve(listener, routes(&plugin))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    tokio::select! {
        served = served => served.context("the plugin's socket failed"),
        () = overdue => {
            tracing::warn!(limit = ?drain_limit, "calls that are still running are abandoned");
            Ok(())
        }
    }
}

fn routes(plugin: &Arc<Plugin>) -> Router {
    let verbs = [
        (
            "/Plugin.Activate",
            on(plugin, |_, _| async {
                Ok(json!({"Implements": ["VolumeDriver"]}))
            }),
        ),
        (
            "/VolumeDriver.Capabilities",
            on(plugin, |_, _| async {
                Ok(json!({"Capabilities": {"Scope": "local"}}))
            }),
        ),
        (
            "/VolumeDriver.Create",
            on(plugin, |plugin, call| async move {
                let options = call.opts.unwrap_or_default();
                plugin.create(call.name.try_into()?, options).await?;
                Ok(json!({}))
            }),
        ),
        (
            "/VolumeDriver.Remove",
            on(plugin, |plugin, call| async move {
                plugin.remove(call.name.try_into()?).await?;
                Ok(json!({}))
            }),
        ),
        (
            "/VolumeDriver.Mount",
            on(plugin, |plugin, call| async move {
                let path = plugin
                    .mount(call.name.try_into()?, call.id.try_into()?)
                    .await?;
                Ok(json!({"Mountpoint": path}))
            }),
        ),
        (
            "/VolumeDriver.Unmount",
            on(plugin, |plugin, call| async move {
                plugin
                    .unmount(call.name.try_into()?, call.id.try_into()?)
                    .await?;
                Ok(json!({}))
            }),
        ),
        (
            "/VolumeDriver.Path",
            on(plugin, |plugin, call| async move {
                let path = plugin.path(call.name.try_into()?).await?;
                Ok(json!({"Mountpoint": path}))
            }),
        ),
        (
            "/VolumeDriver.Get",
            on(plugin, |plugin, call| async move {
                let volume = plugin.get(call.name.try_into()?).await?;
                Ok(json!({"Volume": volume}))
            }),
        ),
        (
            "/VolumeDriver.List",
            on(plugin, |plugin, _| async move {
                Ok(json!({"Volumes": plugin.list().await?}))
            }),
        ),
    ];
    verbs
        .into_iter()
        .fold(Router::new(), |routes, (path, verb)| {
            routes.route(path, verb)
        })
}

/// A call of Docker's: read, done to its end also if Docker hangs up, answered.
fn on<W, F>(plugin: &Arc<Plugin>, work: W) -> MethodRouter
where
    W: Fn(Arc<Plugin>, Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Value>> + Send + 'static,
{
    let plugin = Arc::clone(plugin);
    post(async move |body: Bytes| {
        let done = async {
            let call = if body.is_empty() {
                Call::default()
            } else {
                serde_json::from_slice(&body).context("this is no call of Docker's")?
            };
            tokio::spawn(work(plugin, call))
                .await
                .context("the call stopped in the middle")?
        };
        answer(done.await)
    })
}

fn answer(done: Result<Value>) -> Response {
    let (code, body) = match done {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            let told = told(&error);
            tracing::info!(error = told, "a call was refused");
            (StatusCode::INTERNAL_SERVER_ERROR, json!({"Err": told}))
        }
    };
    (code, [(CONTENT_TYPE, FORM)], body.to_string()).into_response()
}

/// The words of the node, without its code; else the whole chain.
fn told(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Status>() {
        Some(status) if !status.message().is_empty() => status.message().to_owned(),
        _ => format!("{error:#}"),
    }
}
