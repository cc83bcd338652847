//! A secret: bytes that no log, error or debugger's print shows.

use std::collections::BTreeMap;
use std::fmt;

use super::{Error, Result};
use crate::names::ENCRYPTION_KEY;

/// The least length of a key: it stands for itself, and is not stretched as a password would be.
const LEAST: usize = 32;

/// The greatest length of a key.
const MOST: usize = 4096;

/// Bytes that are told to nobody but who needs them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The key of an encrypted volume among the secrets of a call, if they have one.
    ///
    /// # Errors
    /// `Invalid`, when it is too short to be one.
    pub fn key_among(secrets: &mut BTreeMap<String, String>) -> Result<Option<Self>> {
        secrets
            .remove(ENCRYPTION_KEY)
            .map(|text| Self::key(text.into_bytes()))
            .transpose()
    }

    /// These bytes as the key of an encrypted volume.
    ///
    /// # Errors
    /// `Invalid`, when they are too few or too many.
    pub fn key(bytes: Vec<u8>) -> Result<Self> {
        if (LEAST..=MOST).contains(&bytes.len()) {
            return Ok(Self(bytes));
        }
        Err(Error::Invalid(format!(
            "{ENCRYPTION_KEY} has {} bytes: give {LEAST} to {MOST} random ones, as `openssl rand -base64 32` makes them",
            bytes.len()
        )))
    }

    /// The bytes themselves.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(key: &str) -> Result<Option<Secret>> {
        Secret::key_among(&mut [(ENCRYPTION_KEY.to_owned(), key.to_owned())].into())
    }

    #[test]
    fn a_key_is_taken_from_the_secrets_and_not_shown() {
        let text = "0123456789abcdef0123456789abcdef";

        let key = among(text)
            .expect("it is long enough")
            .expect("it is there");

        assert_eq!(key.bytes(), text.as_bytes());
        assert_eq!(format!("{:?}", Some(key)), "Some(redacted)");
        assert_eq!(
            Secret::key_among(&mut BTreeMap::new()).expect("none is fine"),
            None
        );
    }

    #[test]
    fn what_is_too_short_for_a_key_is_refused_and_not_shown() {
        for text in ["", "hunter2", "0123456789abcdef0123456789abcde"] {
            let told = among(text).expect_err("it is too short").to_string();

            assert!(told.contains(ENCRYPTION_KEY), "{told}");
            assert!(text.is_empty() || !told.contains(text), "{told}");
        }
    }
}
