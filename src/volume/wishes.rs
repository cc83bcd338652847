//! What a class asks of one kind of pool alone: kept as it was written, and read by the pool, strictly.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// Keys and values of a class that no pool kind but one may know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wishes(BTreeMap<String, String>);

impl Wishes {
    /// The keys that all kinds of pool know, which are no wishes.
    pub const GENERAL: [&str; 6] = [
        "pool",
        "layout",
        "requireQuota",
        "encryption",
        "size",
        "onNodeLoss",
    ];

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// These, and where `later` says something else, that.
    #[must_use]
    pub fn with(&self, later: &Self) -> Self {
        let mut both = self.0.clone();
        both.extend(later.0.clone());
        Self(both)
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads them as what a pool kind knows: a struct of texts and of types that are read from texts, which denies unknown
    /// fields.
    ///
    /// # Errors
    /// `Invalid`, naming the key that is unknown or whose value is not one.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        read(self.0.iter()).map_err(|wrong| {
            Error::Invalid(format!(
                "{wrong}; any class may also have {}",
                Self::GENERAL.join(", ")
            ))
        })
    }
}

impl FromIterator<(String, String)> for Wishes {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// Reads pairs of texts by serde; the error names the key.
pub fn read<'a, T: DeserializeOwned>(
    pairs: impl Iterator<Item = (&'a String, &'a String)>,
) -> std::result::Result<T, String> {
    let text = |value: &String| serde_json::Value::String(value.clone());
    let object: serde_json::Map<_, _> = pairs
        .map(|(key, value)| (key.clone(), text(value)))
        .collect();
    serde_path_to_error::deserialize(serde_json::Value::from(object))
        .map_err(|wrong| format!("parameters: {}: {}", wrong.path(), wrong.inner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Known {
        wipe: Option<String>,
    }

    fn wishes(key: &str) -> Wishes {
        [(key.to_owned(), "zero".to_owned())].into_iter().collect()
    }

    #[test]
    fn a_known_wish_is_read() {
        let known: Known = wishes("wipe").read().expect("it is known");

        assert_eq!(known.wipe.as_deref(), Some("zero"));
    }

    #[test]
    fn what_is_asked_later_counts() {
        let both = wishes("wipe").with(
            &[("wipe".to_owned(), "none".to_owned())]
                .into_iter()
                .collect(),
        );

        let known: Known = both.read().expect("it is known");
        assert_eq!(known.wipe.as_deref(), Some("none"));
    }

    #[test]
    fn an_unknown_one_is_told_with_those_that_there_are() {
        let error = wishes("wype").read::<Known>().expect_err("it is misspelt");

        let told = error.to_string();
        assert!(matches!(error, Error::Invalid(_)), "{told}");
        assert!(told.contains("wype") && told.contains("wipe"), "{told}");
        assert!(told.contains("layout"), "{told}");
    }
}
