//! Which chunks of a blob are here.

use std::fmt::Write as _;

/// A set of chunk numbers below a fixed count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

impl Bitmap {
    /// None of `len` chunks.
    pub fn none(len: usize) -> Self {
        Self {
            words: vec![0; len.div_ceil(64)],
            len,
        }
    }

    /// Whether chunk `at` is in it.
    pub fn has(&self, at: usize) -> bool {
        at < self.len && self.words[at / 64] & (1 << (at % 64)) != 0
    }

    /// Puts chunk `at` in; one past the count is ignored.
    pub fn insert(&mut self, at: usize) {
        if at < self.len {
            self.words[at / 64] |= 1 << (at % 64);
        }
    }

    /// Takes chunk `at` out.
    pub fn remove(&mut self, at: usize) {
        if at < self.len {
            self.words[at / 64] &= !(1 << (at % 64));
        }
    }

    /// The chunks that are not in it, in order.
    pub fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter(|at| !self.has(*at))
    }

    /// Whether every chunk is in it.
    pub fn is_full(&self) -> bool {
        self.missing().next().is_none()
    }

    /// What is in either.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self
    }

    /// As hex digits, sixteen for each 64 chunks: how it travels between peers.
    pub fn to_hex(&self) -> String {
        self.words.iter().fold(String::new(), |mut text, word| {
            let _ = write!(text, "{word:016x}");
            text
        })
    }

    /// Reads what [`Bitmap::to_hex`] wrote, for a blob of `len` chunks; nothing if it is not that.
    pub fn from_hex(text: &str, len: usize) -> Option<Self> {
        if !text.is_ascii() || text.len() != len.div_ceil(64) * 16 {
            return None;
        }
        let words = (0..text.len())
            .step_by(16)
            .map(|at| u64::from_str_radix(&text[at..at + 16], 16).ok())
            .collect::<Option<_>>()?;
        Some(Self { words, len })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_in_is_there_after_the_journey(chunks in proptest::collection::vec(0..200usize, 0..50)) {
            let mut bitmap = Bitmap::none(200);
            for chunk in &chunks {
                bitmap.insert(*chunk);
            }

            let arrived = Bitmap::from_hex(&bitmap.to_hex(), 200).expect("we wrote it");

            prop_assert!((0..200).all(|at| arrived.has(at) == chunks.contains(&at)));
            prop_assert_eq!(arrived.missing().count(), (0..200).filter(|at| !chunks.contains(at)).count());
        }

        #[test]
        fn no_text_of_a_peer_is_a_panic(text in ".{0,64}", len in 0..300usize) {
            let _ = Bitmap::from_hex(&text, len);
        }
    }
}
