//! Mutual TLS between Orlop's own processes: who may talk to whom, by certificates that can change while they are in use.

mod connection;
mod pair;
mod role;
mod verify;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::RwLock;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ConfigBuilder, ServerConfig, WantsVerifier};
use tracing::{error, info};

pub use self::connection::{Connection, connect, connect_to_controller, listen};
pub use self::pair::{Pair, authority, life};
pub use self::role::Role;
use self::verify::Verifier;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What this process proves itself with, and whom it believes; clones share it.
///
/// Configurations made from it follow it: the next handshake uses what is there then. Sessions are never resumed, so that
/// nobody who is no longer believed comes back by an old one.
#[derive(Clone)]
pub struct Credentials(Arc<Current>);

/// The pair that is in use now.
struct Current(RwLock<Arc<Pair>>);

impl Credentials {
    /// Reads `tls.crt`, `tls.key` and `ca.crt` of the folder, and follows their changes for as long as a clone is left.
    ///
    /// A new pair that can not be used is logged as an error, and the old one stays. Must be called inside a runtime.
    ///
    /// # Errors
    /// What is there now can not be used; the message says which file, and what to do.
    pub fn open(directory: &Path) -> Result<Self> {
        let credentials = Self::of(Pair::read(directory)?);
        let directory = directory.to_owned();
        let current = Arc::downgrade(&credentials.0);
        tokio::spawn(follow(directory, current, LOOK_EVERY));
        Ok(credentials)
    }

    /// Those of a pair that is in memory only.
    pub fn of(pair: Pair) -> Self {
        Self(Arc::new(Current(RwLock::new(Arc::new(pair)))))
    }

    /// Uses another pair from now on.
    pub fn replace(&self, pair: Pair) {
        *self.0.0.write() = Arc::new(pair);
    }

    /// Who this process is.
    pub fn role(&self) -> Role {
        self.pair().role().clone()
    }

    /// For a server on which only those may call of whom `allows` says so; the others are refused in the handshake.
    pub fn server(&self, allows: impl Fn(&Role) -> bool + Send + Sync + 'static) -> ServerConfig {
        let verifier = Arc::new(Verifier::new(self.clone(), allows));
        let config = server().with_client_cert_verifier(verifier.clone());
        never_resumed(config.with_cert_resolver(verifier))
    }

    /// For a server on which anybody may call: it proves who it is, and its callers need not.
    pub fn server_for_anybody(&self) -> ServerConfig {
        let resolver = Arc::new(Verifier::new(self.clone(), |_| false));
        let config = server().with_no_client_auth();
        never_resumed(config.with_cert_resolver(resolver))
    }

    /// For a client that talks only to those whom it `expects`, whatever the name or address is that it dialled.
    pub fn client(&self, expects: impl Fn(&Role) -> bool + Send + Sync + 'static) -> ClientConfig {
        let verifier = Arc::new(Verifier::new(self.clone(), expects));
        let mut config = client()
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(verifier);
        config.resumption = Resumption::disabled();
        config
    }

    fn pair(&self) -> Arc<Pair> {
        let current = self.0.0.read();
        Arc::clone(&current)
    }

    /// Takes what the folder has now, if it is another pair; says whether it was.
    fn reload(&self, directory: &Path) -> Result<bool> {
        let pair = Pair::read(directory)?;
        let changed = !pair.is_same_as(&self.pair());
        if changed {
            self.replace(pair);
        }
        Ok(changed)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.role()).finish()
    }
}

/// Looks at the folder again and again: what a kubelet mounts is replaced by links, which no watch on a file sees.
async fn follow(directory: PathBuf, current: Weak<Current>, every: Duration) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(every).await;
        let Some(credentials) = current.upgrade().map(Credentials) else {
            return;
        };
        let place = directory.clone();
        let looked = tokio::task::spawn_blocking(move || credentials.reload(&place));
        let trouble = match looked.await.context("looking at them").flatten() {
            Ok(false) => String::new(),
            Ok(true) => {
                info!(directory = %directory.display(), "new certificates are in use");
                String::new()
            }
            Err(error) => format!("{error:#}"),
        };
        if !trouble.is_empty() && trouble != told {
            error!(
                error = trouble,
                "new certificates can not be used: the old ones stay"
            );
        }
        told = trouble;
    }
}

/// For a client that believes these authorities, in PEM, of the name that it dials.
fn client_without_certificate(authorities: &[u8]) -> Result<ClientConfig> {
    let roots = pair::roots(authorities)?;
    let mut config = client().with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server() -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
}

fn client() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
}

fn never_resumed(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests;
