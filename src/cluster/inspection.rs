//! The inspection service of the router: of all nodes, what each tells of itself.

use tokio::task::JoinSet;
use tonic::{Request, Response};

use super::Router;
use super::inventory::Key;
use crate::csi::proto::inspection::inspection_client::InspectionClient;
use crate::csi::proto::inspection::inspection_server::Inspection;
use crate::csi::proto::inspection::{
    ListMountsRequest, ListMountsResponse, ListPoolsRequest, ListPoolsResponse, ListUsageRequest,
    ListUsageResponse, ListWorkRequest, ListWorkResponse,
};
use crate::csi::{Reply, volume_id};

/// Asks one node, and tells its errors as the router does.
macro_rules! ask {
    ($node:expr, $method:ident, $request:expr) => {
        InspectionClient::new($node.channel())
            .$method($request)
            .await
            .map_err(|status| $node.told(status))
    };
}

#[tonic::async_trait]
impl Inspection for Router {
    async fn list_pools(&self, _request: Request<ListPoolsRequest>) -> Reply<ListPoolsResponse> {
        let nodes = self.nodes.known()?.into_iter();
        let asking = nodes.map(async move |node| ask!(node, list_pools, ListPoolsRequest {}));
        let asking: JoinSet<_> = asking.collect();
        let mut all = ListPoolsResponse::default();
        for answer in asking.join_all().await {
            match answer {
                Ok(answer) => all.pools.extend(answer.into_inner().pools),
                Err(status) => all.silent.push(status.message().to_owned()),
            }
        }
        // Those of one node stay in its own order.
        all.pools.sort_by(|one, other| one.node.cmp(&other.node));
        all.silent.sort_unstable();
        Ok(Response::new(all))
    }

    async fn list_mounts(&self, request: Request<ListMountsRequest>) -> Reply<ListMountsResponse> {
        let asked = request.into_inner();
        let id = volume_id(&asked.volume_id)?;
        let node = self.owner(&Key::Volume(id)).await?;
        ask!(node, list_mounts, asked)
    }

    async fn list_usage(&self, request: Request<ListUsageRequest>) -> Reply<ListUsageResponse> {
        let asked = request.into_inner();
        let mut usage = Vec::new();
        for node in self.nodes.known()? {
            usage.extend(ask!(node, list_usage, asked.clone())?.into_inner().usage);
        }
        // Of each node the first ones: the first of all are among them.
        usage.sort_by(|one, other| one.volume_id.cmp(&other.volume_id));
        if asked.most > 0 {
            usage.truncate(usize::try_from(asked.most).unwrap_or(usize::MAX));
        }
        Ok(Response::new(ListUsageResponse { usage }))
    }

    async fn list_work(&self, _request: Request<ListWorkRequest>) -> Reply<ListWorkResponse> {
        let mut work = Vec::new();
        for node in self.nodes.known()? {
            work.extend(ask!(node, list_work, ListWorkRequest {})?.into_inner().work);
        }
        Ok(Response::new(ListWorkResponse { work }))
    }
}
