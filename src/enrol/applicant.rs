//! A node's side: it makes a key, has it signed, and does so again before the certificate is over.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Endpoint;
use tracing::{info, warn};

use super::folder;
use crate::csi::proto::inspection::enrolment_client::EnrolmentClient;
use crate::csi::proto::inspection::{EnrolRequest, EnrolResponse};
use crate::tls::{self, Pair, Role};

/// How often it is looked whether it is time.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long the first attempt after a failed one waits, when there is no certificate yet.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How long one attempt may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Keeps the certificate of a node in a folder.
#[derive(Clone, Debug)]
pub struct Applicant {
    at: String,
    token: PathBuf,
    authorities: PathBuf,
    folder: PathBuf,
    node: String,
    /// What was in the file of authorities when the certificate was made.
    told: Arc<Mutex<Vec<u8>>>,
}

impl Applicant {
    /// One for the node of this name, whose `tls.crt`, `tls.key` and `ca.crt` are to be in `folder`.
    ///
    /// It asks a controller at `at`, which is `host:port`, and believes it by the file of `authorities`; `token` is the
    /// file with the token of the node. Both files are read again each time.
    pub fn new(
        at: String,
        token: PathBuf,
        authorities: PathBuf,
        folder: PathBuf,
        node: String,
    ) -> Self {
        Self {
            at,
            token,
            authorities,
            folder,
            node,
            told: Arc::default(),
        }
    }

    /// Waits until there is a certificate that can be used.
    pub async fn begin(&self) -> Result<()> {
        let mut wait = FIRST_WAIT;
        loop {
            self.renew_in_time().await?;
            let this = self.clone();
            if spawn_blocking(move || this.pair().is_ok()).await? {
                return Ok(());
            }
            tokio::time::sleep(wait).await;
            wait = LOOK_EVERY.min(wait * 2);
        }
    }

    /// Renews it until the token is set: at two thirds of its life, and when the authorities change.
    pub async fn keep(self, shutdown: CancellationToken) -> Result<()> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            self.renew_in_time().await?;
        }
    }

    async fn renew_in_time(&self) -> Result<()> {
        let this = self.clone();
        if !spawn_blocking(move || this.is_due()).await? {
            return Ok(());
        }
        match self.enrol().await {
            Ok(()) => info!(node = self.node, "a certificate was made"),
            Err(error) => {
                let error = format!("{error:#}");
                warn!(
                    at = self.at,
                    error, "no certificate could be made: it is tried again"
                );
            }
        }
        Ok(())
    }

    /// What the folder has, if it is of this node.
    fn pair(&self) -> Result<Pair> {
        let pair = Pair::read(&self.folder)?;
        let role = Role::Node(self.node.clone());
        ensure!(*pair.role() == role, "it is of {}", pair.role());
        Ok(pair)
    }

    fn is_due(&self) -> bool {
        let Ok(pair) = self.pair() else { return true };
        let (from, until) = pair.life();
        let late = until.duration_since(from).unwrap_or_default() / 3;
        let soon = SystemTime::now() + late >= until;
        // Where they can not be read there is nothing new.
        let told = fs::read(&self.authorities).unwrap_or_default();
        let old = told.is_empty()
            || told == *self.told.lock()
            || fs::read(self.folder.join("ca.crt")).is_ok_and(|known| known == told);
        soon || !old
    }

    async fn enrol(&self) -> Result<()> {
        let this = self.clone();
        let (token, told) = spawn_blocking(move || this.read()).await??;
        let key = KeyPair::generate()?;
        // Its names are the controller's to say.
        let request = CertificateParams::default()
            .serialize_request(&key)?
            .pem()?;
        let asked = tokio::time::timeout(LIMIT, self.ask(&token, told.clone(), request)).await;
        let EnrolResponse {
            certificate,
            authorities,
        } = asked.context("it takes too long")??;
        let (this, key) = (self.clone(), key.serialize_pem());
        spawn_blocking(move || {
            let pair = Pair::from_pem(
                certificate.as_bytes(),
                key.as_bytes(),
                authorities.as_bytes(),
            )?;
            let role = Role::Node(this.node.clone());
            ensure!(
                *pair.role() == role,
                "the token is of {}, and this is {role}: give the node its own name by --node-name",
                pair.role()
            );
            let files = [
                ("tls.crt", &*certificate),
                ("tls.key", &key),
                ("ca.crt", &authorities),
            ];
            folder::replace(&this.folder, &files)?;
            *this.told.lock() = told;
            Ok(())
        })
        .await?
    }

    fn read(&self) -> Result<(String, Vec<u8>)> {
        let place = self.token.display();
        let token = fs::read_to_string(&self.token)
            .with_context(|| format!("the token in {place} could not be read"))?;
        let place = self.authorities.display();
        let authorities = fs::read(&self.authorities)
            .with_context(|| format!("the authorities in {place} could not be read"))?;
        Ok((token.trim().to_owned(), authorities))
    }

    async fn ask(
        &self,
        token: &str,
        authorities: Vec<u8>,
        request: String,
    ) -> Result<EnrolResponse> {
        let at = self.at.clone();
        let connect = move |_| {
            let (at, authorities) = (at.clone(), authorities.clone());
            async move {
                tls::connect_to_controller(&at, &authorities)
                    .await
                    .map(TokioIo::new)
            }
        };
        let channel = Endpoint::from_static("http://controller")
            .connect_with_connector(tower::service_fn(connect))
            .await?;
        let mut asked = Request::new(EnrolRequest { request });
        let mut header = AsciiMetadataValue::try_from(format!("Bearer {token}"))
            .ok()
            .context("the token is not one line of letters")?;
        header.set_sensitive(true);
        asked.metadata_mut().insert("authorization", header);
        let answer = EnrolmentClient::new(channel).enrol(asked).await;
        let answer = answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
        Ok(answer.into_inner())
    }
}
