//! Lengths of scratch that no memory holds.

/// Whether every length of scratch for a matrix of this shape fits a `usize`: a few such matrices, padded.
///
/// Where it does not, the length saturates at `usize::MAX`, which no slice has: the operation is refused for want of
/// scratch, by name.
pub(crate) const fn countable(rows: usize, cols: usize) -> bool {
    const PADDING: usize = 128;
    let (rows, cols) = (rows.saturating_add(PADDING), cols.saturating_add(PADDING));
    rows.saturating_mul(cols) <= usize::MAX / 8
}
