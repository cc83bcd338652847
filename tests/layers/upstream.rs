//! A registry that does what a test tells it, and remembers what it was asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use bytes::Bytes;
use orlop::layers::image::digest::Digest;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What goes wrong with an answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This status and header instead.
    Status(u16, &'static str, String),
    /// The connection breaks after so many bytes of the body.
    CutAt(usize),
    /// The range asked for is ignored.
    NoRange,
    /// The whole claims to be longer than it is, and the connection ends.
    ClaimsMore(usize),
    /// The whole claims to be shorter than it is.
    ClaimsLess(usize),
    /// One bit of this byte is wrong.
    Flip(usize),
    /// Headers never come.
    Silent,
    /// After so many bytes the rest waits for the gate.
    StopAt(usize),
}

pub(crate) struct Upstream {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Shared {
    content: Mutex<HashMap<String, (Vec<u8>, String)>>,
    faults: Mutex<Vec<(String, usize, Fault)>>,
    log: Mutex<Vec<String>>,
    sent: AtomicU64,
    /// What every request must show, and who alone is sold a token.
    shown: Mutex<Option<String>>,
    buyer: Mutex<Option<String>>,
    gate: watch::Sender<bool>,
    url: Mutex<String>,
}

impl Upstream {
    /// On a free port of loopback.
    pub(crate) async fn start() -> Self {
        Self::at([127, 0, 0, 1].into()).await
    }

