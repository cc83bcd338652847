//! Tokens: what a registry's challenge asks for, and getting it with the node's own credentials or with none.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use parking_lot::Mutex;
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;

use super::credentials::{Credential, Credentials, Identity};
use crate::layers::image::name::Repository;

/// How long a token lasts whose registry does not say so (distribution, "Token Authentication Specification"), and
/// what is shown to a registry without tokens.
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
    credentials: Credentials,
    bought: Mutex<HashMap<Repository, (Authorization, Instant)>>,
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
    /// With these credentials, and nothing bought yet.
    pub fn with(credentials: Credentials) -> Self {
        Self {
            credentials,
            bought: Mutex::default(),
        }
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
        let challenge = challenge.to_str().ok()?;
        let credential = self.credentials.of(repository).await;
        if scheme(challenge).eq_ignore_ascii_case("basic") {
            let Some(Credential::Basic(basic)) = credential else {
                return None;
            };
            self.remember(repository, &basic, DEFAULT_LIFE);
            return Some(basic);
        }
        let url = token_url(challenge)?;
        let request = match credential {
            Some(Credential::Identity(identity)) => by_identity(client, url, &identity),
            Some(Credential::Basic(basic)) => client.get(url).header(AUTHORIZATION, basic.header()),
            None => client.get(url),
        };
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

/// Asks for a token by an identity token (distribution, "Token Authentication Specification using `OAuth2`").
fn by_identity(client: &Client, mut url: Url, Identity(identity): &Identity) -> RequestBuilder {
    let mut form = url.clone();
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "orlop")
        .append_pair("refresh_token", identity);
    let body = form.query().unwrap_or_default().to_owned();
    url.set_query(None);
    let request = client.post(url).body(body);
    request.header(CONTENT_TYPE, "application/x-www-form-urlencoded")
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
}
