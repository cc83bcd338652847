//! Records as the tags of logical volumes, which the command that makes one writes with it.
//!
//! Each field is a tag of its own, for the people who read `lvs -o lv_tags`: `orlop.csiName=pvc-1` is a text, and
//! `orlop.version:1` a number or a truth; what is in a field is behind another dot: `orlop.claim.name=data`. What LVM
//! allows in no tag is `&` and two hexadecimal digits a byte.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

use crate::volume::{Bytes, Record};

/// How all tags of a record begin.
const PREFIX: &str = "orlop.";

/// The mark of what is being made: it is no volume and no snapshot yet.
pub(super) const HALF: &str = "orlop-half";

/// The field that the logical volume itself has.
const SIZE: &str = "size";

/// What LVM takes in one tag.
const LONGEST: usize = 1024;

/// The tags of a record; of one of a volume without its size, which is that of its logical volume.
///
/// # Errors
/// A text that is too long for a tag.
pub(super) fn of<R: Record>(record: &R) -> Result<Vec<String>> {
    let mut fields = match serde_json::to_value(record)? {
        Value::Object(fields) => fields,
        other => anyhow::bail!("a record is an object, not {other}"),
    };
    if record.promised() > Bytes(0) {
        fields.remove(SIZE);
    }
    let mut tags = Vec::new();
    flatten(PREFIX, &fields, &mut tags);
    let long = tags.iter().find(|tag| tag.len() > LONGEST);
    ensure!(
        long.is_none(),
        "{} is too long to be kept in a tag",
        long.map_or("", |tag| &tag[..64])
    );
    Ok(tags)
}

/// Whether one of these tags is a record's.
pub(super) fn has_record<'a>(tags: impl Iterator<Item = &'a str>) -> bool {
    tags.into_iter().any(|tag| tag.starts_with(PREFIX))
}

/// The record in these tags; a volume's gets the size of its logical volume.
pub(super) fn read<'a, R: Record>(tags: impl Iterator<Item = &'a str>, size: Bytes) -> Result<R> {
    let mut fields = Map::new();
    for tag in tags {
        if let Some(tag) = tag.strip_prefix(PREFIX) {
            insert(&mut fields, tag).with_context(|| format!("the tag {PREFIX}{tag}"))?;
        }
    }
    fields.entry(SIZE).or_insert_with(|| Value::from(size.0));
    R::from_text(Value::Object(fields).to_string().as_bytes())
}

fn flatten(place: &str, fields: &Map<String, Value>, tags: &mut Vec<String>) {
    for (key, value) in fields {
        let key = escape(key);
        match value {
            Value::Object(fields) => flatten(&format!("{place}{key}."), fields, tags),
            Value::String(text) => tags.push(format!("{place}{key}={}", escape(text))),
            other => tags.push(format!("{place}{key}:{}", escape(&other.to_string()))),
        }
    }
}

fn insert(fields: &mut Map<String, Value>, tag: &str) -> Result<()> {
    let at = tag
        .find(['=', ':'])
        .context("is neither `key=text` nor `key:number`")?;
    let (path, value) = (&tag[..at], unescape(&tag[at + 1..])?);
    let value = if tag[at..].starts_with('=') {
        Value::String(value)
    } else {
        serde_json::from_str(&value)?
    };
    let (folders, key) = match path.rsplit_once('.') {
        Some((folders, key)) => (folders.split('.').collect(), key),
        None => (Vec::new(), path),
    };
    let mut place = fields;
    for folder in folders {
        place = place
            .entry(unescape(folder)?)
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut()
            .context("is a field of what is none")?;
    }
    place.insert(unescape(key)?, value);
    Ok(())
}

/// Letters, digits and what stands in names, sizes and times are kept.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |done, byte| {
        if byte.is_ascii_alphanumeric() || b"_+-/!#.:".contains(&byte) && !done.is_empty() {
            done + char::from(byte).encode_utf8(&mut [0; 4])
        } else {
            done + &format!("&{byte:02x}")
        }
    })
}

fn unescape(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'&' {
            let (digits, after) = after.split_at_checked(2).context("ends within a byte")?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits)?, 16)?);
            rest = after;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    Ok(String::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::volume::VolumeRecord;

    fn record() -> VolumeRecord {
        VolumeRecord::from_text(
            r#"{"version": 1, "csiName": "Ein Käse, zwei & drei", "size": 4194304, "access": "mount", "layout": "device",
                "filesystem": "ext4", "source": {"volume": "pool/one"}, "wishes": {"wipe": "zero"},
                "created": "2026-11-24T08:00:00.5Z", "claim": {"name": "12", "namespace": ""}, "ephemeral": true}"#
                .as_bytes(),
        )
        .expect("it is one")
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let tags = of(&record()).expect("it is short");

        let read: VolumeRecord = read(
            tags.iter().map(String::as_str).chain(["theirs"]),
            Bytes(4_194_304),
        )
        .expect("we wrote it");

        assert_eq!(read, record());
    }

    #[test]
    fn people_can_read_it() {
        let tags = of(&record()).expect("it is short");

        for tag in [
            "orlop.version:1",
            "orlop.csiName=Ein&20K&c3&a4se&2c&20zwei&20&26&20drei",
            "orlop.source.volume=pool/one",
            "orlop.claim.name=12",
            "orlop.ephemeral:true",
        ] {
            assert!(tags.iter().any(|is| is == tag), "{tag}: {tags:?}");
        }
    }

    #[test]
    fn those_of_each_release_are_read_and_written_again_alike() {
        let kept = include_str!("../../../tests/fixtures/records/v1/lvm.tags").trim_end();
        let same = include_str!("../../../tests/fixtures/records/v1/volumes/shop/volume.json");
        let same = VolumeRecord::from_text(same.as_bytes()).expect("it is one");

        let read: VolumeRecord = read(kept.split(','), same.size).expect("a release wrote it");
        let mut tags = of(&same).expect("it is short");

        tags.sort_unstable();
        assert_eq!(read, same);
        assert_eq!(tags.join(","), kept);
    }

    #[test]
    fn what_no_tag_can_hold_is_refused() {
        let mut long = record();
        long.csi_name = "x".repeat(LONGEST);

        assert!(of(&long).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_escaped_to_what_lvm_takes(text: String) {
            let escaped = escape(&text);

            prop_assert!(escaped.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+.-/=!:&#".contains(&byte)));
            prop_assert_eq!(unescape(&escaped).expect("we wrote it"), text);
        }
    }
}
