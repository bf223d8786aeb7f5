//! Lag moments `Σ x_t x_{t-1}ᵀ`, whose scale is that of the module above: how far neighbouring positions go together.

use crate::evidence::{Evidence, Inputs};
use crate::map::take;
use crate::memory::{LayerState, SideState};
use crate::statistics::lengths;
use kfac_linalg::product::{Accumulate, ProductError, gemm, gemm_scratch_len};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// Scratch of the lag moment of rows of `width` numbers.
pub(crate) const fn panel_len<T: Scalar, K: Kernel<T>>(width: usize) -> usize {
    let rows = width.saturating_mul(K::PANEL_ROWS + 1);
    rows.saturating_add(gemm_scratch_len::<T>(width, width, K::PANEL_ROWS))
}

/// Adds `per_case` times the lag moments of both sides, and the lengths, if the layer keeps them.
///
/// # Errors
/// [`ProductError`] when the scratch is too short.
pub(crate) fn add<T: Scalar, K: Kernel<T>, I: Inputs<T> + ?Sized>(
    kernel: K,
    layer: &mut LayerState<'_, T>,
    evidence: &Evidence<'_, T, I>,
    per_case: T,
    scratch: &mut [T],
) -> Result<(), ProductError> {
    if evidence.positions_of_a_case() > 1 {
        let places = || evidence.positions();
        let panel = Panel::new(kernel, &mut layer.input, per_case, scratch)?;
        panel.add(places(), |place, row| evidence.write_input(place, row))?;
        let panel = Panel::new(kernel, &mut layer.output, per_case, scratch)?;
        panel.add(places(), |place, row| evidence.write_gradient(place, row))?;
    }
    if !layer.per_layer.is_empty() {
        add_lengths(layer.per_layer, evidence, per_case, scratch)?;
    }
    Ok(())
}

/// Whole counts first, which are exact, so that the sums take one rounding each.
fn add_lengths<T: Scalar, I: Inputs<T> + ?Sized>(
    histogram: &mut [T],
    evidence: &Evidence<'_, T, I>,
    per_case: T,
    mut scratch: &mut [T],
) -> Result<(), ProductError> {
    let counts = take(&mut scratch, histogram.len())?;
    counts.fill(T::ZERO);
    let mut places = evidence.positions().peekable();
    let mut length = 0;
    while let Some((case, _)) = places.next() {
        length += 1;
        if places.peek().is_none_or(|&(next, _)| next != case) {
            lengths::add(counts, length, T::from_usize(length));
            length = 0;
        }
    }
    for (sum, &count) in histogram.iter_mut().zip(&*counts) {
        *sum += per_case * count;
    }
    Ok(())
}

/// Rows of consecutive positions, a row of zeros between those that are not: each meets the one before it.
struct Panel<'a, T, K> {
    kernel: K,
    sum: MatMut<'a, T>,
    scale: T,
    rows: &'a mut [T],
    gathered: usize,
    scratch: &'a mut [T],
}

impl<'a, T: Scalar, K: Kernel<T>> Panel<'a, T, K> {
    fn new(
        kernel: K,
        side: &'a mut SideState<'_, T>,
        scale: T,
        mut scratch: &'a mut [T],
    ) -> Result<Self, ProductError> {
        let width = side.size;
        let rows = take(&mut scratch, (K::PANEL_ROWS + 1) * width)?;
        Ok(Self {
            kernel,
            sum: MatMut::row_major(side.square, width, width)?,
            scale,
            rows,
            gathered: 0,
            scratch,
        })
    }

    fn add(
        mut self,
        places: impl Iterator<Item = (usize, usize)>,
        write: impl Fn((usize, usize), &mut [T]),
    ) -> Result<(), ProductError> {
        let mut last = None;
        for (case, position) in places {
            if last.is_some_and(|(last_case, last)| (last_case, last + 1) != (case, position)) {
                self.push(|row| row.fill(T::ZERO))?;
            }
            self.push(|row| write((case, position), row))?;
            last = Some((case, position));
        }
        self.flush()
    }

    fn push(&mut self, write: impl FnOnce(&mut [T])) -> Result<(), ProductError> {
        if self.gathered > K::PANEL_ROWS {
            self.flush()?;
        }
        let width = self.sum.cols();
        write(&mut self.rows[self.gathered * width..][..width]);
        self.gathered += 1;
        Ok(())
    }

    /// Adds the pairs of the gathered rows, and keeps the last row for the one to come.
    fn flush(&mut self) -> Result<(), ProductError> {
        let (width, pairs) = (self.sum.cols(), self.gathered.saturating_sub(1));
        if pairs == 0 {
            return Ok(());
        }
        let later = MatRef::row_major(&self.rows[width..], pairs, width)?.transposed();
        let earlier = MatRef::row_major(self.rows, pairs, width)?;
        gemm(self.kernel, self.sum.reborrow(), Accumulate::Add(self.scale), later, earlier, self.scratch)?;
        self.rows.copy_within(pairs * width..(pairs + 1) * width, 0);
        self.gathered = 1;
        Ok(())
    }
}
