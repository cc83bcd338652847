//! The wire: what CSI clients and the kubelet say and hear, and the sockets they say it on.

pub mod proto;
