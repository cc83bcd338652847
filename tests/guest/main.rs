//! What needs a kernel with device-mapper, ZFS or project quotas: `tests/machine` runs it where there is one.

mod bed;
mod blocks;
mod classic;
mod client;
mod container;
mod datasets;
mod disk;
mod docker;
mod encryption;
mod failing;
mod figures;
mod full;
mod hidden;
mod kernel;
mod lvm;
mod many;
mod mapping;
#[path = "../support/node.rs"]
mod node;
#[path = "../docker/plugin.rs"]
#[allow(dead_code, reason = "Docker's own tests use all of it")]
mod plugin;
mod power;
mod properties;
mod provisioning;
mod quota;
mod raid;
#[allow(dead_code, reason = "the benches use all of it")]
#[path = "../../benches/volumes/report.rs"]
mod report;
mod secrecy;
mod spread;
#[path = "../support/mod.rs"]
mod support;
mod tank;
mod wipe;
mod zfs;
