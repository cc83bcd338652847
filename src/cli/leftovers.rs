//! What a node has left over, as it is printed.

use anyhow::Result;
use serde::Serialize;

use super::output::{Shown, size};
use crate::client::Connection;
use crate::csi::proto::inspection::{self, ListLeftoversRequest, leftover::Kind};

/// One of them.
#[derive(Debug, Serialize)]
pub(super) struct Leftover {
    #[serde(skip)]
    pub(super) wire: Kind,
    pub(super) kind: &'static str,
    pub(super) pool: String,
    pub(super) name: String,
    pub(super) bytes: Option<u64>,
    pub(super) message: String,
}

/// All of them.
pub(super) async fn list(node: &Connection) -> Result<Vec<Leftover>> {
    let answer = node
        .upkeep()
        .list_leftovers(ListLeftoversRequest {})
        .await?;
    let all = answer.into_inner().leftovers;
    Ok(all.into_iter().map(Leftover::of).collect())
}

impl Leftover {
    fn of(told: inspection::Leftover) -> Self {
        let wire = told.kind();
        Self {
            kind: match wire {
                Kind::Stuck => "stuck",
                Kind::Idle => "idle",
                Kind::Mount => "mount",
                Kind::Unreadable | Kind::Unspecified => "unreadable",
            },
            wire,
            pool: told.pool,
            name: told.name,
            bytes: told.bytes,
            message: told.message,
        }
    }
}

impl Shown for Leftover {
    const COLUMNS: &'static [&'static str] = &["KIND", "POOL", "NAME", "SIZE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.to_owned(),
            self.pool.clone(),
            self.name.clone(),
            self.bytes.map_or_else(|| "-".to_owned(), size),
        ]
    }
}
