//! How far a blob has come, and why a chunk of it may be refused.

use std::io;
use std::sync::Arc;

use super::bitmap::Bitmap;
use crate::layers::image::digest::{ChunkSum, Digest};

/// How far a blob has come.
#[derive(Debug)]
pub struct Progress {
    /// The chunks that are in the file and verified.
    pub have: Bitmap,
    /// The same chunks in the order in which they came.
    pub order: Vec<usize>,
    /// The sums by which chunks are verified, as far as they are known.
    pub sums: Vec<Option<ChunkSum>>,
    /// What became of it.
    pub standing: Standing,
}

/// What became of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Chunks are still coming.
    Arriving,
    /// All bytes are here and are those that the digest names.
    Whole,
    /// No further chunk will come, for this reason.
    Broken(Arc<str>),
}

/// Why a chunk was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Its bytes are not those of its sum or its length is wrong: whoever sent it is not to be believed.
    #[error("chunk {0} has wrong bytes")]
    Wrong(usize),
    /// All chunks are here and together they are not the blob: whoever vouched for the sums is not to be believed.
    #[error("the bytes are not those that {0} names")]
    NotTheBlob(Digest),
    /// The disk did not take it.
    #[error("the chunk could not be stored")]
    Disk(#[from] io::Error),
}
