//! The inspection service: what people ask of a node that CSI has no call for.

use std::path::PathBuf;

use tonic::{Request, Response};

use super::proto::inspection::{
    self, ListMountsRequest, ListMountsResponse, ListPoolsRequest, ListPoolsResponse,
    ListUsageRequest, ListUsageResponse, ListWorkRequest, ListWorkResponse,
};
use super::{Reply, reply, request};
use crate::driver::Driver;

/// Serves `orlop.v1.Inspection`.
#[derive(Clone)]
pub struct Inspection {
    driver: Driver,
}

impl Inspection {
    /// The inspection of this driver.
    pub fn new(driver: Driver) -> Self {
        Self { driver }
    }
}

#[tonic::async_trait]
impl inspection::inspection_server::Inspection for Inspection {
    async fn list_pools(&self, _request: Request<ListPoolsRequest>) -> Reply<ListPoolsResponse> {
        let pools = self.driver.look(|core| Ok(core.inspect())).await?;
        let pool = |pool| reply::pool(pool, self.driver.node());
        Ok(Response::new(ListPoolsResponse {
            pools: pools.into_iter().map(pool).collect(),
            silent: Vec::new(),
        }))
    }

    async fn list_mounts(&self, request: Request<ListMountsRequest>) -> Reply<ListMountsResponse> {
        let id = request::volume_id(&request.into_inner().volume_id)?;
        let places = self.driver.look(move |core| core.mounts_of(&id)).await?;
        let path = |place: PathBuf| place.to_string_lossy().into_owned();
        Ok(Response::new(ListMountsResponse {
            paths: places.into_iter().map(path).collect(),
        }))
    }

    async fn list_usage(&self, request: Request<ListUsageRequest>) -> Reply<ListUsageResponse> {
        let (after, most) = request::usage_page(&request.into_inner())?;
        let all = self
            .driver
            .look(move |core| core.usages(after.as_ref(), most))
            .await?;
        Ok(Response::new(ListUsageResponse {
            usage: all.into_iter().map(reply::usage).collect(),
        }))
    }

    async fn list_work(&self, _request: Request<ListWorkRequest>) -> Reply<ListWorkResponse> {
        let work = self.driver.work();
        Ok(Response::new(ListWorkResponse {
            work: work.into_iter().map(reply::work).collect(),
        }))
    }
}
