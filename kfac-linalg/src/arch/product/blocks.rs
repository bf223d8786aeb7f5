//! Sizes of blocks: what stays in which cache, and what that needs of scratch.

use core::ops::Range;

/// Terms of the longest chain: frozen, since it decides the bits.
const LONGEST_CHAIN: usize = 512;

/// Bytes of a column of `A` that are packed at once: with the longest chain, 768 KiB, most of a second-level cache.
const COLUMN_BYTES: usize = 1536;

/// Bytes of a row of `B` that are packed at once: whole cache lines, few pages.
const GROUP_BYTES: usize = 256;

/// Bytes of a cache line, and of the widest register.
pub(super) const LINE: usize = 64;

/// Whether operands are copied to better strides. Small machines read them where they are and need no scratch.
pub(super) const PACKS: bool = cfg!(target_pointer_width = "64");

/// Terms of one chain of multiply-adds, for `k` terms in all: `k` in the fewest blocks of at most 512, evenly.
pub(crate) const fn block_len(k: usize) -> usize {
    match k {
        0 => 1,
        // The common case without a division.
        1..=LONGEST_CHAIN => k,
        _ => k.div_ceil(k.div_ceil(LONGEST_CHAIN)),
    }
}

/// The most rows of `A` that are packed at once: whole tiles of every instruction set.
const fn most_rows<T>() -> usize {
    COLUMN_BYTES / size_of::<T>()
}

/// Rows of `A` that are packed at once, of `m` in all: evenly, in whole tiles of `tile` rows.
#[inline(always)]
pub(super) const fn rows_len<T>(m: usize, tile: usize) -> usize {
    let most = most_rows::<T>();
    if m <= most { m } else { m.div_ceil(m.div_ceil(most)).next_multiple_of(tile) }
}

/// Room for the packed rows of `A`, of `m` in all, in numbers per term: whole registers.
pub(super) const fn rows_room<T>(m: usize) -> usize {
    let (most, line) = (most_rows::<T>(), LINE / size_of::<T>());
    if m < most { m.next_multiple_of(line) } else { most }
}

/// Columns of `B` that are packed at once.
pub(super) const fn group_len<T>() -> usize {
    GROUP_BYTES / size_of::<T>()
}

/// Scratch, in elements, for an `m x n` result of `k` terms each, in either orientation.
///
/// Room for the packed rows of `A` (whole registers), for the packed columns of `B`, and to begin both on a cache
/// line. At most 1 MiB or so.
pub(crate) const fn scratch_len<T>(m: usize, n: usize, k: usize) -> usize {
    if !PACKS || m == 0 || n == 0 || k == 0 {
        return 0;
    }
    let line = LINE / size_of::<T>();
    let longest = if m > n { m } else { n };
    let rows = rows_room::<T>(longest);
    let cols = if longest < group_len::<T>() { longest } else { group_len::<T>() };
    // Not `block_len`, which falls from 512 to 257: more terms never need less.
    let depth = if k < LONGEST_CHAIN { k } else { LONGEST_CHAIN };
    depth * (rows + cols) + 2 * line
}

/// `0..len` in the fewest pieces of at most `most` whose lengths differ by one at most, the longer ones first.
#[derive(Clone, Copy)]
pub(super) struct Pieces {
    pub(super) count: usize,
    short: usize,
    longer: usize,
}

impl Pieces {
    #[inline(always)]
    pub(super) fn new(len: usize, most: usize) -> Self {
        if len <= most {
            // The common case without a division.
            return Self { count: usize::from(len > 0), short: len, longer: 0 };
        }
        let count = len.div_ceil(most);
        Self { count, short: len / count, longer: len % count }
    }

    #[inline(always)]
    pub(super) fn get(self, index: usize) -> Range<usize> {
        let start = index * self.short + index.min(self.longer);
        start..start + self.short + usize::from(index < self.longer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_cut_evenly() {
        let lens = [1, 2, 512, 513, 785, 1024, 1025].map(|k| (k, block_len(k)));
        assert_eq!(lens, [(1, 1), (2, 2), (512, 512), (513, 257), (785, 393), (1024, 512), (1025, 342)]);
        assert_eq!(block_len(0), 1, "a step that is not zero");
    }

    #[test]
    fn no_operand_needs_less_scratch_than_a_smaller_one() {
        let sizes = [0, 1, 2, 15, 16, 17, 63, 64, 65, 191, 192, 193, 383, 384, 385, 511, 512, 513, 1025];
        for pair in sizes.windows(2) {
            for other in sizes {
                for k in sizes {
                    assert!(scratch_len::<f32>(pair[0], other, k) <= scratch_len::<f32>(pair[1], other, k));
                    assert!(scratch_len::<f64>(other, pair[0], k) <= scratch_len::<f64>(other, pair[1], k));
                    assert!(scratch_len::<f64>(other, k, pair[0]) <= scratch_len::<f64>(other, k, pair[1]));
                }
            }
        }
    }

    #[test]
    fn pieces_are_even_and_complete() {
        for len in 0..40 {
            for most in 1..=len.max(1) {
                let (pieces, mut end) = (Pieces::new(len, most), 0);
                assert_eq!(pieces.count, len.div_ceil(most));
                for index in 0..pieces.count {
                    let piece = pieces.get(index);
                    assert_eq!(piece.start, end);
                    assert!(piece.len() == len / pieces.count || piece.len() == len.div_ceil(pieces.count));
                    end = piece.end;
                }
                assert_eq!(end, len);
            }
        }
    }
}
