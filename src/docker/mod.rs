//! The Docker volume plugin: Docker's calls on one side, a client of the node's socket on the other.
//!
//! It keeps nothing. Which volumes are Docker's is in their records, and how often each is mounted, and for whom, is in
//! the kernel's mounts: a restart of the plugin, of the engine or of the node changes neither, and that of the machine
//! ends both.

mod mounts;
mod name;
mod options;
mod places;
mod serve;
mod turns;
mod volumes;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::client::Staging;
use crate::csi::endpoint::Endpoint;
use places::Places;
use turns::Turns;

pub use serve::serve;

/// The plugin of one engine.
#[derive(Debug)]
pub struct Plugin {
    node: Endpoint,
    staging: Staging,
    /// Below it volumes are mounted: POOL/NAME/MOUNT-ID/NUMBER.
    directory: PathBuf,
    /// Where the key of encrypted volumes is, if they may be.
    key_file: Option<PathBuf>,
    places: Places,
    turns: Turns,
}

/// What Docker asks: the fields of all its calls.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Call {
    name: String,
    #[serde(rename = "ID")]
    id: String,
    opts: Option<BTreeMap<String, String>>,
}

impl Plugin {
    /// The plugin over the node that serves at `node`; it mounts below `directory`, and stages below `staging`, those
    /// that are encrypted with the key in `key_file`.
    ///
    /// # Errors
    /// The directory can not be made.
    pub fn new(
        node: Endpoint,
        staging: PathBuf,
        directory: &Path,
        key_file: Option<PathBuf>,
    ) -> Result<Self> {
        let making = || {
            format!(
                "making {}: name another directory by --mounts",
                directory.display()
            )
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(directory)
            .with_context(making)?;
        // The node refuses a path that leads elsewhere than it says, such as one through /var/run.
        let directory = fs::canonicalize(directory).with_context(making)?;
        Ok(Self {
            node,
            staging: Staging::at(staging),
            directory,
            key_file,
            places: Places::default(),
            turns: Turns::default(),
        })
    }
}
