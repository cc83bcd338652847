//! What a manifest lists, as far as a machine needs it to run the image.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::digest::Digest;

/// One thing that a manifest lists.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Descriptor {
    /// What it is called.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

/// What a manifest lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Configuration and layers.
    Image(Vec<Descriptor>),
    /// Manifests, one for each platform.
    Index(Vec<Descriptor>),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
}

impl Content {
    /// Reads a manifest.
    pub fn of(manifest: &[u8]) -> Result<Self> {
        let read: Manifest =
            serde_json::from_slice(manifest).context("it is no manifest that we know")?;
        Ok(match read.manifests {
            Some(manifests) => Self::Index(manifests),
            None => Self::Image(read.config.into_iter().chain(read.layers).collect()),
        })
    }
}

/// Those of an index that a machine of this kind runs; all, if none says for what it is.
pub fn for_this_machine(manifests: Vec<Descriptor>) -> Vec<Descriptor> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        same => same,
    };
    if manifests.iter().all(|manifest| manifest.platform.is_none()) {
        return manifests;
    }
    let fits =
        |platform: &Platform| platform.os == "linux" && platform.architecture == architecture;
    let fitting = manifests.into_iter();
    fitting
        .filter(|manifest| manifest.platform.as_ref().is_some_and(fits))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_narrowed_to_this_machine() {
        let [ours, other] = [b"a", b"b"].map(|bytes| Digest::of(bytes));
        let architecture = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        let index = format!(
            r#"{{"manifests":[
                {{"digest":"{other}","size":1,"platform":{{"architecture":"s390x","os":"linux"}}}},
                {{"digest":"{ours}","size":2,"platform":{{"architecture":"{architecture}","os":"linux"}}}}]}}"#
        );

        let Content::Index(all) = Content::of(index.as_bytes()).expect("it is an index") else {
            panic!("it is an index");
        };

        let digests = for_this_machine(all).into_iter().map(|one| one.digest);
        assert_eq!(digests.collect::<Vec<_>>(), [ours]);
    }
}
