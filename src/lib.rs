//! Orlop turns the disks of a node into persistent volumes.

pub mod cli;
pub mod config;
pub mod csi;
pub mod driver;
pub mod host;
pub mod names;
pub mod pool;
pub mod shutdown;
pub mod telemetry;
pub mod volume;
