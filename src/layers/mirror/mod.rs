//! What the container runtime of this node asks and is answered: manifests, blobs and tags, to those who may have them.

pub mod answer;
pub mod grants;
pub mod http;
pub mod manifest;
pub mod referrers;
pub mod relay;
pub mod tags;
