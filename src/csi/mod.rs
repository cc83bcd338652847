//! The wire: what CSI clients and the kubelet say and hear, and the sockets they say it on.

pub mod endpoint;
pub mod observe;
pub mod proto;
pub mod registration;
mod serve;
pub mod socket;

pub use serve::serve;
