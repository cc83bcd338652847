//! The inspection service: what people ask of a node that CSI has no call for.

use tonic::{Request, Response};

use super::proto::inspection::{
    self, ListPoolsRequest, ListPoolsResponse, ListWorkRequest, ListWorkResponse,
};
use super::{Reply, reply};
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
        Ok(Response::new(ListPoolsResponse {
            pools: pools.into_iter().map(reply::pool).collect(),
        }))
    }

    async fn list_work(&self, _request: Request<ListWorkRequest>) -> Reply<ListWorkResponse> {
        let work = self.driver.work();
        Ok(Response::new(ListWorkResponse {
            work: work.into_iter().map(reply::work).collect(),
        }))
    }
}
