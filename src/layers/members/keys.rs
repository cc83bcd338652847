//! The keys of the gossip: a datagram is heard only if it is sealed with the key of whom it is for, which each node makes
//! anew when it starts, and hands only to those who proved to be nodes.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::Rng;
use ring::hmac;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// The length of a seal (HMAC-SHA-256), which a datagram begins with.
const SEAL: usize = 32;
/// More keys than this are not remembered, and no more packets wait for one: they are asked for, or sent, again.
const MOST: usize = 20_000;

/// What seals the gossip for one node. It prints as `redacted`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key([u8; 32]);

/// The keys that this node has, and what waits for those that it lacks.
#[derive(Debug)]
pub struct Keys {
    own: Key,
    state: Mutex<State>,
    lacks: Notify,
    learned: Notify,
}

#[derive(Debug, Default)]
struct State {
    others: HashMap<SocketAddr, Key>,
    /// The last packet for each node whose key is lacked.
    waiting: HashMap<SocketAddr, Vec<u8>>,
}

impl Key {
    fn new() -> Self {
        let mut bytes = [0; 32];
        rand::make_rng::<rand::rngs::StdRng>().fill_bytes(&mut bytes);
        Self(bytes)
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            own: Key::new(),
            state: Mutex::default(),
            lacks: Notify::new(),
            learned: Notify::new(),
        }
    }
}

impl Keys {
    /// The key with which others seal what is for this node.
    pub fn own(&self) -> &Key {
        &self.own
    }

    /// A node has handed over its key.
    pub fn learn(&self, of: SocketAddr, key: Key) {
        let mut state = self.state();
        if state.others.len() >= MOST {
            state.others.clear();
        }
        state.others.insert(of, key);
        if state.waiting.contains_key(&of) {
            self.learned.notify_one();
        }
    }

    /// Waits until a key is lacked for something that is to be sent; whose.
    pub async fn lacking(&self) -> Vec<SocketAddr> {
        self.lacks.notified().await;
        let state = self.state();
        let lacked = state.waiting.keys().copied();
        lacked.filter(|of| !state.others.contains_key(of)).collect()
    }

    /// Waits until something can be sent that waited for its key; what, and where to.
    pub async fn learned(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.learned.notified().await;
        let mut state = self.state();
        let State { others, waiting } = &mut *state;
        let free = waiting.extract_if(|to, _| others.contains_key(to));
        free.collect()
    }

    /// Nothing goes to this node any more, nor waits for it: it does not hand over its key.
    pub fn forget(&self, of: SocketAddr) {
        let mut state = self.state();
        state.others.remove(&of);
        state.waiting.remove(&of);
    }

    /// A packet as it is sent; nothing if the key is lacked, for which it waits then.
    pub fn seal(&self, to: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.state();
        let Some(key) = state.others.get(&to) else {
            if state.waiting.len() >= MOST {
                state.waiting.clear();
            }
            state.waiting.insert(to, packet.to_vec());
            self.lacks.notify_one();
            return None;
        };
        let seal = hmac::sign(&key.hmac(), packet);
        Some([seal.as_ref(), packet].concat())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The packet that was sent, if it was by one who has our key.
    pub fn open<'a>(&self, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (seal, packet) = sealed.split_at_checked(SEAL)?;
        hmac::verify(&self.own.hmac(), packet, seal).ok()?;
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_was_handed_the_key_is_heard() {
        let (here, there) = (Keys::default(), Keys::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 1));

        assert_eq!(here.seal(address, b"hello"), None);
        assert_eq!(here.lacking().await, [address]);
        here.learn(address, there.own().clone());
        assert_eq!(here.learned().await, [(address, b"hello".to_vec())]);
        let mut sealed = here.seal(address, b"hello").expect("it has the key");

        assert_eq!(there.open(&sealed), Some(&b"hello"[..]));
        assert_eq!(here.open(&sealed), None, "it is for another");
        sealed[SEAL] ^= 1;
        assert_eq!(there.open(&sealed), None);
        assert_eq!(there.open(b"short"), None);
    }

    #[test]
    fn a_key_does_not_print() {
        assert_eq!(format!("{:?}", Keys::default().own()), "redacted");
    }
}
