//! The room for new volumes of a class: on one node, or on all together.

use std::sync::Arc;

use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

use super::Router;
use super::nodes::{Node, Outcome};
use super::placement::Segment;
use crate::csi::Reply;
use crate::csi::proto::{GetCapacityRequest, GetCapacityResponse};

impl Router {
    /// What a topology has room for, less what is being given away now; the sum of all nodes where none is named.
    pub(super) async fn capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Reply<GetCapacityResponse> {
        let topology = request
            .get_ref()
            .accessible_topology
            .clone()
            .unwrap_or_default();
        match Segment::of(&topology) {
            Segment::One(name) => {
                let node = self.nodes.named(name)?;
                node.capacity(request).await.map(Response::new)
            }
            Segment::None => Ok(Response::new(GetCapacityResponse::default())),
            Segment::All => self.total(request.get_ref()).await.map(Response::new),
        }
    }

    /// Of all nodes that can be asked: nothing can be made on the others now.
    async fn total(&self, asked: &GetCapacityRequest) -> Result<GetCapacityResponse, Status> {
        let mut asking = JoinSet::new();
        for node in self.nodes.known()? {
            if !matches!(node.seen.borrow().what, Outcome::Silent(_)) {
                let request = Request::new(asked.clone());
                asking.spawn(async move { node.capacity(request).await });
            }
        }
        let mut total = GetCapacityResponse::default();
        while let Some(answer) = asking.join_next().await {
            let room = answer.map_err(|_| Status::internal("a call stopped in the middle"))??;
            total.available_capacity = total
                .available_capacity
                .saturating_add(room.available_capacity);
            total.maximum_volume_size = total.maximum_volume_size.max(room.maximum_volume_size);
            let least = [total.minimum_volume_size, room.minimum_volume_size];
            total.minimum_volume_size = least.into_iter().flatten().min();
        }
        Ok(total)
    }
}

impl Node {
    async fn capacity(
        self: Arc<Self>,
        request: Request<GetCapacityRequest>,
    ) -> Result<GetCapacityResponse, Status> {
        let answer = self
            .call(request, |mut client, request| async move {
                client.get_capacity(request).await
            })
            .await?;
        let mut room = answer.into_inner();
        let reserved = self.reserved();
        let all = std::iter::once(&mut room.available_capacity);
        for bytes in all.chain(&mut room.maximum_volume_size) {
            *bytes = bytes.saturating_sub_unsigned(reserved).max(0);
        }
        Ok(room)
    }
}
