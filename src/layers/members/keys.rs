//! The keys of the gossip: a datagram is heard only once, and only if it is sealed with a key that the node which it is for
//! has handed out since it started, to one who proved to be a node.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use parking_lot::Mutex;
use rand::Rng;
use ring::hmac;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// The length of a seal (HMAC-SHA-256), which a datagram begins with; the key's number and the datagram's follow.
const SEAL: usize = 32;
/// What a datagram is longer than the packet in it.
#[cfg(test)]
pub(super) const SEALED: usize = SEAL + 2 * size_of::<u64>();
/// More keys than this are not remembered, and no more packets wait for one: they are asked for, or sent, again.
const MOST: usize = 20_000;

/// What seals the gossip for the node that handed it out. Each asker gets one of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Key {
    number: u64,
    secret: Secret,
}

/// The bytes of a key. It prints as `redacted`.
#[derive(Clone, Serialize, Deserialize)]
struct Secret([u8; 32]);

/// The keys that this node has, and what waits for those that it lacks.
#[derive(Debug)]
pub struct Keys {
    own: Secret,
    state: Mutex<State>,
    lacks: Notify,
    learned: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What was heard by each key that this node has handed out, by its number.
    handed: HashMap<u64, Heard>,
    /// Grows with each key that is handed out, and each datagram that is heard.
    turn: u64,
    /// The keys of others, and how many datagrams were sealed with each.
    others: HashMap<SocketAddr, (Key, u64)>,
    /// The last packet for each node whose key is lacked.
    waiting: HashMap<SocketAddr, Vec<u8>>,
}

/// Which datagrams of one key were heard, so that none is heard when it is played again.
#[derive(Debug, Default)]
struct Heard {
    newest: u64,
    /// The newest one and those before it, as bits; older ones are not heard any more.
    before: u64,
    /// When one was heard last.
    turn: u64,
}

impl Heard {
    /// Whether this datagram was not heard before; it is now.
    fn is_new(&mut self, count: u64) -> bool {
        let bit = |back: u64| {
            u32::try_from(back)
                .ok()
                .and_then(|back| 1_u64.checked_shl(back))
        };
        if let Some(ahead) = count.checked_sub(self.newest).filter(|ahead| *ahead > 0) {
            // Those in between may still come.
            self.before = bit(ahead).map_or(0, |bit| self.before.wrapping_mul(bit)) | 1;
            self.newest = count;
            return true;
        }
        let Some(bit) = bit(self.newest - count).filter(|bit| self.before & bit == 0) else {
            return false;
        };
        self.before |= bit;
        true
    }
}

impl Secret {
    fn new() -> Self {
        let mut bytes = [0; 32];
        rand::make_rng::<rand::rngs::StdRng>().fill_bytes(&mut bytes);
        Self(bytes)
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }

    /// The secret of the key with this number.
    fn of(&self, number: u64) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&self.hmac(), &number.to_be_bytes()).as_ref());
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            own: Secret::new(),
            state: Mutex::default(),
            lacks: Notify::new(),
            learned: Notify::new(),
        }
    }
}

impl Keys {
    /// A new key, with which one other seals what is for this node.
    pub fn hand_out(&self) -> Key {
        let mut state = self.state.lock();
        if state.handed.len() >= MOST {
            let silent = state.handed.iter().min_by_key(|(_, heard)| heard.turn);
            if let Some(number) = silent.map(|(number, _)| *number) {
                state.handed.remove(&number);
            }
        }
        state.turn += 1;
        let number = state.turn;
        let heard = Heard {
            turn: number,
            ..Heard::default()
        };
        state.handed.insert(number, heard);
        Key {
            number,
            secret: self.own.of(number),
        }
    }

    /// A node has handed over its key.
    pub fn learn(&self, of: SocketAddr, key: Key) {
        let mut state = self.state.lock();
        if state.others.len() >= MOST {
            state.others.clear();
        }
        state.others.insert(of, (key, 0));
        if state.waiting.contains_key(&of) {
            self.learned.notify_one();
        }
    }

    /// Waits until a key is lacked for something that is to be sent; whose.
    pub async fn lacking(&self) -> Vec<SocketAddr> {
        self.lacks.notified().await;
        let state = self.state.lock();
        let lacked = state.waiting.keys().copied();
        lacked.filter(|of| !state.others.contains_key(of)).collect()
    }

