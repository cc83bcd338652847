//! Directory trees that containers wrote: copied, measured, made durable and removed without ever leaving them.
//!
//! Whoever wrote a tree may be rearranging it while it is walked. So a name is opened once, as what it is then, and
//! everything after that happens to the open descriptor; no symlink is followed and no mount is entered.

mod attributes;
mod copy;
mod node;
mod remove;
mod size;
mod trail;

pub use copy::copy;
pub use remove::remove;
pub use size::{size, sync};
