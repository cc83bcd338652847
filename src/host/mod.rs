//! The machine: the only place that starts processes, mounts, or holds unsafe code.

pub mod command;
pub mod gate;
