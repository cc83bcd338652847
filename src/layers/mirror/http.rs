//! The mirror's door: the read-only half of the distribution specification, in the three dialects of its clients.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, LINK};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;

use super::answer::{self, Wanted};
use super::grants::Grants;
use super::manifest;
use super::referrers;
use super::relay;
use super::tags::{By, Tags};
use crate::layers::fetch::Fetches;
use crate::layers::image::digest::Digest;
use crate::layers::image::name::{Reference, Repository};
use crate::layers::miss::Miss;
use crate::layers::upstream::flow::{Ask, Kind};
use crate::layers::upstream::token::Authorization;

/// What the mirror answers from.
#[derive(Debug)]
pub struct Mirror {
    /// The blobs.
    pub fetches: Arc<Fetches>,
    /// The tags.
    pub tags: Tags,
    /// Who may have them.
    pub grants: Grants,
}

/// A request that made sense.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Ping,
    Manifest(Repository, Reference),
    Blob(Repository, Digest),
    Tags(Repository),
    Referrers(Repository, Digest),
}

/// What a client sent along with its request.
struct Call {
    method: Method,
    query: String,
    headers: HeaderMap,
    authorization: Option<Authorization>,
}

/// The routes of the mirror.
pub fn router(mirror: Arc<Mirror>) -> Router {
    Router::new().fallback(answer).with_state(mirror)
}

async fn answer(State(mirror): State<Arc<Mirror>>, request: Request) -> Response {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return answer::read_only();
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let Some(route) = route(request.uri().path(), &query) else {
        return answer::error(
            StatusCode::NOT_FOUND,
            "NAME_INVALID",
            "there is no such path",
        );
    };
    let (parts, _) = request.into_parts();
    let authorization = parts.headers.get(AUTHORIZATION).cloned();
    let call = Call {
        method: parts.method,
        query,
        headers: parts.headers,
        authorization: authorization.map(Authorization::new),
    };
    match route {
        Route::Ping => answer::json_body(b"{}".to_vec(), "application/json"),
        Route::Manifest(repository, reference) => {
            let found = mirror.manifest(repository, reference, &call).await;
            found.unwrap_or_else(|miss| answer::miss(&miss, "MANIFEST"))
        }
        Route::Blob(repository, digest) => {
            let found = mirror.blob(repository, digest, &call).await;
            found.unwrap_or_else(|miss| answer::miss(&miss, "BLOB"))
        }
        Route::Tags(repository) => {
            let found = mirror.tag_list(&repository, &call).await;
            found.unwrap_or_else(|miss| answer::miss(&miss, "NAME"))
        }
        Route::Referrers(repository, subject) => {
            let artifact_type = parameter(&call.query, "artifactType");
            let found = referrers::list(
                mirror.fetches.upstream(),
                &repository,
                &subject,
                artifact_type.as_deref(),
                call.authorization.as_ref(),
            );
            found
                .await
                .unwrap_or_else(|miss| answer::miss(&miss, "NAME"))
        }
    }
}

impl Mirror {
    async fn manifest(
        &self,
        repository: Repository,
        reference: Reference,
        call: &Call,
    ) -> Result<Response, Miss> {
        let authorization = call.authorization.clone();
        let shown = authorization.as_ref();
        let resolving = self
            .tags
            .digest_of(&self.fetches, &repository, reference, shown);
        let (digest, by) = resolving.await?;
        if let Some(by) = by {
            self.grants.list(&repository, [digest.clone()]);
            match by {
                By::Upstream => self.grants.show(&repository, shown),
                By::Import => self.grants.free([digest.clone()]),
                By::Memory => {}
            }
        }
        let ask = Ask {
            repository,
            kind: Kind::Manifest,
            digest,
            authorization,
            via: Vec::new(),
            offer: None,
        };
        self.grants.check(self.fetches.upstream(), &ask).await?;
        let bytes = manifest::read(&self.fetches, &ask).await?;
        self.grants.read(&ask.repository, &ask.digest, &bytes);
        let size = bytes.len() as u64;
        let wanted = answer::wanted(&call.headers, &ask.digest, size);
        let media_type = manifest::media_type(&bytes);
        let (mut response, range) = answer::head(wanted, &ask.digest, size, &media_type);
        name_registry(&mut response, &ask.repository);
        if call.method == Method::GET {
            let index = |at| usize::try_from(at).expect("a manifest fits into memory");
            *response.body_mut() = bytes.slice(index(range.start)..index(range.end)).into();
        }
        Ok(response)
    }

