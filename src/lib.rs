//! Orlop turns the disks of a node into persistent volumes.

pub mod csi;
pub mod host;
pub mod names;
pub mod shutdown;
pub mod telemetry;
pub mod volume;