    /// On a free port of this address.
    pub(crate) async fn at(address: std::net::IpAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let shared = Arc::new(Shared::default());
        url.clone_into(&mut shared.url.lock());
        let ping = (
            "/v2/".to_owned(),
            (b"{}".to_vec(), "application/json".to_owned()),
        );
        shared.content.lock().extend([ping]);
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let stop = CancellationToken::new();
        let serving = axum::serve(listener, router);
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = serving => {}
                () = stopped.cancelled() => {}
            }
        });
        Self {
            url,
            shared,
            _stop: stop.drop_guard(),
        }
    }

    /// Adds a blob to `repository`; its digest.
    pub(crate) fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes).to_string();
        self.put(
            &format!("/v2/{repository}/blobs/{digest}"),
            bytes,
            "application/octet-stream",
        );
        digest
    }

    /// Adds a manifest to `repository` under a tag; its digest.
    pub(crate) fn manifest(&self, repository: &str, tag: &str, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes).to_string();
        for reference in [tag, &digest] {
            let path = format!("/v2/{repository}/manifests/{reference}");
            self.put(&path, bytes, "application/vnd.oci.image.manifest.v1+json");
        }
        digest
    }

    /// Adds an answer to a path, perhaps with a query.
    pub(crate) fn put(&self, path: &str, bytes: &[u8], media_type: &str) {
        let mut content = self.shared.content.lock();
        content.insert(path.to_owned(), (bytes.to_vec(), media_type.to_owned()));
    }

    /// Lets the next `times` `GET`s whose path holds `part` go wrong.
    pub(crate) fn fail(&self, part: &str, times: usize, fault: Fault) {
        let mut faults = self.shared.faults.lock();
        faults.push((part.to_owned(), times, fault));
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.shared.faults.lock().clear();
    }

    /// From now on every request needs this token, which `/token` sells to anybody if `sold`.
    pub(crate) fn lock(&self, token: &str) {
        self.lock_by(&format!("Bearer {token}"));
    }

    /// The same with this value of the header, which may be `Basic`.
    pub(crate) fn lock_by(&self, authorization: &str) {
        *self.shared.shown.lock() = Some(authorization.to_owned());
    }

    /// Sells the token to whoever comes.
    pub(crate) fn sell(&self, token: &str) {
        let answer = format!(r#"{{"token":"{token}","expires_in":300}}"#);
        self.put("/token", answer.as_bytes(), "application/json");
    }

    /// Sells the token only to who has this in the header or the form.
    pub(crate) fn sell_to(&self, token: &str, buyer: &str) {
        self.sell(token);
        *self.shared.buyer.lock() = Some(buyer.to_owned());
    }

    /// Lets go on what was stopped.
    pub(crate) fn open_gate(&self) {
        self.shared.gate.send_replace(true);
    }

    /// The requests so far whose line holds all of these, each as `GET /path bytes=0-`.
    pub(crate) fn asked(&self, parts: &[&str]) -> Vec<String> {
        let log = self.shared.log.lock();
        let matching = |line: &&String| parts.iter().all(|part| line.contains(part));
        log.iter().filter(matching).cloned().collect()
    }

    /// The bytes of all bodies so far.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (request, form) = request.into_parts();
    let form = axum::body::to_bytes(form, 1 << 20).await;
    let form = String::from_utf8_lossy(&form.unwrap_or_default()).into_owned();
    let path = request.uri.path().to_owned();
    let header = |name: &str| {
        let value = request
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (range, authorization) = (header("range"), header("authorization"));
    let line = format!("{} {path} {range}", request.method);
    shared.log.lock().push(line.trim().to_owned());
    let (shown, buyer) = (shared.shown.lock().clone(), shared.buyer.lock().clone());
    if path == "/token" {
        if buyer.is_some_and(|buyer| !form.contains(&buyer) && authorization != buyer) {
            return status(401, "x-test", "it is not for you");
        }
    } else if let Some(shown) = shown
        && authorization != shown
    {
        let url = shared.url.lock().clone();
        let challenge = if shown.starts_with("Basic") {
            r#"Basic realm="test""#.to_owned()
        } else {
            format!(r#"Bearer realm="{url}/token",service="test",scope="repository:a/b:pull""#)
        };
        return status(401, "www-authenticate", &challenge);
    }
    let fault = shared.fault(&request.method, &path);
    match &fault {
        Some(Fault::Status(code, name, value)) => return status(*code, name, value),
        Some(Fault::Silent) => std::future::pending::<()>().await,
        _ => {}
    }
    let found = {
        let content = shared.content.lock();
        let query = format!("{path}?{}", request.uri.query().unwrap_or_default());
        content.get(&query).or(content.get(&path)).cloned()
    };
    let Some((bytes, media_type)) = found else {
        return status(404, "x-test", "unknown");
    };
    let range = if matches!(fault, Some(Fault::NoRange)) {
        ""
    } else {
        &range
    };
    respond(&shared, &request.method, bytes, &media_type, range, fault)
}

impl Shared {
    fn fault(&self, method: &Method, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let matching = |(part, times, _): &&mut (String, usize, Fault)| {
            *times > 0 && path.contains(part.as_str())
        };
        let (_, times, fault) = faults.iter_mut().find(matching)?;
        if method == Method::HEAD && !matches!(fault, Fault::Status(..) | Fault::Silent) {
            return None;
        }
        *times -= 1;
        Some(fault.clone())
    }
}

fn respond(
    shared: &Arc<Shared>,
    method: &Method,
    mut bytes: Vec<u8>,
    media_type: &str,
    range: &str,
    fault: Option<Fault>,
) -> Response {
    let digest = Digest::of(&bytes);
    let size = bytes.len();
    let mut response = Response::builder()
        .header("content-type", media_type)
        .header("docker-content-digest", digest.to_string());
    if let Some(Fault::Flip(at)) = fault {
        bytes[at] ^= 1;
    }
    if let Some((first, last)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    {
        let first: usize = first.parse().expect("we are asked for plain ranges");
        let last = last.parse().unwrap_or(size - 1).min(size - 1);
        bytes = bytes[first..=last].to_vec();
        response = response
            .status(206)
            .header("content-range", format!("bytes {first}-{last}/{size}"));
    }
    let claimed = match fault {
        Some(Fault::ClaimsMore(more)) => bytes.len() + more,
        Some(Fault::ClaimsLess(less)) => bytes.len() - less,
        _ => bytes.len(),
    };
    bytes.truncate(claimed);
    response = response.header("content-length", claimed);
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        body(shared.clone(), bytes, claimed, fault)
    };
    response.body(body).expect("it is well formed")
}

fn body(shared: Arc<Shared>, bytes: Vec<u8>, claimed: usize, fault: Option<Fault>) -> Body {
    let (pieces, body) = mpsc::channel::<Result<Bytes, &'static str>>(1);
    tokio::spawn(async move {
        let short = bytes.len() < claimed;
        let mut at = 0;
        for piece in bytes.chunks(16 << 10) {
            let stop = match fault {
                Some(Fault::CutAt(stop)) => Some((stop, true)),
                Some(Fault::StopAt(stop)) => Some((stop, false)),
                _ => None,
            };
            match stop {
                Some((stop, true)) if at + piece.len() > stop => {
                    let _ = pieces.send(Err("cut")).await;
                    return;
                }
                Some((stop, false)) if at + piece.len() > stop => {
                    let _ = shared.gate.subscribe().wait_for(|open| *open).await;
                }
                _ => {}
            }
            at += piece.len();
            if pieces
                .send(Ok(Bytes::copy_from_slice(piece)))
                .await
                .is_err()
            {
                return;
            }
            shared.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        if short {
            let _ = pieces.send(Err("there is no more")).await;
        }
    });
    Body::from_stream(ReceiverStream::new(body))
}

fn status(code: u16, name: &str, value: &str) -> Response {
    Response::builder()
        .status(code)
        .header(name, value)
        .body(Body::empty())
        .expect("it is well formed")
}
