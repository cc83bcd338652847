//! What an image is called and what it is made of, wherever it lies; nothing here knows of a cache.

pub mod archive;
pub mod content;
pub mod digest;
pub mod name;
