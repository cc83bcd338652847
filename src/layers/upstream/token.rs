//! Tokens: what a registry's challenge asks for, and getting it with the node's own credentials or with none.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::http::HeaderValue;
use parking_lot::Mutex;
use reqwest::{Client, Url};
use serde::Deserialize;

use crate::layers::image::name::Repository;

/// How long a token lasts whose registry does not say so (distribution, "Token Authentication Specification").
const DEFAULT_LIFE: Duration = Duration::from_mins(1);
/// A token this close to its end is not used any more.
const MARGIN: Duration = Duration::from_secs(10);
/// More repositories than this are not remembered.
const MOST: usize = 10_000;

/// What proves to a registry who asks: the value of an `Authorization` header. It prints as `redacted`.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(HeaderValue);

/// The node's own credentials, and the tokens that they, or no credentials at all, have bought.
#[derive(Debug, Default)]
pub struct Tokens {
    credentials: HashMap<String, Authorization>,
    bought: Mutex<HashMap<Repository, (Authorization, Instant)>>,
}

/// The part of Docker's `config.json` that holds credentials.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    auth: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Authorization {
    /// From the header's value.
    pub fn new(mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        Self(value)
    }

    /// As a header's value, marked as secret.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

impl Tokens {
    /// With the credentials of a file in the form of Docker's `config.json`.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read(file)
            .with_context(|| format!("reading the credentials in {}", file.display()))?;
        let config: DockerConfig = serde_json::from_slice(&text)
            .with_context(|| format!("reading the credentials in {}", file.display()))?;
        let known = config.auths.into_iter().filter_map(|(server, auth)| {
            let value = HeaderValue::try_from(format!("Basic {}", auth.auth?)).ok()?;
            Some((registry_of(&server), Authorization::new(value)))
        });
        Ok(Self {
            credentials: known.collect(),
            bought: Mutex::default(),
        })
    }

    /// What was bought for this repository, if it still lasts.
    pub fn held(&self, repository: &Repository) -> Option<Authorization> {
        let bought = self.bought.lock();
        let (token, end) = bought.get(repository)?;
        (Instant::now() + MARGIN < *end).then(|| token.clone())
    }

    /// Answers a challenge with the node's credentials, or with none; nothing if that can not be.
    pub async fn buy(
        &self,
        client: &Client,
        repository: &Repository,
        challenge: &HeaderValue,
    ) -> Option<Authorization> {
        let credential = self.credentials.get(repository.registry());
        let challenge = challenge.to_str().ok()?;
        if scheme(challenge).eq_ignore_ascii_case("basic") {
            return credential.cloned();
        }
        let mut request = client.get(token_url(challenge)?);
        if let Some(credential) = credential {
            request = request.header(reqwest::header::AUTHORIZATION, credential.header());
        }
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        let answer: Answer = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
        let token = answer.token.or(answer.access_token)?;
        let token = Authorization::new(HeaderValue::try_from(format!("Bearer {token}")).ok()?);
        let life = answer
            .expires_in
            .map_or(DEFAULT_LIFE, |life| Duration::from_secs(life.min(86_400)));
        self.remember(repository, &token, life);
        Some(token)
    }

    fn remember(&self, repository: &Repository, token: &Authorization, life: Duration) {
        let mut bought = self.bought.lock();
        let now = Instant::now();
        if bought.len() >= MOST {
            bought.retain(|_, (_, end)| *end > now);
        }
        if bought.len() < MOST {
            bought.insert(repository.clone(), (token.clone(), now + life));
        }
    }
}

/// The registry that an entry of `config.json` is for: `https://index.docker.io/v1/` is how Docker writes `docker.io`.
fn registry_of(server: &str) -> String {
    let host = server
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

fn scheme(challenge: &str) -> &str {
    challenge.split(' ').next().unwrap_or_default()
}

/// The address at which a `Bearer` challenge sells its token.
fn token_url(challenge: &str) -> Option<Url> {
    let parameters = challenge.split_once(' ')?;
    if !parameters.0.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = quoted(parameters.1);
    let mut url = Url::parse(&parameters.remove("realm")?).ok()?;
    for (name, value) in parameters {
        if ["service", "scope"].contains(&name.as_str()) {
            url.query_pairs_mut().append_pair(&name, &value);
        }
    }
    Some(url)
}

/// `name="value"` pairs between commas; a value may hold commas of its own.
fn quoted(text: &str) -> HashMap<String, String> {
    let mut pairs = HashMap::new();
    let mut rest = text;
    while let Some((name, value)) = rest.split_once('=') {
        let name = name.trim_matches([',', ' ']).to_ascii_lowercase();
        let (value, after) = match value.strip_prefix('"') {
            Some(value) => value.split_once('"').unwrap_or((value, "")),
            None => value.split_once(',').unwrap_or((value, "")),
        };
        pairs.insert(name, value.to_owned());
        rest = after;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_becomes_the_address_of_its_token() {
        let url = token_url(
            r#"Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a/b:pull,push",error="x""#,
        );

        let url = url.expect("it is a bearer challenge");
        assert_eq!(url.path(), "/token");
        let pairs: HashMap<_, _> = url.query_pairs().collect();
        assert_eq!(pairs["scope"], "repository:a/b:pull,push");
        assert_eq!(pairs.len(), 2);
    }

    #[test]
    fn a_secret_does_not_print() {
        let secret = Authorization::new(HeaderValue::from_static("Basic aGk6aG8="));

        assert_eq!(
            format!("{secret:?} {:?}", secret.header()),
            "redacted Sensitive"
        );
    }

    #[test]
    fn the_credentials_of_docker_hub_are_those_of_docker_io() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("config.json");
        std::fs::write(
            &file,
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"aGk6aG8="},"ghcr.test":{}},"credsStore":"x"}"#,
        )
        .expect("it is ours");

        let tokens = Tokens::read(&file).expect("it is well formed");

        assert_eq!(tokens.credentials.keys().collect::<Vec<_>>(), ["docker.io"]);
    }
}
