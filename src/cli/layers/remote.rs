//! Talking to the layer cache of this node over its socket.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::cli::client::Failed;
use crate::layers::people::admin::SOCKET;

/// Where the cache is.
#[derive(Args, Clone, Debug)]
#[group(id = "cache_remote")]
pub(in crate::cli) struct Remote {
    /// The folder of the cache, in which its socket is.
    #[arg(
        long,
        env = "ORLOP_LAYERS_CACHE",
        default_value = "/var/lib/orlop/layers",
        value_name = "FOLDER"
    )]
    cache: PathBuf,
}

/// A cache that answered.
#[derive(Clone)]
pub(in crate::cli) struct Cache(Client);

impl Remote {
    /// Runs `work` on a connection to the cache.
    pub(super) fn with<T>(&self, work: impl AsyncFnOnce(Cache) -> Result<T>) -> Result<T> {
        let cache = self.connect()?;
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime")?
            .block_on(work(cache))
    }

    /// Whether there was ever a cache.
    pub(in crate::cli) fn is_there(&self) -> bool {
        self.cache.join(SOCKET).exists()
    }

    /// A client of the cache, which serves.
    pub(in crate::cli) fn connect(&self) -> Result<Cache> {
        let socket = self.cache.join(SOCKET);
        if let Err(error) = UnixStream::connect(&socket) {
            let path = socket.display();
            return Err(match error.kind() {
                ErrorKind::PermissionDenied => {
                    anyhow!("{path} may not be opened ({error}): run this as root")
                }
                _ => anyhow!(
                    "nobody serves on {path} ({error}): is `orlop layers` running? Name the folder of its cache by --cache"
                ),
            });
        }
        // A second call finds the provider installed, which is what it wants.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().unix_socket(socket).no_proxy().build()?;
        Ok(Cache(client))
    }
}

impl Cache {
    pub(in crate::cli) async fn get<T: DeserializeOwned>(&self, what: &str) -> Result<T> {
        let answer = self.send(self.0.get(url(what))).await?;
        let text = answer.bytes().await.context("the cache broke off")?;
        serde_json::from_slice(&text).context("the cache is of another release")
    }

    pub(super) async fn post(&self, what: &str, body: Vec<u8>) -> Result<Response> {
        self.send(self.0.post(url(what)).body(body)).await
    }

    pub(super) async fn delete(&self, what: &str) -> Result<()> {
        self.send(self.0.delete(url(what))).await.map(drop)
    }

    pub(super) fn put(&self, what: &str) -> RequestBuilder {
        self.0.put(url(what))
    }

    /// Whether the cache has it.
    pub(super) async fn has(&self, what: &str) -> Result<bool> {
        let answer = self.0.get(url(what)).send().await;
        Ok(answer.context("asking the cache")?.status().is_success())
    }

    /// The answer, if it is a good one.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let answer = request.send().await.context("asking the cache")?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer.text().await.unwrap_or_default();
        let exit = match status {
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT => 2,
            StatusCode::NOT_FOUND => 3,
            _ => 1,
        };
        let message = if message.is_empty() {
            format!("the cache answered {status}")
        } else {
            message
        };
        Err(Failed { message, exit }.into())
    }
}

fn url(what: &str) -> String {
    format!("http://cache/v1/{what}")
}
