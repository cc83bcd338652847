//! The parameters of a class: read by serde, strictly, so that a misspelt one is told and not ignored.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Error as _};

use crate::names::{CLAIM_NAME, CLAIM_NAMESPACE};
use crate::volume::{Bytes, Claim, Error, Layout, PoolName, Result, Wishes, wishes};

/// Keys that the sidecars and the kubelet reserve for themselves; those not read below are none of our business.
pub(super) const RESERVED: &str = "csi.storage.k8s.io/";

/// What a StorageClass, or an inline volume's attributes, can say.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Parameters {
    #[serde(skip)]
    pub(super) wishes: Wishes,
    pub(super) pool: Option<PoolName>,
    pub(super) layout: Option<Layout>,
    #[serde(deserialize_with = "truth")]
    pub(super) require_quota: bool,
    #[serde(deserialize_with = "truth_if_said")]
    pub(super) encryption: Option<bool>,
    #[serde(deserialize_with = "size")]
    pub(super) size: Option<Bytes>,
    /// Read for its errors alone: a lost node can not be asked, so the controller reads it from the class.
    on_node_loss: Option<OnNodeLoss>,
    #[serde(rename = "csi.storage.k8s.io/fstype")]
    pub(super) fs_type: Option<String>,
    #[serde(rename = "csi.storage.k8s.io/pvc/namespace")]
    claim_namespace: Option<String>,
    #[serde(rename = "csi.storage.k8s.io/pvc/name")]
    claim_name: Option<String>,
    #[serde(rename = "csi.storage.k8s.io/pv/name")]
    volume_name: Option<String>,
}

/// What becomes of a claim whose node is lost.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
enum OnNodeLoss {
    Keep,
    Release,
}

impl Parameters {
    const RESERVED_AND_READ: [&str; 4] = [
        "csi.storage.k8s.io/fstype",
        CLAIM_NAMESPACE,
        CLAIM_NAME,
        "csi.storage.k8s.io/pv/name",
    ];

    /// Reads the map of a request. Keys that not all kinds of pool know are wishes, which the pool reads.
    ///
    /// # Errors
    /// `Invalid`, naming the key whose value is not one.
    pub(super) fn read(map: &BTreeMap<String, String>) -> Result<Self> {
        let general =
            |key: &str| Wishes::GENERAL.contains(&key) || Self::RESERVED_AND_READ.contains(&key);
        let read = wishes::read(map.iter().filter(|(key, _)| general(key)));
        let wishes = map
            .iter()
            .filter(|(key, _)| !general(key) && !key.starts_with(RESERVED));
        Ok(Self {
            wishes: wishes
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            ..read.map_err(Error::Invalid)?
        })
    }

    /// Whose volume it is.
    pub(super) fn claim(self) -> Claim {
        Claim {
            namespace: self.claim_namespace,
            name: self.claim_name,
            volume: self.volume_name,
        }
    }
}

fn truth<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    match &*String::deserialize(from)? {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(D::Error::custom(format_args!(
            "{other:?} is neither \"true\" nor \"false\""
        ))),
    }
}

fn truth_if_said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    truth(from).map(Some)
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
    String::deserialize(from)?
        .parse()
        .map(Some)
        .map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Parameters> {
        Parameters::read(
            &pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn what_not_all_pools_know_is_a_wish() {
        let parameters = read(&[("pool", "default"), ("wipe", "zero")]).expect("the pool decides");

        let expected = [("wipe".to_owned(), "zero".to_owned())];
        assert_eq!(parameters.wishes, expected.into_iter().collect());
    }

    #[test]
    fn a_value_that_is_none_is_told() {
        for (key, value) in [
            ("layout", "wood"),
            ("layout", ""),
            ("requireQuota", "yes"),
            ("encryption", "1"),
            ("size", "big"),
            ("onNodeLoss", "cry"),
            ("pool", "../etc"),
        ] {
            let error = read(&[(key, value)]).expect_err("it is no value of that key");

            let told = error.to_string();
            assert!(matches!(error, Error::Invalid(_)), "{told}");
            assert!(told.contains(key) && told.contains(value), "{told}");
        }
    }

    #[test]
    fn the_sidecars_keys_are_accepted_and_the_claims_names_kept() {
        let claim = read(&[
            ("csi.storage.k8s.io/pvc/name", "data"),
            ("csi.storage.k8s.io/pvc/namespace", "shop"),
            ("csi.storage.k8s.io/provisioner-secret-name", "none-of-ours"),
        ])
        .expect("they are reserved keys")
        .claim();

        assert_eq!(
            (claim.namespace.as_deref(), claim.name.as_deref()),
            (Some("shop"), Some("data"))
        );
    }
}
