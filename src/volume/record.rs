//! What is remembered about a volume or a snapshot, and the text that is kept of it beside the data.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::spec::{Access, Claim, Filesystem, Layout, Source, VolumeSpec};
use super::{Bytes, Volume, VolumeId, Wishes};

/// The form of record that this release writes; a newer one is refused, never guessed at.
const VERSION: u32 = 1;

/// How much of an encrypted device is in front of the data: the header of LUKS2, as large as its tools make it.
pub const HEADER: Bytes = Bytes::MIB.times(16);

/// What is stored beside a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VolumeRecord {
    /// The form of this record.
    pub version: u32,
    /// The name under which the caller made it.
    pub csi_name: String,
    /// Its size in the pool.
    pub size: Bytes,
    /// Directory or block device.
    pub access: Access,
    /// Tree, image or device.
    pub layout: Layout,
    /// The filesystem that was made in it; none in trees and block volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// The project of its tree, by which the filesystem counts and limits it, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<u32>,
    /// Where its first content came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What its class asked of the pool's kind alone.
    #[serde(default, skip_serializing_if = "Wishes::is_empty")]
    pub wishes: Wishes,
    /// What was asked of it since.
    #[serde(default, skip_serializing_if = "Wishes::is_empty")]
    pub modified: Wishes,
    /// Whether what is stored can be read only with a key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encryption: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Whose it is.
    #[serde(default)]
    pub claim: Claim,
    /// Whether it lives only as long as one pod.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
}

/// What is stored beside a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SnapshotRecord {
    /// The form of this record.
    pub version: u32,
    /// The name under which the caller made it.
    pub csi_name: String,
    /// The volume that it was taken of.
    pub volume: VolumeId,
    /// The size of that volume then: the least size of one restored from it.
    pub size: Bytes,
    /// What that volume was, which one restored from it is too.
    pub access: Access,
    /// Tree, image or device.
    pub layout: Layout,
    /// The filesystem in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// The project of its tree, by which the filesystem counts it, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<u32>,
    /// Whether its volume was encrypted, and so is it, with the same key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encryption: bool,
    /// When it was taken.
    pub created: Timestamp,
}

/// What all forms of a record have.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

/// The form that a pool gives a new volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tree, image or device.
    pub layout: Layout,
    /// The filesystem to make in it; none in trees and block volumes.
    pub filesystem: Option<Filesystem>,
    /// The least size of such a volume.
    pub least: Bytes,
    /// Its size is a multiple of this.
    pub grain: Bytes,
}

/// A record that is kept as text beside what it describes.
pub trait Record: Serialize + DeserializeOwned {
    /// The file beside the data that holds it.
    const FILE: &str;

    /// The space that is promised by it.
    fn promised(&self) -> Bytes;

    /// The text to keep: JSON, readable and mendable by hand.
    fn to_text(&self) -> String {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .expect("a record has only text keys")
    }

    /// The same in one line, for where a text is kept as a value.
    fn to_line(&self) -> String {
        serde_json::to_string(self).expect("a record has only text keys")
    }

    /// Reads what [`Record::to_text`] or [`Record::to_line`] wrote.
    ///
    /// # Errors
    /// Text that is no record, or one of a newer release.
    fn from_text(text: &[u8]) -> anyhow::Result<Self> {
        // First, for one of a newer form may have fields that nobody knows here.
        let Form { version } = serde_json::from_slice(text)?;
        anyhow::ensure!(
            version == VERSION,
            "it has version {version}, this release reads {VERSION}: run the one that wrote it, or a newer"
        );
        Ok(serde_json::from_slice(text)?)
    }
}

impl Record for VolumeRecord {
    const FILE: &str = "volume.json";

    fn promised(&self) -> Bytes {
        self.size
    }
}

impl Record for SnapshotRecord {
    const FILE: &str = "snapshot.json";

    /// Nothing: a snapshot never grows, and what it holds is gone from the free space already.
    fn promised(&self) -> Bytes {
        Bytes(0)
    }
}

