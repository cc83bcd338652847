//! Referrers: the signatures and attestations that point at a manifest, from registries that know them or not.

use axum::http::HeaderValue;
use axum::response::Response;
use serde_json::{Value, json};

use super::answer;
use crate::layers::image::digest::Digest;
use crate::layers::image::name::Repository;
use crate::layers::miss::Miss;
use crate::layers::upstream::token::Authorization;
use crate::layers::upstream::{Upstream, body};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The index of what refers to `subject`, perhaps of one artifact type only (distribution specification, "Listing
/// Referrers"). A registry without that door may keep the index under a tag of the digest's name.
pub async fn list(
    upstream: &Upstream,
    repository: &Repository,
    subject: &Digest,
    artifact_type: Option<&str>,
    authorization: Option<&Authorization>,
) -> Result<Response, Miss> {
    let tag = subject.to_string().replace(':', "-");
    let doors = [format!("referrers/{subject}"), format!("manifests/{tag}")];
    let mut index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
    for door in doors {
        match upstream.get(repository, &door, authorization).await {
            Ok(found) => {
                let bytes = body(found).await?;
                index = serde_json::from_slice(&bytes)
                    .map_err(|error| Miss::Unavailable(format!("upstream's index: {error}")))?;
                break;
            }
            Err(Miss::NotFound) => {}
            Err(miss) => return Err(miss),
        }
    }
    if let Some(wanted) = artifact_type
        && let Some(Value::Array(listed)) = index.get_mut("manifests")
    {
        listed.retain(|one| one.get("artifactType").and_then(Value::as_str) == Some(wanted));
    }
    let mut response = answer::json_body(index.to_string().into_bytes(), INDEX);
    if artifact_type.is_some() {
        let applied = HeaderValue::from_static("artifactType");
        response
            .headers_mut()
            .insert("oci-filters-applied", applied);
    }
    Ok(response)
}
