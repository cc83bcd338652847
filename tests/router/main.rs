//! The router over real nodes: `orlop controller` and several `orlop node`, each a process, with mutual TLS between them.

mod api;
mod enrol;
mod figures;
mod fleet;
mod growth;
mod ids;
mod kubernetes;
mod placement;
mod reconcile;
mod silence;
mod tracing;
mod trust;

#[path = "../support/authority.rs"]
mod authority;
#[path = "../support/calls.rs"]
mod calls;
#[path = "../support/collector.rs"]
mod collector;
#[path = "../support/node.rs"]
mod node;
#[path = "../support/mod.rs"]
mod support;
