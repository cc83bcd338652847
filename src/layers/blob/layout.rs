//! How a blob is cut into chunks, the same on every node.

use std::ops::Range;

/// The largest chunk, and the one of every blob of 256 MiB and more.
pub const LARGEST_CHUNK: u64 = 1 << 20;
/// The smallest chunk: below it the requests cost more than the finer sharing saves.
const SMALLEST_CHUNK: u64 = 128 << 10;
/// The first chunk is smaller: everybody waits for it, and has it soon.
const FIRST_CHUNK: u64 = 32 << 10;

/// A small first chunk, and about 256 others, so that the last ones, which can be relayed only when they are complete,
/// are a small part of the whole.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    size: u64,
    chunk: u64,
}

impl Layout {
    /// Of a blob of `size` bytes.
    pub fn of(size: u64) -> Self {
        let chunk = (size / 256)
            .next_power_of_two()
            .clamp(SMALLEST_CHUNK, LARGEST_CHUNK);
        Self { size, chunk }
    }

    /// The number of chunks; none if the blob is empty.
    pub fn count(self) -> usize {
        let rest = self.size.saturating_sub(FIRST_CHUNK).div_ceil(self.chunk);
        usize::from(self.size > 0) + whole_number(rest)
    }

    /// The bytes that chunk `at` covers.
    pub fn span(self, at: usize) -> Range<u64> {
        let end = |at: u64| (FIRST_CHUNK + at * self.chunk).min(self.size);
        let start = (at as u64).checked_sub(1).map_or(0, end);
        start..end(at as u64)
    }

    /// The chunk that byte `at` lies in.
    pub fn chunk_of(self, at: u64) -> usize {
        let after = at.checked_sub(FIRST_CHUNK);
        after.map_or(0, |after| 1 + whole_number(after / self.chunk))
    }
}

/// A count or a length as an index has it; one beyond any memory fails where it is used.
pub fn whole_number(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_chunks_of_a_blob_cover_it_once(size in 0..3_u64 << 30) {
            let layout = Layout::of(size);
            let mut end = 0;
            for at in 0..layout.count() {
                let span = layout.span(at);
                prop_assert_eq!(span.start, end);
                prop_assert!(span.start < span.end);
                prop_assert_eq!(layout.chunk_of(span.start), at);
                prop_assert_eq!(layout.chunk_of(span.end - 1), at);
                end = span.end;
            }
            prop_assert_eq!(end, size);
        }
    }
}
