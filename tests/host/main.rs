//! The machine itself, on this kernel.

mod mount_speed;
mod mounts;
mod sandbox;
mod targets;
