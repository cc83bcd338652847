//! What a node knows of the others who are after the same blob: who has which chunk, and what was given to whom.

mod asking;
mod giving;
pub mod holders;
pub mod lines;
pub mod peers;
pub mod seed;
pub mod uplink;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use self::asking::Asking;
pub use self::asking::Pick;
use self::giving::Giving;
use crate::layers::blob::Blob;
use crate::layers::blob::bitmap::Bitmap;
use crate::layers::image::digest::ChunkSum;

/// What somebody who joins has already: a new home takes over from it instead of asking upstream again.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Who has it.
    pub from: SocketAddr,
    /// The length of the whole blob.
    pub size: u64,
    /// The chunks that they have.
    pub have: Bitmap,
    /// The sums that they know.
    pub sums: Vec<(usize, ChunkSum)>,
}

/// One blob, and everybody around it.
#[derive(Debug)]
pub struct Swarm {
    /// The blob.
    pub blob: Arc<Blob>,
    asking: Mutex<Asking>,
    giving: Mutex<Giving>,
    changed: watch::Sender<u64>,
}

impl Swarm {
    /// A blob around which nobody is known.
    pub fn new(blob: Arc<Blob>) -> Arc<Self> {
        let count = blob.chunks();
        Arc::new(Self {
            blob,
            asking: Mutex::new(Asking::about(count)),
            giving: Mutex::new(Giving::about(count)),
            changed: watch::Sender::new(0),
        })
    }

    /// To be woken when a holder, or something given away, is new.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Notes who has what.
    pub fn accept(&self, offer: &Offer) {
        if offer.size != self.blob.size() {
            return;
        }
        for (chunk, sum) in &offer.sums {
            self.blob.learn(*chunk, *sum);
        }
        let offered = (0..self.blob.chunks()).filter(|at| offer.have.has(*at));
        self.placed(&offered.map(|at| (at, offer.from)).collect::<Vec<_>>());
    }

    /// What this node has to offer to a new home.
    pub fn offer(&self, from: SocketAddr) -> Offer {
        let progress = self.blob.progress();
        let now = progress.borrow();
        let sums = now.sums.iter().enumerate();
        Offer {
            from,
            size: self.blob.size(),
            have: now.have.clone(),
            sums: sums.filter_map(|(at, sum)| Some((at, (*sum)?))).collect(),
        }
    }

    /// Wakes whoever waits for changes.
    pub fn wake(&self) {
        self.changed.send_modify(|turn| *turn += 1);
    }
}

#[cfg(test)]
mod tests;