    async fn blob(
        &self,
        repository: Repository,
        digest: Digest,
        call: &Call,
    ) -> Result<Response, Miss> {
        let ask = Ask {
            repository,
            kind: Kind::Blob,
            digest,
            authorization: call.authorization.clone(),
            via: Vec::new(),
            offer: None,
        };
        self.grants.check(self.fetches.upstream(), &ask).await?;
        if call.method == Method::HEAD {
            return self.blob_head(&ask, call).await;
        }
        let blob = match self.fetches.get(&ask).await {
            Ok(blob) => blob,
            Err(Miss::NoRoom) => return self.passed_through(&ask, call).await,
            Err(miss) => return Err(miss),
        };
        let wanted = answer::wanted(&call.headers, &ask.digest, blob.size());
        let (mut response, range) = head(wanted, &ask, blob.size());
        if !range.is_empty() {
            // Not before there is a verified byte to follow: a client goes upstream by itself only as long as it
            // has seen no success.
            let first = blob.ready(blob.chunk_of(range.start)).await;
            first.map_err(|why| Miss::Unavailable(why.to_string()))?;
            *response.body_mut() = relay::body(self.fetches.clone(), ask, blob, range);
        }
        Ok(response)
    }

    async fn blob_head(&self, ask: &Ask, call: &Call) -> Result<Response, Miss> {
        let size = match self.fetches.size(&ask.digest) {
            Some(size) => size,
            None => self.fetches.upstream().size(ask).await?,
        };
        let wanted = answer::wanted(&call.headers, &ask.digest, size);
        Ok(head(wanted, ask, size).0)
    }

    async fn passed_through(&self, ask: &Ask, call: &Call) -> Result<Response, Miss> {
        let (size, blob) = relay::pass_through(&self.fetches, ask).await?;
        let runtime = self.fetches.runtime().clone();
        let Some(size) = size else {
            let mut response = Response::new(blob.body(runtime, ask.digest.clone(), 0, None));
            name_registry(&mut response, &ask.repository);
            return Ok(response);
        };
        let wanted = answer::wanted(&call.headers, &ask.digest, size);
        let (mut response, range) = head(wanted, ask, size);
        if !range.is_empty() {
            let digest = ask.digest.clone();
            *response.body_mut() = blob.body(runtime, digest, range.start, Some(range.end));
        }
        Ok(response)
    }

    async fn tag_list(&self, repository: &Repository, call: &Call) -> Result<Response, Miss> {
        let kept = call
            .query
            .split('&')
            .filter(|pair| !pair.starts_with("ns="));
        let what = format!("tags/list?{}", kept.collect::<Vec<_>>().join("&"));
        let list = self
            .fetches
            .upstream()
            .get(repository, &what, call.authorization.as_ref());
        let list = list.await?;
        let more = list.headers().get(LINK).cloned();
        let bytes = crate::layers::upstream::body(list).await?;
        let mut response = answer::json_body(bytes, "application/json");
        if let Some(more) = more {
            response.headers_mut().insert(LINK, more);
        }
        Ok(response)
    }
}

fn head(wanted: Wanted, ask: &Ask, size: u64) -> (Response, std::ops::Range<u64>) {
    let (mut response, range) = answer::head(wanted, &ask.digest, size, "application/octet-stream");
    name_registry(&mut response, &ask.repository);
    (response, range)
}

/// Says which registry the answer is for (distribution specification, "Registry Proxying").
fn name_registry(response: &mut Response, repository: &Repository) {
    if let Ok(registry) = repository.registry().try_into() {
        response.headers_mut().insert("oci-namespace", registry);
    }
}

fn route(path: &str, query: &str) -> Option<Route> {
    let rest = path.strip_prefix("/v2")?.trim_start_matches('/');
    if rest.is_empty() {
        return Some(Route::Ping);
    }
    let ns = parameter(query, "ns");
    let mut parts = rest.rsplitn(3, '/');
    let (last, door, name) = (parts.next()?, parts.next()?, parts.next()?);
    let repository = Repository::parse(name, ns.as_deref())?;
    Some(match door {
        "manifests" => Route::Manifest(repository, Reference::parse(last)?),
        "blobs" => Route::Blob(repository, last.parse().ok()?),
        "tags" if last == "list" => Route::Tags(repository),
        "referrers" => Route::Referrers(repository, last.parse().ok()?),
        _ => return None,
    })
}

/// The value of a parameter of a query.
fn parameter(query: &str, name: &str) -> Option<String> {
    let url = reqwest::Url::parse(&format!("http://query/?{query}")).ok()?;
    let found = url.query_pairs().find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_in_every_dialect() {
        let same = Repository::parse("a/b", Some("registry.test:5000")).expect("well formed");
        let tag = Reference::Tag("v1".to_owned());

        for (path, query) in [
            ("/v2/a/b/manifests/v1", "ns=registry.test%3A5000"),
            ("/v2/registry.test:5000/a/b/manifests/v1", ""),
        ] {
            assert_eq!(
                route(path, query),
                Some(Route::Manifest(same.clone(), tag.clone())),
                "{path}"
            );
        }
        assert_eq!(route("/v2/", ""), Some(Route::Ping));
        assert_eq!(
            route("/v2/library/alpine/tags/list", "n=3"),
            Repository::parse("alpine", None).map(Route::Tags)
        );
    }

    #[test]
    fn what_is_no_path_of_the_specification_is_none_of_ours() {
        for path in [
            "/",
            "/v1/a/manifests/b",
            "/v2/a/blobs/nothing",
            "/v2/a",
            "/v2/a/b/uploads/1",
        ] {
            assert_eq!(route(path, ""), None, "{path}");
        }
    }
}
