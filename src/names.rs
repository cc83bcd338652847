//! The names that Orlop is known by.

/// The name of the CSI driver.
pub const DRIVER: &str = "csi.orlop.dev";
/// The topology key whose value is a node's name.
pub const TOPOLOGY_NODE: &str = "topology.orlop.dev/node";
/// The namespace of the claims of Docker's volumes: no namespace of Kubernetes can have this name, so that neither of the
/// two takes the other's volumes for its own.
pub const DOCKER: &str = "(docker)";
/// The keys of parameters and of a volume's context that say whose it is: those of Kubernetes.
pub const CLAIM_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";
/// See [`CLAIM_NAMESPACE`].
pub const CLAIM_NAME: &str = "csi.storage.k8s.io/pvc/name";
/// The key by which the kubelet, and a volume's context, say that the volume is written in the pod itself.
pub const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// The key, among the secrets of a call, of an encrypted volume's key.
pub const ENCRYPTION_KEY: &str = "encryption-key";