    /// Waits until something can be sent that waited for its key; what, and where to.
    pub async fn learned(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.learned.notified().await;
        let mut state = self.state.lock();
        let State {
            others, waiting, ..
        } = &mut *state;
        let free = waiting.extract_if(|to, _| others.contains_key(to));
        free.collect()
    }

    /// Nothing goes to this node any more, nor waits for it: it does not hand over its key.
    pub fn forget(&self, of: SocketAddr) {
        let mut state = self.state.lock();
        state.others.remove(&of);
        state.waiting.remove(&of);
    }

    /// A packet as it is sent; nothing if the key is lacked, for which it waits then.
    pub fn seal(&self, to: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        let Some((key, count)) = state.others.get_mut(&to) else {
            if state.waiting.len() >= MOST {
                state.waiting.clear();
            }
            state.waiting.insert(to, packet.to_vec());
            self.lacks.notify_one();
            return None;
        };
        *count += 1;
        let sealed = [&key.number.to_be_bytes(), &count.to_be_bytes(), packet].concat();
        let seal = hmac::sign(&key.secret.hmac(), &sealed);
        Some([seal.as_ref(), &sealed].concat())
    }

    /// The packet that was sent, if it was by one who has a key of ours, and was not heard before.
    pub fn open<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (seal, sealed) = datagram.split_at_checked(SEAL)?;
        let (number, rest) = sealed.split_first_chunk()?;
        let (count, packet) = rest.split_first_chunk()?;
        let (number, count) = (u64::from_be_bytes(*number), u64::from_be_bytes(*count));
        hmac::verify(&self.own.of(number).hmac(), sealed, seal).ok()?;
        let mut state = self.state.lock();
        state.turn += 1;
        let turn = state.turn;
        let heard = state.handed.get_mut(&number)?;
        heard.turn = turn;
        heard.is_new(count).then_some(packet)
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
        here.learn(address, there.hand_out());
        assert_eq!(here.learned().await, [(address, b"hello".to_vec())]);
        let sealed = here.seal(address, b"hello").expect("it has the key");

        assert_eq!(here.open(&sealed), None, "it is for another");
        assert_eq!(there.open(&sealed), Some(&b"hello"[..]));
        let mut forged = here.seal(address, b"hello").expect("it has the key");
        forged[SEAL + 16] ^= 1;
        assert_eq!(there.open(&forged), None);
        assert_eq!(there.open(b"short"), None);
        assert_eq!(there.open(&[0; SEAL + 15]), None);
    }

    #[test]
    fn what_comes_again_is_not_heard_and_what_comes_late_is() {
        let (here, there) = (Keys::default(), Keys::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        here.learn(address, there.hand_out());
        let sent: Vec<_> = (0..100_u8)
            .filter_map(|packet| here.seal(address, &[packet]))
            .collect();

        for late in [0, 2, 1, 99, 40, 36_u8] {
            assert_eq!(there.open(&sent[usize::from(late)]), Some(&[late][..]));
        }
        for again in [0, 1, 2, 36, 40, 99] {
            assert_eq!(there.open(&sent[again]), None, "{again}");
        }
        assert_eq!(there.open(&sent[35]), None, "it is too old to tell");
        // Who asks again gets another key, by which nothing was heard yet.
        here.learn(address, there.hand_out());
        let sealed = here.seal(address, b"hello").expect("it has the key");
        assert_eq!(there.open(&sealed), Some(&b"hello"[..]));
        assert_eq!(there.open(&sent[98]), Some(&[98][..]));
    }

    #[test]
    fn one_key_does_not_open_for_another_nor_one_that_is_forgotten() {
        let (here, there) = (Keys::default(), Keys::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let (first, silent) = (there.hand_out(), there.hand_out());
        let mut wrong = first.clone();
        wrong.number = silent.number;
        here.learn(address, wrong);
        let forged = here.seal(address, b"hello").expect("it has a key");
        here.learn(address, silent);
        let forgotten = here.seal(address, b"hello").expect("it has a key");
        here.learn(address, first);
        let said = |count: usize| (0..count).filter_map(|_| here.seal(address, b"hello"));

        assert_eq!(there.open(&forged), None);
        for sealed in said(2) {
            assert!(there.open(&sealed).is_some());
        }
        (2..=MOST).for_each(|_| _ = there.hand_out());
        assert_eq!(there.open(&forgotten), None);
        for sealed in said(2) {
            assert!(there.open(&sealed).is_some());
        }
    }

    #[test]
    fn a_key_does_not_print() {
        assert_eq!(
            format!("{:?}", Keys::default().hand_out()),
            "Key { number: 1, secret: redacted }"
        );
    }
}
