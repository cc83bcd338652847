//! The node's own credentials: those of a file, and those that programs tell when they are needed.

mod docker;
mod kubelet;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use axum::http::HeaderValue;
use base64::prelude::{BASE64_STANDARD, Engine};

use self::docker::Docker;
use self::kubelet::Kubelet;
use super::token::Authorization;
use crate::host::command::{Command, Runner, Tools};
use crate::host::gate::Gate;
use crate::layers::image::name::Repository;

/// How long a program may take that tells credentials.
const LIMIT: Duration = Duration::from_secs(30);

/// What a registry, or whoever sells its tokens, takes for a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Basic(Authorization),
    /// An identity token, for which tokens are had by OAuth 2 (distribution, "Token Authentication Specification using `OAuth2`").
    Identity(Identity),
}

/// An identity token. It prints as `redacted`.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(pub String);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("redacted")
    }
}

/// Where the node's own credentials come from.
#[derive(Debug, Default)]
pub struct Credentials {
    docker: Docker,
    kubelet: Kubelet,
}

impl Credentials {
    /// From a file in the form of Docker's `config.json`, with the programs that it names, and from the credential
    /// providers of a kubelet: their configuration, and the folder in which they are.
    ///
    /// # Errors
    /// A file that can not be read or makes no sense.
    pub fn read(docker: Option<&Path>, kubelet: Option<(&Path, PathBuf)>) -> Result<Self> {
        Ok(Self {
            docker: docker.map(Docker::read).transpose()?.unwrap_or_default(),
            kubelet: match kubelet {
                Some((config, folder)) => Kubelet::read(config, folder)?,
                None => Kubelet::default(),
            },
        })
    }

    /// What the node has to show for a repository, if anything. A program that fails is told in the log.
    pub async fn of(&self, repository: &Repository) -> Option<Credential> {
        match self.docker.of(repository.registry()).await {
            Some(known) => Some(known),
            None => self.kubelet.of(repository).await,
        }
    }
}

fn basic(user: &str, password: &str) -> Option<Credential> {
    encoded(&BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn encoded(pair: &str) -> Option<Credential> {
    let value = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
    Some(Credential::Basic(Authorization::new(value)))
}

/// What a program prints; nothing, with a word in the log, if it fails.
async fn told_by(command: Command) -> Option<String> {
    let command = command.limit(LIMIT);
    let run = move || Tools::new(Gate::open()).run(&command);
    let told = tokio::task::spawn_blocking(run).await;
    let told = told.unwrap_or_else(|panic| Err(panic.into()));
    let warn = |error: &anyhow::Error| {
        tracing::warn!(error = format!("{error:#}"), "no credentials were told");
    };
    told.inspect_err(warn).ok()
}
