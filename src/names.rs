//! The names that Orlop is known by.

/// The name of the CSI driver.
pub const DRIVER: &str = "csi.orlop.dev";
/// The topology key whose value is a node's name.
pub const TOPOLOGY_NODE: &str = "topology.orlop.dev/node";
