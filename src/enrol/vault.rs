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

/// The key, in the `ConfigMap`, of the certificates of all authorities.
const TRUST: &str = "ca.crt";
/// Who we are to the API server, when it asks whose fields of an object are.
const MANAGER: &str = "orlop";

/// Both objects, of which neither need exist.
#[derive(Clone, Debug)]
pub(super) struct Vault {
    secrets: Api<Secret>,
    secret: String,
    trusts: Api<ConfigMap>,
    trust: String,
}

impl Vault {
    pub(super) fn new(client: &Client, namespace: &str, secret: String, trust: String) -> Self {
        Self {
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
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    let text = |key: &str| {
        let bytes = data.get(key).ok_or_else(|| anyhow!("{key} is missing"))?;
        String::from_utf8(bytes.0.clone()).map_err(|_| anyhow!("{key} is not text"))
    };
    let names = data.keys().filter_map(|key| key.strip_suffix(".crt"));
    let authority = |name: &str| {
        let (certificate, key) = (text(&format!("{name}.crt"))?, text(&format!("{name}.key"))?);
        Authority::from_pem(certificate, key).with_context(|| format!("{name}.crt"))
    };
    names
        .map(authority)
        .collect::<Result<Vec<_>>>()
        .map(Authorities::new)
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
}
