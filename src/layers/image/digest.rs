//! Digests: what a blob is called, and the sums that show its bytes to be the right ones.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// The sums that image clients use (OCI image specification, "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// The name of a blob: an algorithm and the sum of its bytes, `sha256:<hex>` or `sha512:<hex>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

/// Why a text is no digest.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a digest: sha256 or sha512, a colon and lower-case hex digits")]
pub struct NoDigest(String);

impl Digest {
    /// The sha256 digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            algorithm: Algorithm::Sha256,
            hex: hex(&Sha256::digest(bytes)),
        }
    }

    /// Where it lies beneath a folder of blobs: `sha256/<hex>`, as in an OCI layout and in containerd's store.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(self.algorithm.name()).join(&self.hex)
    }

    /// Its sum alone, in lower-case hex.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// A running sum of its algorithm, over nothing yet.
    pub fn sum(&self) -> Sum {
        match self.algorithm {
            Algorithm::Sha256 => Sum::Sha256(Sha256::new()),
            Algorithm::Sha512 => Sum::Sha512(Sha512::new()),
        }
    }

    /// Its first 64 bits: as random as any, and the same on every node.
    pub fn seed(&self) -> u64 {
        u64::from_str_radix(&self.hex[..16], 16).unwrap_or_default()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let wrong = || NoDigest(text.chars().take(150).collect());
        let (name, hex) = text.split_once(':').ok_or_else(wrong)?;
        let algorithm = [Algorithm::Sha256, Algorithm::Sha512]
            .into_iter()
            .find(|known| known.name() == name)
            .ok_or_else(wrong)?;
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != algorithm.hex_digits() || !hex.bytes().all(lower_hex) {
            return Err(wrong());
        }
        let hex = hex.to_owned();
        Ok(Self { algorithm, hex })
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, NoDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A running sum over the bytes of a blob, in order; sha256 if nothing else is said.
#[derive(Clone, Debug)]
pub enum Sum {
    /// Of 256 bits.
    Sha256(Sha256),
    /// Of 512 bits.
    Sha512(Sha512),
}

impl Default for Sum {
    fn default() -> Self {
        Self::Sha256(Sha256::new())
    }
}

impl Sum {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sum) => sum.update(bytes),
            Self::Sha512(sum) => sum.update(bytes),
        }
    }

    /// The digest of the bytes so far.
    pub fn digest(self) -> Digest {
        let (algorithm, hex) = match self {
            Self::Sha256(sum) => (Algorithm::Sha256, hex(&sum.finalize())),
            Self::Sha512(sum) => (Algorithm::Sha512, hex(&sum.finalize())),
        };
        Digest { algorithm, hex }
    }

    /// Whether the bytes so far are those that `digest` names.
    pub fn is(self, digest: &Digest) -> bool {
        self.digest() == *digest
    }
}

/// The sum of one chunk, by which it is checked before it is relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSum([u8; 32]);

impl ChunkSum {
    /// The sum of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ChunkSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for ChunkSum {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let wrong = || NoDigest(text.chars().take(70).collect());
        let mut sum = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        for (byte, at) in sum.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(sum))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_algorithms_are_read_and_printed() {
        for text in [
            format!("sha256:{}", "0a".repeat(32)),
            format!("sha512:{}", "f9".repeat(64)),
        ] {
            assert_eq!(
                text.parse::<Digest>().expect("well formed").to_string(),
                text
            );
        }
    }

    #[test]
    fn no_digest_leaves_its_folder() {
        let upper = format!("sha256:{}", "0A".repeat(32));
        let climbing = format!("sha256:{}", "../".repeat(22));
        for text in ["", "sha256:", "md5:00", "sha256:0a", &upper, &climbing] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_sum_knows_the_bytes_it_names() {
        let digest = Digest::of(b"a layer");
        let (mut right, mut wrong) = (digest.sum(), digest.sum());

        right.update(b"a la");
        right.update(b"yer");
        wrong.update(b"a lager");

        assert!(right.is(&digest) && !wrong.is(&digest));
    }

    #[test]
    fn a_chunk_sum_survives_printing() {
        let sum = ChunkSum::of(b"chunk");

        assert_eq!(sum.to_string().parse::<ChunkSum>().expect("printed"), sum);
    }
}
