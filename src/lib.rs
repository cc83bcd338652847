//! Orlop turns the disks of a node into persistent volumes: a CSI driver in one binary, without a database.
//!
//! # The house
//!
//! Five layers, one folder each, and each looks only down (`tests/layering.rs`):
//!
//! | layer | what it is for |
//! |---|---|
//! | [`cli`] | people and `main`: parses flags, puts the parts together |
//! | [`csi`] | the wire: requests become nouns, nouns become replies; no rules, no I/O |
//! | [`driver`] | the verbs: order, locks, idempotency, written once for all pools |
//! | [`pool`] | where volumes live: one kind of storage each, behind one blocking trait |
//! | [`host`] | the machine: processes, mounts, loop devices, and all unsafe code |
//! | [`volume`] | the nouns: ids, sizes, specifications, records, errors; pure |
//!
//! Beside them stand [`cluster`], the router, which speaks the same wire upward and downward; [`enrol`], by which nodes get
//! their certificates from it; [`layers`], the layer cache, which shares only start-up, logging and shutdown with the rest;
//! and [`docker`], the Docker volume plugin, which reaches a node only as the command line does: by its socket
//! ([`client`]). Between machines our processes trust only what [`tls`] says.
//!
//! # The walk of a volume
//!
//! 1. `csi/controller.rs` takes a `CreateVolumeRequest`.
//! 2. `csi/request/controller.rs` checks all of it and makes it a [`volume::VolumeSpec`].
//! 3. [`driver::Driver::change`] takes the locks of the volume and of its source, or answers ABORTED at once, and runs
//!    the rest in one blocking closure: a caller that hangs up leaves nothing half done.
//! 4. `driver/volumes.rs` looks whether the volume is there: if it is what was asked for it is the answer, if it is
//!    another, that is a conflict.
//! 5. `pool/folders/verbs.rs` makes the folder of the volume aside, with its record in it, and renames it into place: the one
//!    step in which it begins to exist.
//! 6. `host/folder.rs` makes the system calls, each announced to a [`host::gate::Gate`], by which the crash tests cut the
//!    machine off after any of them.
//!
//! # Where the truth is
//!
//! Beside the data. A record is a JSON file that is renamed into place together with what it describes; what is mounted
//! is asked of the kernel, one path at a time; everything in memory can be thrown away. To start is to sweep what was
//! half-made, and to look.
//!
//! # To add a pool kind
//!
//! Implement [`pool::Pool`], give it a variant in [`config::Kind`] and an arm in [`pool::open`], and add it to the list in
//! `tests/pools/`, whose one suite all kinds pass.

pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
pub mod csi;
pub mod docker;
pub mod driver;
pub mod enrol;
pub mod host;
pub mod layers;
pub mod names;
pub mod pool;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod volume;
