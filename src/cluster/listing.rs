//! Lists over all nodes: node after node in the order of their names, each in its own order.

use std::sync::Arc;

use tonic::{Request, Status};

use super::Router;
use super::nodes::Node;
use crate::volume::Error;

/// How many entries a node is asked for at a time, when the caller sets no limit.
const PAGE: i32 = 1000;

/// One page.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) entries: Vec<T>,
    pub(super) next_token: String,
}

impl Router {
    /// At most `most` entries, zero being all, from where `token` says; `ask` asks one node for so many from its own token.
    ///
    /// A token is a node and its own token. A node that can not be asked fails the list: one with a hole looks complete.
    pub(super) async fn paged<T, F>(
        &self,
        most: i32,
        token: &str,
        ask: impl Fn(Arc<Node>, Request<(i32, String)>) -> F,
    ) -> Result<Page<T>, Status>
    where
        F: Future<Output = Result<Page<T>, Status>>,
    {
        let (start, mut token) = match token {
            "" => ("", String::new()),
            token => token
                .split_once('/')
                .map(|(node, rest)| (node, rest.to_owned()))
                .ok_or_else(|| {
                    Error::BadToken(
                        "starting_token is none that was given here: list again from the start"
                            .into(),
                    )
                })?,
        };
        let mut entries = Vec::new();
        let nodes = self.nodes.known()?;
        let mut nodes = nodes
            .into_iter()
            .filter(|node| &*node.name >= start)
            .peekable();
        while let Some(node) = nodes.next() {
            if &*node.name != start {
                token = String::new();
            }
            loop {
                let left = most - i32::try_from(entries.len()).unwrap_or(i32::MAX);
                let page = if most == 0 { PAGE } else { left };
                let page = ask(Arc::clone(&node), Request::new((page, token))).await?;
                entries.extend(page.entries);
                token = page.next_token;
                let full = most > 0 && entries.len() >= most.unsigned_abs() as usize;
                if full && (!token.is_empty() || nodes.peek().is_some()) {
                    let next = nodes.peek().map(|node| &*node.name);
                    let next_token = match (&*token, next) {
                        ("", Some(next)) => format!("{next}/"),
                        (token, _) => format!("{}/{token}", node.name),
                    };
                    return Ok(Page {
                        entries,
                        next_token,
                    });
                }
                if token.is_empty() {
                    break;
                }
            }
        }
        Ok(Page {
            entries,
            next_token: String::new(),
        })
    }
}
