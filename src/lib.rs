//! Orlop turns the disks of a node into persistent volumes.

pub mod host;
pub mod volume;
