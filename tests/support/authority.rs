//! An authority that signs for who asks.
#![allow(dead_code, reason = "some keep what it signs in files, some in memory")]

use std::fs;
use std::path::{Path, PathBuf};

use orlop::tls::{Credentials, Pair};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// One whom all believe that have its certificate.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("there is randomness");
        let pem = params.self_signed(&key).expect("it signs itself").pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// The certificate and the key of one of this DNS name.
    fn issue(&self, name: &str) -> (String, String) {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("it is a name");
        let key = KeyPair::generate().expect("there is randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("it signs");
        (certificate.pem(), key.serialize_pem())
    }

    /// What one of this DNS name proves itself with.
    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        let (chain, key) = self.issue(name);
        let pair = Pair::from_pem(chain.as_bytes(), key.as_bytes(), self.pem.as_bytes());
        Credentials::of(pair.expect("it is good"))
    }

    /// The same in a directory of that name.
    pub(crate) fn sign(&self, name: &str, within: &Path) -> PathBuf {
        let (chain, key) = self.issue(name);
        let directory = within.join(name);
        fs::create_dir_all(&directory).expect("it can be made");
        for (file, text) in [
            ("tls.crt", &chain),
            ("tls.key", &key),
            ("ca.crt", &self.pem),
        ] {
            fs::write(directory.join(file), text).expect("it can be written");
        }
        directory
    }
}
