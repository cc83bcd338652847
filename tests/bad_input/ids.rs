//! Ids of things that never were, and names that no file could have.

use orlop::csi::proto::{
    ControllerListVolumeHealthRequest, ControllerModifyVolumeRequest,
    ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateSnapshotRequest,
    CreateVolumeRequest, DeleteSnapshotRequest, DeleteVolumeRequest, GetSnapshotRequest,
    ListSnapshotsRequest, ListVolumesRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest,
};
use tonic::Code::{Aborted, AlreadyExists, InvalidArgument, NotFound, Ok, Unimplemented};

use crate::calls::{self, MIB, text};
use crate::every::{about_a_volume, taking_back};
use crate::{House, call, huge, odd_ids};

#[tokio::test]
async fn a_volume_that_never_was_is_not_found() {
    let Some(house) = House::new().await else {
        return;
    };
    let mut cases = Vec::new();

    for id in odd_ids() {
        cases.extend(
            about_a_volume(&house, &id)
                .into_iter()
                .map(|case| case.is(NotFound, "does not exist")),
        );
    }
    cases.extend(
        about_a_volume(&house, "")
            .into_iter()
            .map(|case| case.is(InvalidArgument, "is missing")),
    );

    house.answers(cases).await;
}

#[tokio::test]
async fn what_is_gone_already_is_taken_back_without_a_change() {
    let Some(house) = House::new().await else {
        return;
    };
    let mut cases = Vec::new();

    for id in odd_ids() {
        cases.extend(taking_back(&house, &id));
    }
    let path = text(&house.at.join("elsewhere"));
    let unpublish = NodeUnpublishVolumeRequest {
        volume_id: String::new(),
        target_path: path.clone(),
    };
    let unstage = NodeUnstageVolumeRequest {
        volume_id: String::new(),
        staging_target_path: path,
    };
    cases.extend([
        call!(
            house,
            controller.delete_volume(DeleteVolumeRequest::default())
        )
        .is(InvalidArgument, "volume_id is missing"),
        call!(
            house,
            controller.delete_snapshot(DeleteSnapshotRequest::default())
        )
        .is(InvalidArgument, "snapshot_id is missing"),
        call!(house, node.node_unpublish_volume(unpublish))
            .is(InvalidArgument, "volume_id is missing"),
        call!(house, node.node_unstage_volume(unstage)).is(InvalidArgument, "volume_id is missing"),
    ]);

    house.answers(cases).await;
}

#[tokio::test]
async fn a_snapshot_that_never_was_is_not_found() {
    let Some(house) = House::new().await else {
        return;
    };
    let mut cases = Vec::new();

    let odd = [
        "default/tree@none",
        "default/none@snapshot",
        "default/tree@",
        "@snapshot",
        "default/tree@../x",
        "default/image@snapshot",
    ];
    let odd = odd.into_iter().map(str::to_owned);
    for id in odd.chain(odd_ids().into_iter().filter(|id| *id != house.snapshot)) {
        let restore = CreateVolumeRequest {
            volume_content_source: Some(calls::of_snapshot(&id)),
            ..calls::volume("restored", MIB)
        };
        let get = GetSnapshotRequest {
            snapshot_id: id,
            ..Default::default()
        };
        cases.extend([
            call!(house, controller.get_snapshot(get)).is(NotFound, "does not exist"),
            call!(house, controller.create_volume(restore)).is(NotFound, "does not exist"),
        ]);
    }
    let get = call!(
        house,
        controller.get_snapshot(GetSnapshotRequest::default())
    );
    cases.push(get.is(InvalidArgument, "snapshot_id is missing"));

    house.answers(cases).await;
}

