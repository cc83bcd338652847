//! The machine itself, on this kernel.

mod filesystems;
mod freezing;
mod image;
mod loops;
mod mount_speed;
mod mounts;
mod probes;
mod sandbox;
mod targets;
