//! How the processes of a cluster get their certificates: the controllers share authorities, and sign for a node what it asks
//! for once the API server has said that it is that node.
//!
//! [`Signer`] is the controller's side, [`Applicant`] the node's. The authorities are in a Secret, so that controllers come
//! and go; the certificates of controllers are nowhere but in their memory, and the key of a node never leaves it.

mod applicant;
mod authority;
mod desk;
mod folder;
mod signer;
mod vault;

pub use self::applicant::Applicant;
pub use self::desk::Desk;
pub use self::signer::Signer;
pub use self::vault::Keeper;

/// Whom the tokens that nodes show must be meant for: one for the API server itself is not shown to us.
const AUDIENCE: &str = "orlop";
