//! Calls that come in the wrong order, or while somebody else is there.

use std::ffi::OsStr;
use std::fs;

use orlop::csi::proto::volume_capability::access_mode::Mode;
use orlop::csi::proto::volume_capability::{AccessType, MountVolume};
use orlop::csi::proto::{
    DeleteVolumeRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
};
use tonic::Code::{AlreadyExists, FailedPrecondition};

use crate::calls::{self, text};
use crate::support::run;
use crate::{House, call};

#[tokio::test]
async fn a_volume_in_use_is_not_deleted() {
    let Some(house) = House::new().await else {
        return;
    };
    let mut client = house.client.clone();
    let block_stage = client
        .stage(&house.device, &house.at.join("unused"), calls::block())
        .await;
    block_stage.expect("it can be staged");
    let target = house.at.join("device");
    let publish = NodePublishVolumeRequest {
        volume_capability: Some(calls::block()),
        ..calls::publication(&house.device, &house.at.join("unused"), &target)
    };
    client.publish(publish).await.expect("it is staged");
    let delete = |id: &String| DeleteVolumeRequest {
        volume_id: id.clone(),
        ..Default::default()
    };
    let unstage = NodeUnstageVolumeRequest {
        volume_id: house.device.clone(),
        staging_target_path: text(&house.at.join("unused")),
    };

    house
        .answers(vec![
            call!(house, controller.delete_volume(delete(&house.tree)))
                .is(FailedPrecondition, "unstage it first"),
            call!(house, controller.delete_volume(delete(&house.device)))
                .is(FailedPrecondition, "unpublish"),
            call!(house, node.node_unstage_volume(unstage))
                .is(FailedPrecondition, "unpublish it first"),
        ])
        .await;
}

#[tokio::test]
async fn a_volume_is_staged_before_it_is_published() {
    let Some(house) = House::new().await else {
        return;
    };
    let elsewhere = house.at.join("elsewhere");
    let mut without = calls::publication(&house.tree, &house.staged, &elsewhere);
    without.staging_target_path.clear();

    house
        .answers(vec![
            call!(
                house,
                node.node_publish_volume(calls::publication(
                    &house.image,
                    &house.staged,
                    &elsewhere
                ))
            )
            .is(FailedPrecondition, "stage it first"),
            call!(
                house,
                node.node_publish_volume(calls::publication(
                    &house.tree,
                    &house.at.join("nowhere"),
                    &elsewhere
                ))
            )
            .is(FailedPrecondition, "stage it first"),
            call!(house, node.node_publish_volume(without)).is(FailedPrecondition, "and say where"),
        ])
        .await;
}

#[tokio::test]
async fn the_only_consumer_has_no_second_beside_it() {
    let Some(house) = House::new().await else {
        return;
    };
    let mut client = house.client.clone();
    let only = calls::capability(
        AccessType::Mount(MountVolume::default()),
        Mode::SingleNodeSingleWriter,
    );
    let at = |name: &str| NodePublishVolumeRequest {
        volume_capability: Some(only.clone()),
        ..calls::publication(&house.tree, &house.staged, &house.at.join(name))
    };
    client.publish(at("first")).await.expect("it is the first");
    let read_only = NodePublishVolumeRequest {
        readonly: true,
        ..at("first")
    };

    house
        .answers(vec![
            call!(house, node.node_publish_volume(at("first"))),
            call!(house, node.node_publish_volume(at("second")))
                .is(FailedPrecondition, "unpublish it there first"),
            call!(house, node.node_publish_volume(read_only))
                .is(AlreadyExists, "read-only there and not here"),
        ])
        .await;
}

#[tokio::test]
async fn what_somebody_else_mounted_is_left_alone() {
    let Some(house) = House::new().await else {
        return;
    };
    let foreign = house.at.join("foreign");
    fs::create_dir(&foreign).expect("the name is free");
    run(
        "mount",
        [OsStr::new("-ttmpfs"), OsStr::new("none"), foreign.as_ref()],
    )
    .expect("a tmpfs can be mounted");
    let path = text(&foreign);
    let stage = NodeStageVolumeRequest {
        volume_id: house.tree.clone(),
        staging_target_path: path.clone(),
        volume_capability: Some(calls::mounted()),
        ..Default::default()
    };
    let unstage = NodeUnstageVolumeRequest {
        volume_id: house.tree.clone(),
        staging_target_path: path.clone(),
    };
    let unpublish = |id: &str| NodeUnpublishVolumeRequest {
        volume_id: id.to_owned(),
        target_path: path.clone(),
    };
    let publish = calls::publication(&house.tree, &house.staged, &foreign);

    house
        .answers(vec![
            call!(house, node.node_stage_volume(stage))
                .is(FailedPrecondition, "something else is mounted"),
            call!(house, node.node_publish_volume(publish))
                .is(FailedPrecondition, "something else is mounted"),
            call!(house, node.node_unstage_volume(unstage))
                .is(FailedPrecondition, "something else is mounted"),
            call!(house, node.node_unpublish_volume(unpublish(&house.tree)))
                .is(FailedPrecondition, "something else is mounted"),
            call!(house, node.node_unpublish_volume(unpublish("default/none")))
                .is(tonic::Code::NotFound, "was left"),
            call!(house, node.node_unpublish_volume(unpublish("inline")))
                .is(tonic::Code::NotFound, "was left"),
        ])
        .await;
}

#[tokio::test]
async fn a_consumer_that_is_still_at_work_keeps_its_mount() {
    let Some(house) = House::new().await else {
        return;
    };
    let target = house.at.join("pod");
    let publish = calls::publication(&house.tree, &house.staged, &target);
    house
        .client
        .clone()
        .publish(publish)
        .await
        .expect("it is staged");
    let open = fs::File::create(target.join("open")).expect("it can be written");
    let unpublish = NodeUnpublishVolumeRequest {
        volume_id: house.tree.clone(),
        target_path: text(&target),
    };

    house
        .answers(vec![
            call!(house, node.node_unpublish_volume(unpublish.clone()))
                .is(FailedPrecondition, "still in use"),
        ])
        .await;

    drop(open);
    let mut client = house.client.clone();
    client
        .node
        .node_unpublish_volume(unpublish)
        .await
        .expect("nobody is there now");
    assert!(!target.exists());
}