#[tokio::test]
async fn a_name_that_is_none_is_refused() {
    let Some(house) = House::new().await else {
        return;
    };
    let snapshot = |name: &str| CreateSnapshotRequest {
        name: name.to_owned(),
        source_volume_id: house.tree.clone(),
        ..Default::default()
    };
    let mut cases = Vec::new();

    let huge = huge();
    let barely = "a".repeat(129);
    for (name, word) in [
        ("", "name is missing"),
        (&*huge, "at most 128"),
        (&barely, "at most 128"),
        ("a\0b", "control characters"),
        ("a\n", "control characters"),
        ("\u{85}", "control characters"),
    ] {
        let mut inline = calls::publication(name, &house.staged, &house.at.join("inline"));
        inline.volume_context =
            [("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned())].into();
        inline.staging_target_path.clear();
        let inline: NodePublishVolumeRequest = inline;
        cases.extend([
            call!(house, controller.create_volume(calls::volume(name, MIB)))
                .is(InvalidArgument, word),
            call!(house, controller.create_snapshot(snapshot(name))).is(InvalidArgument, word),
            call!(house, node.node_publish_volume(inline))
                .is(InvalidArgument, word.trim_start_matches("name ")),
        ]);
    }
    let taken = CreateSnapshotRequest {
        source_volume_id: house.image.clone(),
        ..snapshot("snapshot")
    };
    cases.extend([
        call!(
            house,
            controller.create_volume(calls::volume("tree", 2 * MIB))
        )
        .is(AlreadyExists, "exists already"),
        call!(
            house,
            controller.create_volume(calls::image("tree", MIB, "ext4"))
        )
        .is(AlreadyExists, "exists already"),
        call!(house, controller.create_volume(calls::device("tree", MIB)))
            .is(AlreadyExists, "exists already"),
        call!(house, controller.create_snapshot(taken)).is(AlreadyExists, "take another name"),
    ]);

    house.answers(cases).await;
}

#[tokio::test]
async fn any_other_name_makes_a_volume_of_its_own_within_the_pool() {
    let Some(house) = House::new().await else {
        return;
    };
    let mut client = house.client.clone();
    let before = house.state();
    let names = [
        "..",
        ".",
        "/",
        "../../etc",
        "a/b",
        "Grün",
        "日本",
        "x y",
        "-rf",
        "$(id)",
        "%2e%2e",
        "UPPER",
        "tree ",
        &"a".repeat(128),
    ];

    let mut made = Vec::new();
    for name in names {
        let created = client.create(calls::volume(name, MIB)).await.expect(name);
        let again = client.create(calls::volume(name, MIB)).await.expect(name);
        assert_eq!(created.volume_id, again.volume_id, "{name}");
        let snapshot = client.snapshot(name, &created.volume_id).await.expect(name);
        made.push((created.volume_id, snapshot.snapshot_id));
    }
    let unique: std::collections::BTreeSet<_> = made.iter().collect();
    assert_eq!(unique.len(), names.len());

    for (volume, snapshot) in &made {
        assert!(volume.len() <= 128 && snapshot.len() <= 128, "{snapshot}");
        client.delete_snapshot(snapshot).await.expect("it is there");
        client.delete(volume).await.expect("it is there");
    }
    assert_eq!(house.state(), before);
}

#[tokio::test]
async fn a_page_that_never_was_is_refused() {
    let Some(house) = House::new().await else {
        return;
    };
    let mut cases = Vec::new();

    for token in odd_ids().into_iter().chain([
        "after:".into(),
        "after:..".into(),
        "7".into(),
        "after:default/x@".into(),
    ]) {
        let starting_token = token;
        let volumes = ListVolumesRequest {
            starting_token: starting_token.clone(),
            max_entries: 1,
        };
        let health = ControllerListVolumeHealthRequest {
            starting_token: starting_token.clone(),
            ..Default::default()
        };
        let snapshots = ListSnapshotsRequest {
            starting_token,
            ..Default::default()
        };
        cases.extend([
            call!(house, controller.list_volumes(volumes)).is(Aborted, "list again from the start"),
            call!(house, controller.controller_list_volume_health(health))
                .is(Aborted, "list again from the start"),
            call!(house, controller.list_snapshots(snapshots))
                .is(Aborted, "list again from the start"),
        ]);
    }
    for max_entries in [-1, i32::MIN] {
        let volumes = ListVolumesRequest {
            max_entries,
            ..Default::default()
        };
        let health = ControllerListVolumeHealthRequest {
            max_entries,
            ..Default::default()
        };
        let snapshots = ListSnapshotsRequest {
            max_entries,
            ..Default::default()
        };
        cases.extend([
            call!(house, controller.list_volumes(volumes)).is(InvalidArgument, "not negative"),
            call!(house, controller.controller_list_volume_health(health))
                .is(InvalidArgument, "not negative"),
            call!(house, controller.list_snapshots(snapshots)).is(InvalidArgument, "not negative"),
        ]);
    }
    let most = ListVolumesRequest {
        max_entries: i32::MAX,
        ..Default::default()
    };
    cases.push(call!(house, controller.list_volumes(most)).is(Ok, ""));

    house.answers(cases).await;
}

#[tokio::test]
async fn what_a_driver_without_attach_does_not_do_says_so() {
    let Some(house) = House::new().await else {
        return;
    };

    house
        .answers(vec![
            call!(
                house,
                controller.controller_publish_volume(ControllerPublishVolumeRequest::default())
            )
            .is(Unimplemented, "on their node already"),
            call!(
                house,
                controller.controller_unpublish_volume(ControllerUnpublishVolumeRequest::default())
            )
            .is(Unimplemented, "on their node already"),
            call!(
                house,
                controller.controller_modify_volume(ControllerModifyVolumeRequest::default())
            )
            .is(InvalidArgument, "volume_id is missing"),
        ])
        .await;
}
