//! The registries themselves: one client for all of them, with their challenges, refusals and lost connections.

pub mod credentials;
pub mod flow;
pub mod token;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::header::{ACCEPT, AUTHORIZATION, RANGE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use reqwest::{Client, Response};

use self::flow::Ask;
use self::token::{Authorization, Tokens};
use crate::layers::image::name::Repository;
use crate::layers::metrics::Metrics;
use crate::layers::miss::Miss;
use crate::layers::pace::Pace;

/// How often a request is sent that gets no sensible answer, and the wait before each further time.
const WAITS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(800),
];
/// A connection that gives nothing for this long is lost.
const SILENCE: Duration = Duration::from_secs(5);
/// No manifest and no list is larger.
const LARGEST_BODY: usize = 8 << 20;
/// The media types of manifests that we pass on; without them some registries convert.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*";

/// All registries upstream.
#[derive(Debug)]
pub struct Upstream {
    client: Client,
    bases: HashMap<String, String>,
    tokens: Tokens,
    requests: Pace,
    bytes: Pace,
    held_off: Mutex<HashMap<String, Instant>>,
    metrics: Arc<Metrics>,
}

/// One request upstream.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET` or `HEAD`.
    pub method: &'a Method,
    /// In which repository.
    pub repository: &'a Repository,
    /// What of it: `blobs/<digest>`, `manifests/<reference>`, `tags/list?n=3`.
    pub what: &'a str,
    /// The first and, if any, the last byte wanted.
    pub range: Option<(u64, Option<u64>)>,
    /// What the client that started this has to show for itself.
    pub authorization: Option<&'a Authorization>,
}

impl Upstream {
    /// A client for all registries; `bases` says where one is, if not at `https://<its name>`.
    pub fn new(
        bases: HashMap<String, String>,
        tokens: Tokens,
        metrics: Arc<Metrics>,
    ) -> reqwest::Result<Self> {
        // A second call finds the provider installed, which is what it wants.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("orlop/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE)
            .build()?;
        Ok(Self {
            client,
            bases,
            tokens,
            requests: Pace::default(),
            bytes: Pace::default(),
            held_off: Mutex::default(),
            metrics,
        })
    }

    /// Asks no more often, and takes no more bytes, than this many a second; as much as it likes where it is nothing.
    #[must_use]
    pub fn at_most(self, requests: Option<u64>, bytes: Option<u64>) -> Self {
        Self {
            requests: Pace::of(requests),
            bytes: Pace::of(bytes),
            ..self
        }
    }

    /// Waits until so many more bytes may be taken.
    pub async fn may_take(&self, bytes: usize) {
        self.bytes.take(bytes as u64).await;
    }

    /// Sends a request until it gets a sensible answer, three times at most, and answers one challenge on the way if
    /// the client brought no authorization of its own.
    pub async fn send(&self, request: Request<'_>) -> Result<Response, Miss> {
        let registry = request.repository.registry();
        let mut miss = Miss::Unavailable(format!("{registry} was not asked"));
        let held = self.tokens.held(request.repository);
        let mut bought = held.filter(|_| request.authorization.is_none());
        let mut may_buy = request.authorization.is_none();
        let mut waits = WAITS.iter();
        while let Some(wait) = waits.next() {
            tokio::time::sleep(*wait).await;
            self.may_ask(registry)?;
            miss = match self.try_once(request, bought.as_ref()).await {
                Ok(response) => return Ok(response),
                Err(miss) => miss,
            };
            match &miss {
                Miss::Challenge(challenge) if may_buy => {
                    may_buy = false;
                    bought = self
                        .tokens
                        .buy(&self.client, request.repository, challenge)
                        .await;
                    if bought.is_none() {
                        return Err(miss);
                    }
                    waits = WAITS.iter();
                }
                Miss::Later(after) => self.hold_off(registry, *after),
                Miss::Unavailable(_) => {}
                Miss::NotFound | Miss::Challenge(_) | Miss::Denied | Miss::NoRoom => {
                    return Err(miss);
                }
            }
        }
        Err(miss)
    }

    /// A `GET` of a list or a manifest by tag.
    pub async fn get(
        &self,
        repository: &Repository,
        what: &str,
        authorization: Option<&Authorization>,
    ) -> Result<Response, Miss> {
        self.send(Request {
            method: &Method::GET,
            repository,
            what,
            range: None,
            authorization,
        })
        .await
    }

