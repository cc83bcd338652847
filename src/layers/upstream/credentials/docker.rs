//! Credentials as Docker's `config.json` has them: in the file itself, or told by a `docker-credential-*` program.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Credential, Identity, basic, encoded, told_by};
use crate::host::command::Command;

/// The user by whom a program says that the secret is an identity token.
const IDENTITY: &str = "<token>";
/// What a program says that has nothing for this registry, which is nothing to worry about.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// How Docker writes `docker.io`.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The credentials of one file.
#[derive(Debug, Default)]
pub(super) struct Docker {
    known: HashMap<String, Credential>,
    /// The programs that are asked for one registry each.
    helpers: HashMap<String, String>,
    /// The one that is asked for all others.
    store: Option<String>,
}

/// The part of `config.json` that is about credentials.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// What a program prints that is asked to `get` (docker-credential-helpers, "Development").
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    username: String,
    secret: String,
}

impl Docker {
    pub(super) fn read(file: &Path) -> Result<Self> {
        let reading = || format!("reading the credentials in {}", file.display());
        let text = std::fs::read(file).with_context(reading)?;
        let config: Config = serde_json::from_slice(&text).with_context(reading)?;
        let known = config.auths.into_iter();
        let known =
            known.filter_map(|(server, entry)| Some((registry_of(&server), entry.credential()?)));
        let helpers = config.cred_helpers.into_iter();
        let helpers: HashMap<_, _> = helpers
            .map(|(server, name)| (registry_of(&server), name))
            .collect();
        let store = config.creds_store.filter(|name| !name.is_empty());
        for name in helpers.values().chain(&store) {
            ensure!(
                !name.contains('/'),
                "{}: {name:?} is no name of a program docker-credential-*",
                file.display()
            );
        }
        Ok(Self {
            known: known.collect(),
            helpers,
            store,
        })
    }

    /// What it has for a registry: its own program's word, then the file's, then that of the program for all.
    pub(super) async fn of(&self, registry: &str) -> Option<Credential> {
        if let Some(helper) = self.helpers.get(registry) {
            return ask(helper, registry).await;
        }
        match (self.known.get(registry), &self.store) {
            (Some(known), _) => Some(known.clone()),
            (None, Some(store)) => ask(store, registry).await,
            (None, None) => None,
        }
    }
}

impl Entry {
    fn credential(self) -> Option<Credential> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(self.identitytoken) {
            return Some(Credential::Identity(Identity(token)));
        }
        match given(self.auth) {
            Some(pair) => encoded(&pair),
            None => basic(&self.username?, &self.password?),
        }
    }
}

async fn ask(helper: &str, registry: &str) -> Option<Credential> {
    let server = match registry {
        "docker.io" => DOCKER_HUB,
        registry => registry,
    };
    let command = Command::query(format!("docker-credential-{helper}"));
    let command = command.arg("get").input(server.as_bytes().to_vec());
    // It prints why it has none, too, on either output.
    let told = told_by(command.accept(1).with_errors()).await?;
    let mut values = serde_json::Deserializer::from_str(&told).into_iter();
    let Some(Ok(Told { username, secret })) = values.next() else {
        match told.trim() {
            none if none.starts_with(NOT_FOUND) => {}
            why if !why.contains('{') => tracing::warn!(helper, why, "no credentials were told"),
            // There may be a secret in it.
            _ => tracing::warn!(helper, "it does not tell credentials as Docker has them"),
        }
        return None;
    };
    if username == IDENTITY {
        return Some(Credential::Identity(Identity(secret)));
    }
    basic(&username, &secret)
}

/// The registry that an entry is for.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Docker> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("config.json");
        std::fs::write(&file, text).expect("it is ours");
        Docker::read(&file)
    }

    #[tokio::test]
    async fn the_credentials_of_docker_hub_are_those_of_docker_io() {
        let docker =
            read(r#"{"auths":{"https://index.docker.io/v1/":{"auth":"aGk6aG8="},"ghcr.test":{}}}"#);
        let docker = docker.expect("it is well formed");

        assert_eq!(docker.of("docker.io").await, basic("hi", "ho"));
        assert_eq!(docker.of("ghcr.test").await, None);
    }

    #[tokio::test]
    async fn an_entry_says_a_pair_or_its_parts_or_an_identity_token() {
        let docker = read(
            r#"{"auths":{"a.test":{"username":"hi","password":"ho"},"b.test":{"auth":"","identitytoken":"id"}}}"#,
        );
        let docker = docker.expect("it is well formed");

        assert_eq!(docker.of("a.test").await, basic("hi", "ho"));
        let identity = Credential::Identity(Identity("id".to_owned()));
        assert_eq!(docker.of("b.test").await, Some(identity));
    }

    #[tokio::test]
    async fn a_program_that_is_missing_tells_nothing() {
        let docker = read(r#"{"credsStore":"of-nobody"}"#).expect("it is well formed");

        assert_eq!(docker.of("registry.test").await, None);
    }

    #[test]
    fn a_program_is_named_and_not_led_to() {
        let error = read(r#"{"credHelpers":{"a.test":"../../bin/sh"}}"#);

        let error = error.expect_err("it is no name").to_string();
        assert!(error.contains("is no name of a program"), "{error}");
    }
}
