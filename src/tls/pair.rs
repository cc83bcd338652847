//! A certificate with its key, and the authorities by which others are believed.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::EncodePem;
use x509_cert::der::pem::LineEnding;
use x509_cert::ext::pkix::BasicConstraints;

use super::provider;
use super::role::Role;

/// A checked pair of certificate and key, with the authorities that go with it.
pub struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    role: Role,
    /// Since when and until when it is good.
    life: (SystemTime, SystemTime),
    /// Of all that it was read from.
    digest: [u8; 32],
}

impl Pair {
    /// Reads `tls.crt`, `tls.key` and `ca.crt` of a folder.
    ///
    /// # Errors
    /// They can not be used; the message says which, and what to do.
    pub fn read(directory: &Path) -> Result<Self> {
        // Where all files are replaced at once, that is a link to those of now: they must be of one moment.
        let now = fs::canonicalize(directory.join("..data"));
        let directory = now.as_deref().unwrap_or(directory);
        let read = |name: &str| {
            fs::read(directory.join(name))
                .with_context(|| format!("{} could not be read", directory.join(name).display()))
        };
        let (chain, key, authorities) = (read("tls.crt")?, read("tls.key")?, read("ca.crt")?);
        Self::from_pem(&chain, &key, &authorities)
            .with_context(|| format!("the certificates in {}", directory.display()))
    }

    /// From what is in such files.
    ///
    /// # Errors
    /// One of them is no PEM; the key is another's; the certificate is not valid now, or by none of the authorities.
    pub fn from_pem(chain: &[u8], key: &[u8], authorities: &[u8]) -> Result<Self> {
        let mut hash = Sha256::new();
        for part in [chain, key, authorities] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let life = life(chain).context("tls.crt")?;
        let chain = certificates(chain).context("tls.crt")?;
        // What the parser says of a key stays unsaid: it could quote it.
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| anyhow::anyhow!("tls.key: no private key in PEM is in it"))?;
        let role = Role::of(&chain[0]).context("tls.crt")?;
        let key = CertifiedKey::from_der(chain, key, &provider())
            .context("tls.key does not belong to tls.crt")?;
        let roots = Arc::new(roots(authorities).context("ca.crt")?);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider()).build()?;
        let pair = Self {
            key: Arc::new(key),
            roots,
            clients,
            role,
            life,
            digest: hash.finalize().into(),
        };
        pair.check().context(
            "tls.crt would not be believed by others: ca.crt must have signed it, for servers and clients, for now",
        )?;
        Ok(pair)
    }

    /// Who it is of.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Since when and until when the certificate is good.
    pub fn life(&self) -> (SystemTime, SystemTime) {
        self.life
    }

    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// What others will do in their handshakes.
    fn check(&self) -> Result<(), rustls::Error> {
        let (leaf, rest) = self.key.cert.split_first().expect("it is not empty");
        self.check_server(leaf, rest, UnixTime::now())?;
        self.check_client(leaf, rest, UnixTime::now())
    }

    pub(super) fn check_server(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, rest, now, algorithms)
    }

    pub(super) fn check_client(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        self.clients.verify_client_cert(leaf, rest, now).map(drop)
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Since when and until when the first certificate of a PEM is good.
///
/// # Errors
/// There is none.
pub fn life(pem: &[u8]) -> Result<(SystemTime, SystemTime)> {
    let first = first(pem)?;
    let life = first.tbs_certificate().validity();
    let [from, until] = [life.not_before, life.not_after].map(|time| time.to_system_time());
    Ok((from, until))
}

/// The first certificate of a PEM, as PEM.
///
/// # Errors
/// There is none, or it may sign no others.
pub fn authority(pem: &[u8]) -> Result<String> {
    let first = first(pem)?;
    let constraints = first.tbs_certificate().get_extension::<BasicConstraints>();
    let may = constraints.context("its basic constraints")?;
    ensure!(
        may.is_some_and(|(_, may)| may.ca),
        "it may sign no others: ask for it with isCA"
    );
    Ok(first.to_pem(LineEnding::LF)?)
}

fn first(pem: &[u8]) -> Result<Certificate> {
    let all = Certificate::load_pem_chain(pem).context("it is not PEM")?;
    let first = all.into_iter().next();
    first.context("no certificate in PEM is in it")
}

/// The authorities of a PEM.
pub(super) fn roots(authorities: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(authorities)? {
        roots.add(authority)?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .context("it is not PEM")?;
    ensure!(!found.is_empty(), "no certificate in PEM is in it");
    Ok(found)
}
