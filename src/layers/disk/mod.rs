//! What lies on this node's own disks: our store, and that of its container runtime.

mod containerd;
pub mod lease;
pub mod runtime;
pub mod store;
