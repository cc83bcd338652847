//! A controller's hold of the authorities: its own certificate, and those that it signs for others.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use kube::Client;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::authority::Authorities;
use super::vault::{Keeper, Vault};
use crate::tls::{Credentials, Role};

/// How often the authorities are looked at, and the own certificate made anew.
const LOOK_EVERY: Duration = Duration::from_mins(5);

/// The authorities as they were last seen; clones share them.
#[derive(Clone, Debug)]
pub struct Signer {
    vault: Vault,
    authorities: Arc<RwLock<Arc<Authorities>>>,
    credentials: Credentials,
}

impl Signer {
    /// Opens the authorities in this Secret, and tells their certificates in this `ConfigMap`.
    pub async fn open(
        client: &Client,
        namespace: &str,
        secret: (Keeper, String),
        trust: String,
    ) -> Result<Self> {
        let vault = Vault::new(client, namespace, secret, trust);
        let authorities = vault.open().await?;
        let own = authorities.pair(&Role::Controller, SystemTime::now())?;
        Ok(Self {
            vault,
            authorities: Arc::new(RwLock::new(Arc::new(authorities))),
            credentials: Credentials::of(own),
        })
    }

    /// Those of the controller, which follow the authorities while [`Signer::keep`] runs.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Looks after the authorities until the token is set. While they can not be asked for, those that are known stay.
    pub async fn keep(self, shutdown: CancellationToken) -> Result<()> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            match self.vault.open().await {
                Ok(authorities) => {
                    let mut known = self.authorities.write();
                    *known = Arc::new(authorities);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    warn!(
                        error,
                        "the authorities could not be looked at: those that are known stay"
                    );
                }
            }
            let own = self
                .authorities()
                .pair(&Role::Controller, SystemTime::now());
            match own {
                Ok(own) => self.credentials.replace(own),
                Err(error) => warn!(
                    error = format!("{error:#}"),
                    "the own certificate stays as it is"
                ),
            }
        }
    }

    pub(super) fn authorities(&self) -> Arc<Authorities> {
        let known = self.authorities.read();
        Arc::clone(&known)
    }
}
