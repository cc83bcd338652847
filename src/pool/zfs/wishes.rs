//! The properties of datasets and zvols that a class may set.

use serde::Deserialize;

use crate::volume::{Bytes, Class, Error, Layout, Result};

/// What a class may ask of a ZFS pool: ZFS's own properties, by their own names, and whether space is reserved.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wishes {
    compression: Option<String>,
    sync: Option<String>,
    logbias: Option<String>,
    atime: Option<String>,
    primarycache: Option<String>,
    secondarycache: Option<String>,
    recordsize: Option<String>,
    volblocksize: Option<String>,
    reserve: Option<String>,
}

/// Values of one property, all that ZFS has.
const VALUES: [(&str, &[&str]); 7] = [
    (
        "compression",
        &[
            "on",
            "off",
            "lz4",
            "zstd",
            "zstd-fast",
            "gzip",
            "zle",
            "lzjb",
        ],
    ),
    ("sync", &["standard", "always", "disabled"]),
    ("logbias", &["latency", "throughput"]),
    ("atime", &["on", "off"]),
    ("primarycache", &["all", "none", "metadata"]),
    ("secondarycache", &["all", "none", "metadata"]),
    ("reserve", &["true", "false"]),
];

/// What can be changed of a tree; of a device those in front.
const MODIFIABLE: [&str; 7] = [
    "compression",
    "sync",
    "logbias",
    "primarycache",
    "secondarycache",
    "atime",
    "recordsize",
];
const OF_DEVICES: usize = 5;

/// The block size of zvols, if the class says none: ZFS's default of later releases.
const BLOCK: Bytes = Bytes(16 << 10);

impl Wishes {
    /// The wishes of a class for a volume of this layout.
    ///
    /// # Errors
    /// `Invalid`: an unknown key or value, or one that has no meaning for this layout.
    pub(super) fn of(class: &Class, layout: Layout) -> Result<Self> {
        let wishes: Self = class.wishes.read()?;
        for (key, values) in VALUES {
            let Some(value) = wishes.value(key) else {
                continue;
            };
            let leveled = key == "compression" && is_leveled(value);
            if !values.contains(&value) && !leveled {
                return Err(Error::Invalid(format!(
                    "parameters: {key}: {value:?} is none of {}",
                    values.join(", ")
                )));
            }
        }
        let tree = layout == Layout::Tree;
        if !tree && wishes.atime.is_some() {
            return Err(Error::Invalid(
                "parameters: atime: only trees have one; of a filesystem on a device say it by a mount option".into(),
            ));
        }
        for (key, allowed, most) in [
            ("recordsize", tree, Bytes::MIB),
            ("volblocksize", !tree, Bytes(128 << 10)),
        ] {
            let Some(value) = wishes.value(key) else {
                continue;
            };
            let size: Bytes = value
                .parse()
                .map_err(|error| Error::Invalid(format!("parameters: {key}: {error}")))?;
            if !allowed || !size.0.is_power_of_two() || size < Bytes(512) || size > most {
                let of = if key == "recordsize" {
                    "trees"
                } else {
                    "devices"
                };
                return Err(Error::Invalid(format!(
                    "parameters: {key}: only {of} have one, a power of two from 512 to {most}"
                )));
            }
        }
        Ok(wishes)
    }

    /// The keys of what can be changed of a volume of this layout while it is used.
    pub(super) fn modifiable(layout: Layout) -> &'static [&'static str] {
        match layout {
            Layout::Tree => &MODIFIABLE,
            Layout::Image | Layout::Device => &MODIFIABLE[..OF_DEVICES],
        }
    }

    /// The block size of a zvol.
    pub(super) fn block(&self) -> Bytes {
        let told = self.volblocksize.as_deref();
        told.and_then(|size| size.parse().ok()).unwrap_or(BLOCK)
    }

    /// Whether the volume's space is kept for it.
    pub(super) fn reserves(&self) -> bool {
        self.reserve.as_deref() == Some("true")
    }

    /// The properties that a volume is made with; a clone has its origin's block size.
    pub(super) fn properties(&self, clone: bool) -> Vec<String> {
        let plain = VALUES.iter().map(|(key, _)| *key);
        let keys = plain.filter(|key| *key != "reserve").chain(["recordsize"]);
        let mut properties: Vec<_> = keys
            .filter_map(|key| Some(format!("{key}={}", number(self.value(key)?))))
            .collect();
        if let (Some(size), false) = (&self.volblocksize, clone) {
            properties.push(format!("volblocksize={}", number(size)));
        }
        properties
    }

    fn value(&self, key: &str) -> Option<&str> {
        match key {
            "compression" => &self.compression,
            "sync" => &self.sync,
            "logbias" => &self.logbias,
            "atime" => &self.atime,
            "primarycache" => &self.primarycache,
            "secondarycache" => &self.secondarycache,
            "recordsize" => &self.recordsize,
            "volblocksize" => &self.volblocksize,
            "reserve" => &self.reserve,
            _ => &None,
        }
        .as_deref()
    }
}

/// A size as ZFS reads it, anything else as it is.
fn number(value: &str) -> String {
    match value.parse::<Bytes>() {
        Ok(size) => size.0.to_string(),
        Err(_) => value.to_owned(),
    }
}

/// `gzip-1` to `gzip-9`, `zstd-1` to `zstd-19`.
fn is_leveled(value: &str) -> bool {
    let level = |most: u8, digits: &str| {
        digits
            .parse()
            .is_ok_and(|level: u8| (1..=most).contains(&level))
    };
    match value.split_once('-') {
        Some(("gzip", digits)) => level(9, digits),
        Some(("zstd", digits)) => level(19, digits),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Access, Wishes as Asked};

    fn of(layout: Layout, pairs: &[(&str, &str)]) -> Result<Wishes> {
        let wishes: Asked = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let class = Class {
            pool: None,
            access: Access::Mount,
            filesystem: None,
            layout: None,
            require_quota: false,
            encryption: None,
            wishes,
        };
        Wishes::of(&class, layout)
    }

    #[test]
    fn properties_are_passed_on_by_their_own_names() {
        let wishes = of(
            Layout::Tree,
            &[
                ("compression", "zstd-9"),
                ("recordsize", "16KiB"),
                ("reserve", "true"),
            ],
        );

        let wishes = wishes.expect("ZFS has all of them");
        assert_eq!(
            wishes.properties(false),
            ["compression=zstd-9", "recordsize=16384"]
        );
        assert!(wishes.reserves());
    }

    #[test]
    fn a_value_that_zfs_has_not_is_refused() {
        for (layout, key, value) in [
            (Layout::Tree, "compression", "best"),
            (Layout::Tree, "compression", "gzip-10"),
            (Layout::Tree, "sync", "sometimes"),
            (Layout::Tree, "recordsize", "3000"),
            (Layout::Tree, "volblocksize", "8KiB"),
            (Layout::Device, "recordsize", "8KiB"),
            (Layout::Device, "volblocksize", "1MiB"),
            (Layout::Device, "atime", "off"),
            (Layout::Device, "mountpoint", "/"),
        ] {
            let error = of(layout, &[(key, value)]).expect_err("it is none");

            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
