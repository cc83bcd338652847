//! Requests become nouns here: all validation, and nothing else.

mod capability;
mod controller;
mod node;
mod parameters;

use std::path::{Component, PathBuf};

pub(super) use controller::{
    TOKEN, capacity_range, create_snapshot, create_volume, expand, get_capacity, list_snapshots,
    modify, page, validate,
};
pub(super) use node::{Publication, health_at, publish, stage, unpublish, unstage, volume_at};

use super::proto;
use crate::names::TOPOLOGY_NODE;
use crate::volume::{Error, PoolName, Result, SnapshotId, VolumeId};

/// What CSI allows in a string unless it says otherwise (CSI 1.13, "Size Limits").
const LONGEST_STRING: usize = 128;
/// What the kernel allows in a path.
const LONGEST_PATH: usize = 4095;

/// The name that a caller gives a volume or a snapshot.
fn name(text: String, field: &str) -> Result<String> {
    if text.is_empty() {
        return Err(Error::Invalid(format!("{field} is missing: give one")));
    }
    if text.len() > LONGEST_STRING {
        let length = text.len();
        return Err(Error::Invalid(format!(
            "{field} has {length} bytes: give one of at most {LONGEST_STRING}"
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::Invalid(format!(
            "{field} {text:?} has control characters: leave them out"
        )));
    }
    Ok(text)
}

/// The id of a volume. One that we never could have given is of a volume that does not exist.
pub(crate) fn volume_id(text: &str) -> Result<VolumeId> {
    if text.is_empty() {
        return Err(Error::Invalid(
            "volume_id is missing: give the id that CreateVolume answered".into(),
        ));
    }
    text.parse()
        .map_err(|_| Error::NotFound(format!("volume {}", short(text))))
}

/// Which volumes' usage is asked for: those after an id, and at most how many.
pub(super) fn usage_page(
    wire: &proto::inspection::ListUsageRequest,
) -> Result<(Option<VolumeId>, usize)> {
    let after = (!wire.after.is_empty()).then(|| volume_id(&wire.after));
    let most = match wire.most {
        0 => usize::MAX,
        most => most as usize,
    };
    Ok((after.transpose()?, most))
}

/// What is to be purged: the pool, and the name of what is stuck in it.
pub(super) fn purge(wire: proto::inspection::PurgeRequest) -> Result<(PoolName, String)> {
    let pool = wire
        .pool
        .parse()
        .map_err(|_| Error::NotFound(format!("pool {}", short(&wire.pool))))?;
    if wire.name.is_empty() || wire.name.contains('/') || wire.name.starts_with('.') {
        return Err(Error::Invalid(
            "name is no leftover's: give one that ListLeftovers answered".into(),
        ));
    }
    Ok((pool, wire.name))
}

/// The id of a snapshot. One that we never could have given is of a snapshot that does not exist.
pub(crate) fn snapshot_id(text: &str) -> Result<SnapshotId> {
    if text.is_empty() {
        return Err(Error::Invalid(
            "snapshot_id is missing: give the id that CreateSnapshot answered".into(),
        ));
    }
    text.parse()
        .map_err(|_| Error::NotFound(format!("snapshot {}", short(text))))
}

/// A path of the caller's: absolute, and nothing in it that leads elsewhere than it says.
fn path(text: &str, field: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    // Components leave out what is written twice or as `.`: only a path that reads the same is as plain as it looks.
    let as_written = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
    if text.is_empty() {
        return Err(Error::Invalid(format!(
            "{field} is missing: give an absolute path"
        )));
    }
    if text.len() > LONGEST_PATH || text.contains('\0') {
        return Err(Error::Invalid(format!(
            "{field} is too long or has a NUL in it: give a path of at most {LONGEST_PATH} bytes"
        )));
    }
    if !path.is_absolute()
        || path.parent().is_none()
        || !as_written
        || !path.components().all(plain)
    {
        let text = short(text);
        return Err(Error::Invalid(format!(
            "{field} {text} is not a plain absolute path: leave out `.`, `..` and `//`"
        )));
    }
    Ok(path)
}

/// Whether a topology allows this node.
fn allows(topology: &proto::Topology, node: &str) -> bool {
    topology
        .segments
        .iter()
        .all(|(key, value)| key == TOPOLOGY_NODE && value == node)
}

/// So much of a caller's text as fits in a message.
fn short(text: &str) -> String {
    let start: String = text.chars().take(64).collect();
    if start.len() == text.len() {
        format!("{text:?}")
    } else {
        format!("{start:?}…")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for bad in [
            "",
            "some/path",
            "/",
            "/a/../b",
            "/a/./b",
            "/a//b",
            "/a/",
            "/a\0b",
        ] {
            assert!(
                matches!(path(bad, "target_path"), Err(Error::Invalid(_))),
                "{bad:?}"
            );
        }
        assert!(path("/var/lib/kubelet/pods/x/mount", "target_path").is_ok());
    }

    proptest! {
        #[test]
        fn an_accepted_path_reads_as_it_was_written(text in "[/.a]{0,12}") {
            if let Ok(path) = path(&text, "target_path") {
                prop_assert_eq!(path.to_str(), Some(&*text));
                prop_assert!(text.split('/').all(|part| part != ".."), "{}", text);
            }
        }

        #[test]
        fn no_message_repeats_a_huge_id(text in "[a-z!]{200,2000}") {
            let error = volume_id(&text).expect_err("it is too long for an id");

            prop_assert!(error.to_string().len() < 200);
        }
    }

    proptest! {
        // Any bytes that decode are a request that somebody can send.
        #[test]
        fn no_request_makes_the_parser_panic(bytes: Vec<u8>) {
            use prost::Message;

            let _ = proto::CreateVolumeRequest::decode(&*bytes).map(|wire| create_volume(wire, "node-1").map(drop));
            let _ = proto::GetCapacityRequest::decode(&*bytes).map(|wire| get_capacity(wire, "node-1").map(drop));
            let _ = proto::NodePublishVolumeRequest::decode(&*bytes).map(|wire| publish(wire).map(drop));
            let _ = proto::NodeUnpublishVolumeRequest::decode(&*bytes).map(|wire| unpublish(&wire).map(drop));
            let _ = proto::NodeStageVolumeRequest::decode(&*bytes).map(|wire| stage(wire).map(drop));
        }

        #[test]
        fn an_accepted_volume_is_what_was_asked_for(
            name in "\\PC{0,140}", required: i64, limit: i64, mode in -1..9i32, fs_type in "(ext4|xfs|btrfs|zfs|)",
            flag in "[a-z=,]{0,8}", key in "(pool|layout|size|poool)", value in "(tree|image|default|)",
        ) {
            let wire = wish(&name, (required, limit), mode, &fs_type, &flag, (&key, &value));

            if let Ok(spec) = create_volume(wire, "node-1") {
                prop_assert_eq!(&spec.csi_name, &name);
                prop_assert!(!name.is_empty() && name.len() <= LONGEST_STRING);
                prop_assert!(required >= 0 && limit >= 0 && (limit == 0 || required <= limit));
                prop_assert_eq!(spec.class.filesystem.map_or("", |is| is.name()), &*fs_type);
                prop_assert!([1, 2, 6, 7].contains(&mode));
                prop_assert!(key != "size");
                // What no kind of pool knows is kept for the pool to refuse.
                prop_assert_eq!(spec.class.wishes.is_empty(), key != "poool");
            }
        }
    }

    fn wish(
        name: &str,
        (required_bytes, limit_bytes): (i64, i64),
        mode: i32,
        fs_type: &str,
        flag: &str,
        (key, value): (&str, &str),
    ) -> proto::CreateVolumeRequest {
        use proto::volume_capability::{AccessMode, AccessType, MountVolume};
        let mount = MountVolume {
            fs_type: fs_type.to_owned(),
            mount_flags: vec![flag.to_owned()],
            volume_mount_group: String::new(),
        };
        proto::CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(proto::CapacityRange {
                required_bytes,
                limit_bytes,
            }),
            volume_capabilities: vec![proto::VolumeCapability {
                access_mode: Some(AccessMode { mode }),
                access_type: Some(AccessType::Mount(mount)),
            }],
            parameters: [(key.to_owned(), value.to_owned())].into(),
            ..Default::default()
        }
    }
}
