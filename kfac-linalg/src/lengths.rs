//! Lengths of scratch: several in one, and those that no memory holds.

/// The largest of several lengths: of the scratch that serves routines in turn.
///
/// ```
/// use kfac_linalg::{cholesky, largest_len, product};
///
/// const LEN: usize =
///     largest_len([cholesky::factor_scratch_len::<f32>(12), product::syrk_scratch_len::<f32>(12, 500)]);
/// static SCRATCH: std::sync::Mutex<[f32; LEN]> = std::sync::Mutex::new([0.0; LEN]);
/// assert!(SCRATCH.lock().unwrap().len() >= product::syrk_scratch_len::<f32>(12, 500));
/// ```
pub const fn largest_len<const N: usize>(lens: [usize; N]) -> usize {
    let (mut largest, mut index) = (0, 0);
    while index < N {
        if lens[index] > largest {
            largest = lens[index];
        }
        index += 1;
    }
    largest
}

/// Whether every length of scratch for a matrix of this shape fits a `usize`: a few such matrices, padded.
///
/// Where it does not, the length saturates at `usize::MAX`, which no slice has: the operation is refused for want of
/// scratch, by name.
pub(crate) const fn countable(rows: usize, cols: usize) -> bool {
    const PADDING: usize = 128;
    let (rows, cols) = (rows.saturating_add(PADDING), cols.saturating_add(PADDING));
    rows.saturating_mul(cols) <= usize::MAX / 8
}