    /// The length of a blob that is not here.
    pub async fn size(&self, ask: &Ask) -> Result<u64, Miss> {
        let request = Request {
            method: &Method::HEAD,
            repository: &ask.repository,
            what: &ask.what(),
            range: None,
            authorization: ask.authorization.as_ref(),
        };
        let (_, size) = extent(&self.send(request).await?);
        size.ok_or_else(|| Miss::Unavailable("upstream does not say the length".to_owned()))
    }

    async fn try_once(
        &self,
        request: Request<'_>,
        bought: Option<&Authorization>,
    ) -> Result<Response, Miss> {
        let url = format!(
            "{}/v2/{}/{}",
            self.base(request.repository.registry()),
            request.repository.path(),
            request.what
        );
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MANIFESTS));
        if let Some(authorization) = request.authorization.or(bought) {
            headers.insert(AUTHORIZATION, authorization.header());
        }
        if let Some((first, last)) = request.range {
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            let range = HeaderValue::try_from(format!("bytes={first}-{last}"));
            headers.insert(RANGE, range.expect("numbers are legal in a header"));
        }
        self.requests.take(1).await;
        let sent = self
            .client
            .request(request.method.clone(), &url)
            .headers(headers)
            .send();
        // A body may take as long as it likes while it moves; its headers may not.
        let answered = tokio::time::timeout(SILENCE, sent).await;
        let status = answered
            .as_ref()
            .ok()
            .and_then(|answer| answer.as_ref().ok());
        self.metrics
            .asked(status.map(|answer| answer.status().as_u16()));
        let response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                return Err(Miss::Unavailable(format!(
                    "{:#}",
                    anyhow::Error::from(error.without_url())
                )));
            }
            Err(_) => return Err(Miss::Unavailable(format!("{url} is silent"))),
        };
        tracing::debug!(method = %request.method, %url, range = ?request.range, status = %response.status(), "asked upstream");
        match Miss::of(response.status(), response.headers()) {
            Some(miss) => Err(miss),
            None => Ok(response),
        }
    }

    fn base(&self, registry: &str) -> String {
        if let Some(base) = self.bases.get(registry) {
            return base.trim_end_matches('/').to_owned();
        }
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
        match host {
            "docker.io" => "https://registry-1.docker.io".to_owned(),
            // As every client has it: a registry on this machine needs no TLS.
            "localhost" | "127.0.0.1" | "[::1]" => format!("http://{registry}"),
            _ => format!("https://{registry}"),
        }
    }

    fn may_ask(&self, registry: &str) -> Result<(), Miss> {
        let until = self.held_off.lock().get(registry).copied();
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => Err(Miss::Later(left)),
            _ => Ok(()),
        }
    }

    fn hold_off(&self, registry: &str, after: Duration) {
        tracing::warn!(registry, ?after, "the registry asks us to wait");
        let until = Instant::now() + after.min(Duration::from_mins(10));
        self.held_off.lock().insert(registry.to_owned(), until);
    }
}

/// The length of the whole blob of which this answer brings a part, and where the part begins; no length if the
/// registry does not say.
pub fn extent(response: &Response) -> (u64, Option<u64>) {
    let header = |name| response.headers().get(name)?.to_str().ok();
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return (
            0,
            header("content-length").and_then(|length| length.parse().ok()),
        );
    }
    let parsed = header("content-range").and_then(|range| {
        let (part, whole) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, _) = part.split_once('-')?;
        Some((first.parse().ok()?, whole.parse().ok()))
    });
    parsed.unwrap_or((u64::MAX, None))
}

/// The whole body of an answer that should be small: a manifest or a list, 8 MiB at most.
pub async fn body(mut response: Response) -> Result<Vec<u8>, Miss> {
    let mut bytes = Vec::new();
    let lost = |error: reqwest::Error| Miss::Unavailable(error.without_url().to_string());
    while let Some(piece) = response.chunk().await.map_err(lost)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > LARGEST_BODY {
            return Err(Miss::Unavailable(
                "upstream's answer does not end".to_owned(),
            ));
        }
    }
    Ok(bytes)
}
