//! The upkeep service: what is left over on a node, and removing what was deleted already.

use tonic::{Request, Response};

use super::proto::inspection::{
    self, ListLeftoversRequest, ListLeftoversResponse, PurgeRequest, PurgeResponse,
};
use super::{Reply, reply, request};
use crate::driver::{Core, Driver};

/// Serves `orlop.v1.Upkeep`.
#[derive(Clone)]
pub struct Upkeep {
    driver: Driver,
}

impl Upkeep {
    /// The upkeep of this driver.
    pub fn new(driver: Driver) -> Self {
        Self { driver }
    }
}

#[tonic::async_trait]
impl inspection::upkeep_server::Upkeep for Upkeep {
    async fn list_leftovers(
        &self,
        _request: Request<ListLeftoversRequest>,
    ) -> Reply<ListLeftoversResponse> {
        let all = self.driver.look(Core::leftovers).await?;
        Ok(Response::new(ListLeftoversResponse {
            leftovers: all.into_iter().map(reply::leftover).collect(),
        }))
    }

    async fn purge(&self, request: Request<PurgeRequest>) -> Reply<PurgeResponse> {
        let (pool, name) = request::purge(request.into_inner())?;
        // What is purged is no volume any more: no call can name it, so there is nothing to lock.
        self.driver
            .look(move |core| core.purge(&pool, &name))
            .await?;
        Ok(Response::new(PurgeResponse {}))
    }
}