impl VolumeRecord {
    /// The record of a new volume: what `spec` asks for, in the shape that its pool gives it.
    pub fn new(spec: &VolumeSpec, size: Bytes, shape: &Shape) -> Self {
        Self {
            version: VERSION,
            csi_name: spec.csi_name.clone(),
            size,
            access: spec.class.access,
            layout: shape.layout,
            filesystem: shape.filesystem,
            project: None,
            source: spec.source.clone(),
            encryption: false,
            wishes: spec.wishes(),
            modified: Wishes::default(),
            created: Timestamp::now(),
            claim: spec.claim.clone(),
            ephemeral: spec.ephemeral,
        }
    }

    /// The size that its consumer gets.
    pub fn usable(&self) -> Bytes {
        self.size.less(overhead(self.encryption, self.layout))
    }

    /// What is asked of it now.
    pub fn current_wishes(&self) -> Wishes {
        self.wishes.with(&self.modified)
    }

    /// The filesystem that its pool makes on its device, or finds there; an encrypted volume's is made when it is first
    /// staged, for only then there is a key.
    pub fn plain_filesystem(&self) -> Option<Filesystem> {
        self.filesystem.filter(|_| !self.encryption)
    }
}

impl SnapshotRecord {
    /// The record of a snapshot of `volume`, taken now.
    pub fn new(csi_name: &str, volume: &Volume) -> Self {
        let Volume { id, record } = volume;
        Self {
            version: VERSION,
            csi_name: csi_name.to_owned(),
            volume: id.clone(),
            size: record.size,
            access: record.access,
            layout: record.layout,
            filesystem: record.filesystem,
            project: None,
            encryption: record.encryption,
            created: Timestamp::now(),
        }
    }

    /// The least size that one restored from it has for its consumer.
    pub fn usable(&self) -> Bytes {
        self.size.less(overhead(self.encryption, self.layout))
    }
}

/// What encryption takes of the size of a device: the header.
pub fn overhead(encryption: bool, layout: Layout) -> Bytes {
    match layout {
        Layout::Image | Layout::Device if encryption => HEADER,
        Layout::Tree | Layout::Image | Layout::Device => Bytes(0),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// What one release wrote on this shelf.
    fn written(release: &str, shelf: &str, file: &str) -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/records");
        let entries = fs::read_dir(root.join(release).join(shelf)).expect("it is kept");
        let text = |entry: fs::DirEntry| fs::read_to_string(entry.path().join(file));
        entries
            .map(|entry| text(entry.expect("it can be listed")).expect("it is text"))
            .collect()
    }

    #[test]
    fn this_release_writes_what_all_releases_of_its_form_read() {
        let (volumes, snapshots) = (
            written("v1", "volumes", VolumeRecord::FILE),
            written("v1", "snapshots", SnapshotRecord::FILE),
        );

        for text in &volumes {
            let record = VolumeRecord::from_text(text.as_bytes()).expect(text);
            assert_eq!(&record.to_text(), text);
        }
        for text in &snapshots {
            let record = SnapshotRecord::from_text(text.as_bytes()).expect(text);
            assert_eq!(&record.to_text(), text);
        }
        // Of each field there is one that has it; ZFS keeps that in one line.
        let all: serde_json::Value = volumes
            .iter()
            .map(|text| serde_json::from_str(text).expect("it is JSON"))
            .max_by_key(|value: &serde_json::Value| value.as_object().map(serde_json::Map::len))
            .expect("there are some");
        let mut record: VolumeRecord = serde_json::from_value(all).expect("it is one");
        let line = include_str!("../../tests/fixtures/records/v1/zfs.property");
        assert_eq!(record.to_line(), line.trim_end());
        assert!(record.project.take().is_some() && record.source.take().is_some());
        assert!(record.filesystem.is_some() && record.encryption && record.ephemeral);
        assert!(!record.wishes.is_empty() && !record.modified.is_empty());
    }

    #[test]
    fn one_of_a_newer_release_is_refused_by_its_number_whatever_is_in_it() {
        let newer = r#"{"version": 2, "csiName": "data", "colour": "blue"}"#;

        let error = VolumeRecord::from_text(newer.as_bytes()).expect_err("it is unknown");

        let error = format!("{error:#}");
        assert!(
            error.contains("it has version 2, this release reads 1"),
            "{error}"
        );
    }
}
