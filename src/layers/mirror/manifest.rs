//! Manifests: small blobs that are read whole, and say themselves what they are.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::layers::fetch::Fetches;
use crate::layers::miss::Miss;
use crate::layers::upstream::flow::{Ask, Flow};

/// No manifest is larger (distribution specification, "Pushing Manifests", asks for 4 MiB at least).
const LARGEST: u64 = 8 << 20;
/// How often one is looked for whose copy can not be read.
const ATTEMPTS: usize = 2;

/// The parts of a manifest that tell its type.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marks {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
    signatures: Option<IgnoredAny>,
}

/// All bytes of a manifest, verified.
pub async fn read(fetches: &Arc<Fetches>, ask: &Ask) -> Result<Bytes, Miss> {
    let unavailable = |why: &dyn std::fmt::Display| Miss::Unavailable(why.to_string());
    let mut miss = Miss::NotFound;
    for _ in 0..ATTEMPTS {
        let blob = match fetches.get(ask).await {
            Ok(blob) => blob,
            Err(Miss::NoRoom) => return read_through(fetches, ask).await,
            Err(miss) => return Err(miss),
        };
        if blob.size() > LARGEST {
            return Err(unavailable(&"it is too large for a manifest"));
        }
        blob.whole().await.map_err(|why| unavailable(&why))?;
        match fetches.read(&blob, 0..blob.size()).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => miss = unavailable(&error),
        }
    }
    Err(miss)
}

async fn read_through(fetches: &Fetches, ask: &Ask) -> Result<Bytes, Miss> {
    let mut flow = Flow::open(fetches.upstream().clone(), ask.clone(), 0, None).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = flow.next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > LARGEST {
            return Err(Miss::Unavailable(
                "it is too large for a manifest".to_owned(),
            ));
        }
    }
    let mut sum = ask.digest.sum();
    sum.update(&bytes);
    if sum.is(&ask.digest) {
        Ok(bytes.into())
    } else {
        Err(Miss::Unavailable(
            "upstream sent a wrong manifest".to_owned(),
        ))
    }
}

/// The media type of a manifest. It is optional in OCI's own, which then tell by what they list.
pub fn media_type(bytes: &[u8]) -> String {
    let Ok(marks) = serde_json::from_slice::<Marks>(bytes) else {
        return "application/octet-stream".to_owned();
    };
    let plain = match marks {
        Marks {
            media_type: Some(given),
            ..
        } => return given,
        Marks {
            manifests: Some(_), ..
        } => "application/vnd.oci.image.index.v1+json",
        Marks {
            fs_layers: Some(_),
            signatures: Some(_),
            ..
        } => "application/vnd.docker.distribution.manifest.v1+prettyjws",
        Marks {
            fs_layers: Some(_), ..
        } => "application/vnd.docker.distribution.manifest.v1+json",
        Marks { .. } => "application/vnd.oci.image.manifest.v1+json",
    };
    plain.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_what_it_is() {
        for (text, expected) in [
            (r#"{"mediaType":"x/y","manifests":[]}"#, "x/y"),
            (
                r#"{"manifests":[]}"#,
                "application/vnd.oci.image.index.v1+json",
            ),
            (
                r#"{"layers":[]}"#,
                "application/vnd.oci.image.manifest.v1+json",
            ),
            ("no json", "application/octet-stream"),
        ] {
            assert_eq!(media_type(text.as_bytes()), expected);
        }
    }
}
