//! What a pool tells of its state and that of its volumes: the room, how full it is, and what is wrong.

use crate::volume::Bytes;

/// The room in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// All that it has.
    pub total: Bytes,
    /// What its volumes were promised.
    pub promised: Bytes,
    /// What a new volume can get.
    pub available: Bytes,
}

/// What was deleted and could not be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Its name among what is retired.
    pub name: String,
    /// What it holds, where that can be told.
    pub bytes: Option<Bytes>,
}

/// How full a part of a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// What it is: `bytes`, `inodes`; of a thin pool `data` and `metadata`.
    pub part: &'static str,
    /// How much of it is in use, in bytes or in inodes.
    pub used: u64,
    /// How much there is.
    pub total: u64,
}

/// What a volume may use and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its limit, where it has one.
    pub total: Option<Bytes>,
    /// What it holds.
    pub used: Bytes,
    /// How many inodes it has, where that is counted.
    pub inodes: Option<u64>,
}

/// Something wrong with a pool or a volume (CSI 1.13, volume health).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How bad it is.
    pub severity: Severity,
    /// One CamelCase word for machines.
    pub reason: &'static str,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// How bad a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, but a person should look.
    Degraded,
    /// It does not work now.
    Inaccessible,
    /// Data is gone.
    DataLoss,
}

impl Fault {
    /// It works, but a person should look.
    pub fn degraded(reason: &'static str, message: String) -> Self {
        Self::new(Severity::Degraded, reason, message)
    }

    /// It does not work now.
    pub fn inaccessible(reason: &'static str, message: String) -> Self {
        Self::new(Severity::Inaccessible, reason, message)
    }

    /// Data is gone.
    pub fn data_loss(reason: &'static str, message: String) -> Self {
        Self::new(Severity::DataLoss, reason, message)
    }

    fn new(severity: Severity, reason: &'static str, message: String) -> Self {
        Self {
            severity,
            reason,
            message,
        }
    }
}
