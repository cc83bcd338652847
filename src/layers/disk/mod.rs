//! What lies on this node's own disks: our store, and that of its container runtime.

pub mod runtime;
pub mod store;
