//! What a peer tells, line by line, for as long as it takes.

use std::marker::PhantomData;

use reqwest::Response;
use serde::de::DeserializeOwned;

use super::peers::{SILENCE, Trouble, gone};
use super::wire::News;

/// No line of news is longer.
const LONGEST_LINE: usize = 8 << 20;

/// What a peer tells, one JSON value a line.
#[derive(Debug)]
pub struct Lines<T> {
    response: Response,
    buffer: Vec<u8>,
    kind: PhantomData<fn() -> T>,
}

/// The news of a swarm.
pub type NewsStream = Lines<News>;

impl<T: DeserializeOwned> Lines<T> {
    pub(super) fn of(response: Response) -> Self {
        Self {
            response,
            buffer: Vec::new(),
            kind: PhantomData,
        }
    }

    /// The next line. A peer that is silent for too long is gone.
    pub async fn next(&mut self) -> Result<T, Trouble> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return serde_json::from_slice(&line).map_err(gone);
            }
            let more = tokio::time::timeout(SILENCE, self.response.chunk()).await;
            match more.map_err(gone)?.map_err(gone)? {
                Some(bytes) if self.buffer.len() < LONGEST_LINE => {
                    self.buffer.extend_from_slice(&bytes);
                }
                _ => return Err(Trouble::Gone("it hung up".to_owned())),
            }
        }
    }
}
