//! What people ask of the cache, beside pulling: to look at it, to fetch ahead, to take an image from a file.

pub mod admin;
pub mod import;
pub mod prefetch;
