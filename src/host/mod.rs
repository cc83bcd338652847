//! The machine: the only place that starts processes, mounts, or holds unsafe code.

pub mod clone;
pub mod command;
pub mod file_id;
pub mod filesystem;
pub mod freeze;
pub mod gate;
pub mod progress;
pub mod subvolume;
pub mod tree;
mod kernel;
pub mod loop_device;
pub mod mount;
pub mod namespace;
mod path;

pub use file_id::FileId;
