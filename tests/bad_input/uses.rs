//! Uses that no volume is for, or not this one.

use orlop::csi::proto::volume_capability::access_mode::Mode;
use orlop::csi::proto::volume_capability::{AccessType, BlockVolume, MountVolume};
use orlop::csi::proto::{
    CreateVolumeRequest, GetCapacityRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    ValidateVolumeCapabilitiesRequest, VolumeCapability,
};
use tonic::Code::InvalidArgument;

use crate::calls::{self, MIB, text};
use crate::{House, call};

/// Capabilities that no volume can be used by, and a word of why not.
fn impossible() -> Vec<(VolumeCapability, &'static str)> {
    let mount = |fs_type: &str, flags: &[&str]| MountVolume {
        fs_type: fs_type.to_owned(),
        mount_flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        ..Default::default()
    };
    let mounted = |mount| calls::capability(AccessType::Mount(mount), Mode::SingleNodeWriter);
    let of_mode = |mode| {
        [
            AccessType::Mount(MountVolume::default()),
            AccessType::Block(BlockVolume {}),
        ]
        .map(|access| calls::capability(access, mode))
    };
    let mut all = Vec::new();
    for mode in [
        Mode::MultiNodeReaderOnly,
        Mode::MultiNodeSingleWriter,
        Mode::MultiNodeMultiWriter,
    ] {
        all.extend(of_mode(mode).map(|one| (one, "use ReadWriteOnce or ReadWriteOncePod")));
    }
    all.extend(of_mode(Mode::Unknown).map(|one| (one, "access_mode is missing")));
    let mut unheard = calls::mounted();
    unheard.access_mode.as_mut().expect("it has one").mode = 4711;
    let group = MountVolume {
        volume_mount_group: "1000".into(),
        ..Default::default()
    };
    all.extend([
        (unheard, "access_mode is missing"),
        (
            VolumeCapability {
                access_mode: None,
                ..calls::mounted()
            },
            "access_mode is missing",
        ),
        (
            VolumeCapability {
                access_type: None,
                ..calls::mounted()
            },
            "say mount or block",
        ),
        (mounted(group), "volume_mount_group is not offered"),
    ]);
    for fs_type in [
        "ntfs",
        "EXT4",
        "ext4 ",
        "../ext4",
        "-t",
        "ext4\0",
        "тфс",
        &"x".repeat(1 << 20),
    ] {
        all.push((mounted(mount(fs_type, &[])), "use ext4, xfs or btrfs"));
    }
    for flag in [
        "bind",
        "rbind",
        "move",
        "remount",
        "remount,bind,ro",
        "shared",
        "rshared",
        "loop",
        "loop=/dev/sda",
        "subvol=/",
        "subvolid=5",
        "source=/dev/vda",
        "logdev=/dev/vda",
        "journal_path=/dev/vda",
        "errors=panic",
        "x-systemd.automount",
        "X-mount.mkdir",
        "offset=0",
        "helper=x",
        "",
        "ro,,rw",
        "=",
        "a\nb",
        "a\0b",
        "nosuid=1",
        &"x".repeat(1 << 20),
    ] {
        all.push((mounted(mount("", &[flag])), "mount option"));
    }
    all
}

#[tokio::test]
async fn a_use_that_can_not_be_is_refused() {
    let Some(house) = House::new().await else {
        return;
    };
    let mut cases = Vec::new();

    for (capability, word) in impossible() {
        let create = CreateVolumeRequest {
            volume_capabilities: vec![capability.clone()],
            ..calls::volume("new", MIB)
        };
        let second = CreateVolumeRequest {
            volume_capabilities: vec![calls::mounted(), capability.clone()],
            ..calls::volume("new", MIB)
        };
        let room = GetCapacityRequest {
            volume_capabilities: vec![capability.clone()],
            ..Default::default()
        };
        let stage = NodeStageVolumeRequest {
            volume_id: house.image.clone(),
            staging_target_path: text(&house.at.join("elsewhere")),
            volume_capability: Some(capability.clone()),
            ..Default::default()
        };
        let publish = NodePublishVolumeRequest {
            volume_capability: Some(capability.clone()),
            ..calls::publication(&house.tree, &house.staged, &house.at.join("elsewhere"))
        };
        // To say that it can not be is the answer here, and no error.
        let validate = ValidateVolumeCapabilitiesRequest {
            volume_id: house.tree.clone(),
            volume_capabilities: vec![capability],
            ..Default::default()
        };
        cases.extend([
            call!(house, controller.create_volume(create)).is(InvalidArgument, word),
            call!(house, controller.create_volume(second)).is(InvalidArgument, word),
            call!(house, controller.get_capacity(room)).is(InvalidArgument, word),
            call!(house, node.node_stage_volume(stage)).is(InvalidArgument, word),
            call!(house, node.node_publish_volume(publish)).is(InvalidArgument, word),
            call!(house, controller.validate_volume_capabilities(validate)),
        ]);
    }

    house.answers(cases).await;
}

#[tokio::test]
async fn a_use_that_is_not_this_volumes_is_refused() {
    let Some(house) = House::new().await else {
        return;
    };
    let of = |fs_type: &str, flag: Option<&str>| {
        let mount = MountVolume {
            fs_type: fs_type.to_owned(),
            mount_flags: flag.map(str::to_owned).into_iter().collect(),
            ..Default::default()
        };
        calls::capability(AccessType::Mount(mount), Mode::SingleNodeWriter)
    };
    let elsewhere = house.at.join("elsewhere");
    let stage = |id: &String, capability| NodeStageVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: text(&elsewhere),
        volume_capability: Some(capability),
        ..Default::default()
    };
    let create = |volume_capabilities| CreateVolumeRequest {
        volume_capabilities,
        ..calls::volume("new", MIB)
    };
    let without = NodePublishVolumeRequest {
        volume_capability: None,
        ..calls::publication(&house.tree, &house.staged, &elsewhere)
    };
    let validate = ValidateVolumeCapabilitiesRequest {
        volume_id: house.tree.clone(),
        ..Default::default()
    };

    house
        .answers(vec![
            call!(
                house,
                node.node_stage_volume(stage(&house.tree, calls::block()))
            )
            .is(InvalidArgument, "is a directory"),
            call!(
                house,
                node.node_stage_volume(stage(&house.device, calls::mounted()))
            )
            .is(InvalidArgument, "is a block device"),
            call!(
                house,
                node.node_stage_volume(stage(&house.image, of("xfs", None)))
            )
            .is(InvalidArgument, "holds ext4, not xfs"),
            call!(
                house,
                node.node_stage_volume(stage(&house.tree, of("", Some("data=journal"))))
            )
            .is(InvalidArgument, "use `layout: image`"),
            call!(
                house,
                node.node_stage_volume(NodeStageVolumeRequest {
                    volume_capability: None,
                    ..stage(&house.tree, calls::block())
                })
            )
            .is(InvalidArgument, "volume_capability is missing"),
            call!(house, node.node_publish_volume(without))
                .is(InvalidArgument, "volume_capability is missing"),
            call!(house, controller.create_volume(create(vec![])))
                .is(InvalidArgument, "volume_capabilities are missing"),
            call!(house, controller.validate_volume_capabilities(validate))
                .is(InvalidArgument, "volume_capabilities are missing"),
            call!(
                house,
                controller.create_volume(create(vec![calls::mounted(), calls::block()]))
            )
            .is(InvalidArgument, "contradict each other"),
            call!(
                house,
                controller.create_volume(create(vec![of("xfs", None), of("ext4", None)]))
            )
            .is(InvalidArgument, "contradict each other"),
        ])
        .await;
}
