//! Where the authorities are kept: in a Secret, and what everybody may know of them in a `ConfigMap`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tracing::info;

use super::authority::{Authorities, Authority};
use crate::tls::authority;

/// The key, in the `ConfigMap`, of the certificates of all authorities.
const TRUST: &str = "ca.crt";
/// Who we are to the API server, when it asks whose fields of an object are.
const MANAGER: &str = "orlop";

/// Who keeps the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// We: it is made if it is not there, and has all authorities that are believed.
    Us,
    /// Another, such as cert-manager: it has one authority, as `tls.crt` and `tls.key`, and is only read. Its key must stay
    /// when its certificate is renewed, as what was signed before is believed by it.
    Another,
}

/// Both objects, of which neither need exist.
#[derive(Clone, Debug)]
pub(super) struct Vault {
    keeper: Keeper,
    secrets: Api<Secret>,
    secret: String,
    trusts: Api<ConfigMap>,
    trust: String,
}

impl Vault {
    pub(super) fn new(
        client: &Client,
        namespace: &str,
        (keeper, secret): (Keeper, String),
        trust: String,
    ) -> Self {
        Self {
            keeper,
            secrets: Api::namespaced(client.clone(), namespace),
            secret,
            trusts: Api::namespaced(client.clone(), namespace),
            trust,
        }
    }

    /// All authorities: made if there are none, and the next one added when it is time. Another controller may do the same
    /// at once: what the API server took first is what counts.
    pub(super) async fn open(&self) -> Result<Authorities> {
        let authorities = self.secret(SystemTime::now()).await;
        let authorities = authorities.with_context(|| format!("the Secret {}", self.secret))?;
        let told = self.tell(&authorities).await;
        told.with_context(|| format!("the ConfigMap {}", self.trust))?;
        Ok(authorities)
    }

    async fn secret(&self, now: SystemTime) -> Result<Authorities> {
        let found = self.secrets.get_opt(&self.secret).await?;
        if self.keeper == Keeper::Another {
            let found = found.context("it is not there yet: is there whoever issues it?")?;
            return Ok(Authorities::new(vec![issued(&found)?]));
        }
        let mut authorities = found
            .as_ref()
            .map_or_else(|| Ok(Authorities::default()), read)?;
        if !authorities.renew(now)? {
            return Ok(authorities);
        }
        let mut secret = found.unwrap_or_else(|| Secret {
            metadata: ObjectMeta {
                name: Some(self.secret.clone()),
                ..Default::default()
            },
            ..Default::default()
        });
        secret.data = Some(written(&authorities)?);
        let params = PostParams::default();
        let written = match secret.metadata.resource_version {
            None => self.secrets.create(&params, &secret).await,
            Some(_) => self.secrets.replace(&self.secret, &params, &secret).await,
        };
        match written {
            Ok(_) => {
                info!(
                    secret = self.secret,
                    "an authority was made, or one was over"
                );
                Ok(authorities)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                read(&self.secrets.get(&self.secret).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn tell(&self, authorities: &Authorities) -> Result<()> {
        let certificates = authorities.certificates();
        let found = self.trusts.get_opt(&self.trust).await?;
        let told = found.and_then(|found| found.data?.remove(TRUST));
        if told.as_ref() == Some(&certificates) {
            return Ok(());
        }
        let trust = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.trust},
            "data": {TRUST: certificates},
        });
        let params = PatchParams::apply(MANAGER).force();
        self.trusts
            .patch(&self.trust, &params, &Patch::Apply(trust))
            .await?;
        Ok(())
    }
}

/// Each `NAME.crt` with its `NAME.key`.
fn read(secret: &Secret) -> Result<Authorities> {
    let names = secret.data.iter().flatten();
    let names = names.filter_map(|(key, _)| key.strip_suffix(".crt"));
    let authority = |name: &str| {
        let (certificate, key) = named(secret, name)?;
        Authority::from_pem(certificate, key).with_context(|| format!("{name}.crt"))
    };
    names
        .map(authority)
        .collect::<Result<Vec<_>>>()
        .map(Authorities::new)
}

/// The authority that another keeps there. Those above it are not believed.
fn issued(secret: &Secret) -> Result<Authority> {
    let (chain, key) = named(secret, "tls")?;
    let own = authority(chain.as_bytes()).context("tls.crt")?;
    Authority::from_pem(own, key).context("tls.key, which must be in PKCS #8")
}

fn named(secret: &Secret, name: &str) -> Result<(String, String)> {
    let text = |key: String| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(&key));
        let bytes = bytes.ok_or_else(|| anyhow!("{key} is missing"))?;
        String::from_utf8(bytes.0.clone()).map_err(|_| anyhow!("{key} is not text"))
    };
    Ok((text(format!("{name}.crt"))?, text(format!("{name}.key"))?))
}

fn written(authorities: &Authorities) -> Result<BTreeMap<String, ByteString>> {
    let mut data = BTreeMap::new();
    for authority in authorities.iter() {
        let name = authority.name()?;
        let text = |text: &str| ByteString(text.as_bytes().to_vec());
        data.insert(format!("{name}.crt"), text(&authority.certificate));
        data.insert(format!("{name}.key"), text(&authority.key));
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_secret_is_what_was_written() {
        let mut authorities = Authorities::default();
        authorities
            .renew(SystemTime::now())
            .expect("there is randomness");
        let mut secret = Secret {
            data: Some(written(&authorities).expect("it began after 1970")),
            ..Default::default()
        };

        let again = read(&secret).expect("it is whole");
        assert_eq!(again.certificates(), authorities.certificates());
        assert!(
            read(&Secret::default())
                .expect("none is none")
                .certificates()
                .is_empty()
        );
        let data = secret.data.as_mut().expect("it was set");
        data.retain(|name, _| !name.contains("key"));
        let cut = read(&secret).expect_err("the key is gone");
        assert!(format!("{cut:#}").contains(".key is missing"), "{cut:#}");
    }

    #[test]
    fn of_what_another_issued_only_the_authority_itself_is_believed() {
        let [mut own, mut above] = [Authorities::default(), Authorities::default()];
        for one in [&mut own, &mut above] {
            one.renew(SystemTime::now()).expect("there is randomness");
        }
        let of = |certificate: String| Secret {
            data: Some(BTreeMap::from([
                ("tls.crt".into(), ByteString(certificate.into_bytes())),
                (
                    "tls.key".into(),
                    ByteString(own.iter().next().expect("one").key.clone().into_bytes()),
                ),
                (
                    "ca.crt".into(),
                    ByteString(above.certificates().into_bytes()),
                ),
            ])),
            ..Default::default()
        };

        let chain = of(own.certificates() + &above.certificates());
        let it = issued(&chain).expect("it is whole");
        assert_eq!(it.certificate, own.certificates());

        let key = rcgen::KeyPair::generate().expect("there is randomness");
        let leaf = rcgen::CertificateParams::new(vec!["controller.orlop.dev".into()]);
        let leaf = leaf.and_then(|leaf| leaf.self_signed(&key)).expect("it is");
        let refused = issued(&of(leaf.pem())).expect_err("it may sign nothing");
        assert!(format!("{refused:#}").contains("isCA"), "{refused:#}");
    }
}
