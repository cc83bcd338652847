//! The machine: the only place that starts processes, mounts, or holds unsafe code.

pub mod clone;
pub mod command;
pub mod gate;
pub mod progress;
pub mod subvolume;
pub mod tree;
