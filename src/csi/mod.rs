//! The wire: what CSI clients and the kubelet say and hear, and the sockets they say it on.

mod controller;
pub mod endpoint;
mod identity;
mod inspection;
mod node;
pub mod observe;
pub mod proto;
pub mod registration;
mod reply;
mod request;
mod serve;
pub mod socket;
mod status;
mod upkeep;

pub use controller::Controller;
pub(crate) use controller::capabilities;
pub use identity::{Identity, Readiness};
pub use inspection::Inspection;
pub use node::Node;
pub(crate) use request::{snapshot_id, volume_id};
pub use serve::{serve, serve_over_tls};
pub use upkeep::Upkeep;

/// What every method on the wire answers.
pub(crate) type Reply<T> = Result<tonic::Response<T>, tonic::Status>;
