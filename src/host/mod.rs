//! The machine: the only place that starts processes, mounts, or holds unsafe code.

use std::sync::Arc;

pub mod block_device;
pub mod clone;
pub mod command;
pub mod device_mapper;
pub mod encryption;
pub mod file_id;
pub mod filesystem;
pub mod folder;
pub mod freeze;
pub mod gate;
mod kernel;
pub mod loop_device;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod passing;
mod path;
pub mod pod;
pub mod probe;
pub mod progress;
pub mod quota;
pub mod space;
pub mod subvolume;
pub mod tree;
pub mod zvol;

pub use file_id::FileId;

use command::{Runner, Tools};
use gate::Gate;
use loop_device::LoopDevices;
use mount::Mounts;

/// The machine as it is handed to pools and to the driver.
#[derive(Clone)]
pub struct Host {
    /// What every change passes.
    pub gate: Gate,
    /// Starts the machine's tools.
    pub tools: Arc<dyn Runner>,
    /// Mounts and unmounts.
    pub mounts: Mounts,
    /// Attaches image files.
    pub loops: LoopDevices,
}

impl Host {
    /// This machine, with every change passing `gate`.
    pub fn new(gate: Gate) -> Self {
        Self {
            tools: Tools::new(gate.clone()),
            mounts: Mounts::new(gate.clone()),
            loops: LoopDevices::new(gate.clone()),
            gate,
        }
    }
}
