//! What needs a kernel with device-mapper, ZFS or project quotas: `tests/machine` runs it where there is one.

mod client;
mod disk;
mod kernel;
#[path = "../support/node.rs"]
mod node;
mod power;
mod provisioning;
mod quota;
#[path = "../support/mod.rs"]
mod support;
mod zfs;
