//! In which pools a name can be: they are asked one by one, for the node gives each name once.

use anyhow::Result;
use parking_lot::Mutex;
use tonic::{Code, Response, Status};

use crate::client::Connection;
use crate::csi::proto::inspection::ListPoolsRequest;
use crate::volume::PoolName;

/// The pools that the node had when it was last asked.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Vec<PoolName>>);

impl Places {
    /// The pools as they were.
    pub(super) fn known(&self) -> Vec<PoolName> {
        let known = self.0.lock();
        known.clone()
    }

    /// The pools as they are: the node may have been started again with others.
    pub(super) async fn ask(&self, node: &Connection) -> Result<Vec<PoolName>> {
        let answer = node.inspection().list_pools(ListPoolsRequest {}).await?;
        let pools = answer.into_inner().pools.into_iter();
        let pools = pools
            .map(|pool| pool.name.parse())
            .collect::<Result<Vec<PoolName>, _>>()?;
        self.0.lock().clone_from(&pools);
        Ok(pools)
    }
}

/// An answer, or nothing where what was asked for does not exist.
pub(super) fn if_there<T>(answer: Result<Response<T>, Status>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}
