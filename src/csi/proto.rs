//! The messages, clients and servers that `build.rs` makes from `proto/`; a message with secrets prints them as `redacted`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code is not held to the lints of this crate"
)]

tonic::include_proto!("csi.v1");
include!(concat!(env!("OUT_DIR"), "/redaction.rs"));

/// All of `proto/` with its imports, as an encoded `FileDescriptorSet` that keeps the extension options.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The paths of all methods that there are, such as `/csi.v1.Identity/Probe`.
pub const METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// What the command line asks beside CSI.
pub mod inspection {
    tonic::include_proto!("orlop.v1");
}

/// How a plugin makes itself known to the kubelet.
pub mod pluginregistration {
    tonic::include_proto!("pluginregistration");
}
