//! One `add`: evidence is checked whole, then its moments are added.

use crate::error::{LayerErrorKind, Quantity};
use crate::evidence::{Evidence, Inputs};
use crate::map::take;
use crate::memory::{Moment, SideState, panel_len};
use kfac_linalg::product::{Accumulate, ProductError, sum_terms, syrk};
use kfac_linalg::{Kernel, MatRef, PackedMut, Scalar, ShapeError};

/// What the check of an `add` has learnt.
pub(crate) struct Checked<T> {
    /// Cases that have at least one valid position.
    pub(crate) cases: usize,
    /// Valid positions over all cases.
    pub(crate) rows: usize,
    /// `Σ |ā|²` and `Σ |g|²` over all rows: the traces of the moments that will be added.
    pub(crate) traces: [SquareSum<T>; 2],
}

/// The half of it that concerns the inputs.
pub(crate) struct CheckedInputs<T> {
    pub(crate) cases: usize,
    pub(crate) rows: usize,
    pub(crate) trace: SquareSum<T>,
}

impl<T: Scalar, I: Inputs<T> + ?Sized> Evidence<'_, T, I> {
    /// Reads all evidence once: shapes, finite numbers, finite sums of squares. Touches nothing but `row`.
    ///
    /// A second moment is positive semidefinite, so no entry exceeds its trace: if the traces are finite,
    /// everything that is added is.
    pub(crate) fn check(&self, row: &mut [T]) -> Result<Checked<T>, LayerErrorKind> {
        self.expect_inputs()?;
        let (inputs, outputs) = (self.inputs, self.shape.outputs());
        let gradients = self.gradients.rows();
        let gradient_rows = inputs.cases().saturating_mul(inputs.gradient_rows());
        let Some(width) = inputs.gradient_width(outputs) else {
            let error = ShapeError::new([gradient_rows, outputs], gradients.shape());
            return Err(LayerErrorKind::Shape { quantity: Quantity::OutputGradients, error });
        };
        Quantity::OutputGradients.expect([gradient_rows, width], gradients.shape())?;
        let factor = self.gradients.factor();
        if !(factor > T::ZERO && factor.is_finite()) {
            return Err(LayerErrorKind::GradientScale { factor: factor.to_f64() });
        }
        let CheckedInputs { cases, rows, trace } = self.check_inputs(row)?;
        let mut squares = SquareSum::new(Quantity::OutputGradients);
        let row = &mut row[..self.shape.outputs()];
        for (case, position) in self.positions() {
            self.write_gradient((case, position), row);
            squares.add(case * inputs.positions() + position, row)?;
        }
        squares.finish()?;
        Ok(Checked { cases, rows, traces: [trace, squares] })
    }

    /// Refuses inputs without a position, and rows of another length than the layer's.
    fn expect_inputs(&self) -> Result<(), LayerErrorKind> {
        let rows = self.inputs.cases().saturating_mul(self.inputs.positions());
        if rows == 0 {
            return Err(LayerErrorKind::EmptyBatch);
        }
        Quantity::Inputs.expect([rows, self.shape.features()], [rows, self.inputs.features()])
    }

    /// The half of [`check`](Self::check) that concerns the inputs.
    pub(crate) fn check_inputs(&self, row: &mut [T]) -> Result<CheckedInputs<T>, LayerErrorKind> {
        let (inputs, shape) = (self.inputs, self.shape);
        self.expect_inputs()?;
        let mut trace = SquareSum::new(Quantity::Inputs);
        let (mut cases, mut rows, mut last_case) = (0, 0, None);
        for (case, position) in self.positions() {
            let index = case * inputs.positions() + position;
            match self.token((case, position)) {
                None => {
                    let input_row = &mut row[..shape.features()];
                    inputs.write_row(case, position, input_row);
                    trace.add(index, input_row)?;
                }
                Some(token) if token < shape.features() => trace.add(index, &[T::ONE])?,
                Some(token) => {
                    let features = shape.features();
                    return Err(LayerErrorKind::UnknownToken { row: index, token, features });
                }
            }
            rows += 1;
            cases += usize::from(last_case != Some(case));
            last_case = Some(case);
        }
        if rows == 0 {
            return Err(LayerErrorKind::EmptyBatch);
        }
        if shape.has_bias() {
            trace.sum += T::from_usize(rows);
        }
        trace.finish()?;
        Ok(CheckedInputs { cases, rows, trace })
    }

    /// `sum += scale Σ ā āᵀ` over the valid rows, as much of it as is kept; the bias adds a last column of ones.
    ///
    /// # Errors
    /// [`ProductError`] when the scratch is too short.
    pub(crate) fn add_inputs<K: Kernel<T>>(
        &self,
        kernel: K,
        side: &mut SideState<'_, T>,
        scale: T,
        scratch: &mut [T],
    ) -> Result<(), ProductError> {
        if side.moment == Moment::Diagonal {
            return self.add_input_squares(side, scale, scratch);
        }
        self.add_rows(kernel, side, scale, scratch, |place, row| self.write_input(place, row))
    }

    /// The diagonal alone, where a token is one addition.
    fn add_input_squares(
        &self,
        side: &mut SideState<'_, T>,
        scale: T,
        mut scratch: &mut [T],
    ) -> Result<(), ProductError> {
        let row = take(&mut scratch, side.size)?;
        for place in self.positions() {
            if let Some(token) = self.token(place) {
                side.sum[token] += scale;
                side.sum[self.shape.features()..].iter_mut().for_each(|sum| *sum += scale);
            } else {
                self.write_input(place, row);
                add_squares(side.sum, scale, row);
            }
        }
        Ok(())
    }

    /// `sum += scale Σ g gᵀ` over the valid rows, as much of it as is kept.
    ///
    /// # Errors
    /// [`ProductError`] when the scratch is too short.
    pub(crate) fn add_gradients<K: Kernel<T>>(
        &self,
        kernel: K,
        side: &mut SideState<'_, T>,
        scale: T,
        scratch: &mut [T],
    ) -> Result<(), ProductError> {
        self.add_rows(kernel, side, scale, scratch, |place, row| self.write_gradient(place, row))
    }

    fn add_rows<K: Kernel<T>>(
        &self,
        kernel: K,
        side: &mut SideState<'_, T>,
        scale: T,
        mut scratch: &mut [T],
        write: impl Fn((usize, usize), &mut [T]),
    ) -> Result<(), ProductError> {
        match side.moment {
            Moment::None => Ok(()),
            Moment::Diagonal => {
                let row = take(&mut scratch, side.size)?;
                for place in self.positions() {
                    write(place, row);
                    add_squares(side.sum, scale, row);
                }
                Ok(())
            }
            Moment::Full => {
                let mut panel = Panel::new(kernel, side.sum_mut()?, scale, scratch)?;
                for place in self.positions() {
                    write(place, panel.next_row());
                    panel.commit_row()?;
                }
                panel.flush()
            }
        }
    }
}

fn add_squares<T: Scalar>(sums: &mut [T], scale: T, row: &[T]) {
    for (sum, &x) in sums.iter_mut().zip(row) {
        *sum += scale * (x * x);
    }
}

/// Rows on their way into a second moment: gathered until [`Kernel::PANEL_ROWS`] are there, then added at once.
struct Panel<'a, T, K> {
    kernel: K,
    sum: PackedMut<'a, T>,
    scale: T,
    rows: &'a mut [T],
    gathered: usize,
    scratch: &'a mut [T],
}

impl<'a, T: Scalar, K: Kernel<T>> Panel<'a, T, K> {
    fn new(kernel: K, sum: PackedMut<'a, T>, scale: T, scratch: &'a mut [T]) -> Result<Self, ProductError> {
        let (len, needed, found) = (K::PANEL_ROWS * sum.n(), panel_len::<T, K>(sum.n()), scratch.len());
        let (rows, scratch) = scratch
            .split_at_mut_checked(len)
            .filter(|_| found >= needed)
            .ok_or(ProductError::Scratch(kfac_linalg::ScratchError { needed, found }))?;
        Ok(Self { kernel, sum, scale, rows, gathered: 0, scratch })
    }

    fn next_row(&mut self) -> &mut [T] {
        let width = self.sum.n();
        &mut self.rows[self.gathered * width..][..width]
    }

    fn commit_row(&mut self) -> Result<(), ProductError> {
        self.gathered += 1;
        if self.gathered == K::PANEL_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ProductError> {
        if self.gathered > 0 {
            let x = MatRef::row_major(self.rows, self.gathered, self.sum.n()).map_err(ProductError::Shape)?;
            syrk(self.kernel, self.sum.reborrow(), Accumulate::Add(self.scale), x, self.scratch)?;
            self.gathered = 0;
        }
        Ok(())
    }
}

/// A sum of squares that names the number which spoils it.
pub(crate) struct SquareSum<T> {
    quantity: Quantity,
    sum: T,
    largest: T,
}

impl<T: Scalar> SquareSum<T> {
    pub(crate) fn new(quantity: Quantity) -> Self {
        Self { quantity, sum: T::ZERO, largest: T::ZERO }
    }

    /// The squares of a matrix of rows so wide, refused where they leave the range of `T`.
    pub(crate) fn of_rows(quantity: Quantity, numbers: &[T], width: usize) -> Result<T, LayerErrorKind> {
        let mut squares = Self::new(quantity);
        for (index, row) in numbers.chunks_exact(width).enumerate() {
            squares.add(index, row)?;
        }
        squares.finish()
    }

    /// Adds the squares of one row.
    pub(crate) fn add(&mut self, row: usize, values: &[T]) -> Result<(), LayerErrorKind> {
        let squares = sum_terms([values], |[value]| value * value)?;
        if !squares.is_finite() {
            // One of the numbers, or only their squares: look at each.
            for (column, &value) in values.iter().enumerate() {
                self.see((row, column), value)?;
            }
        }
        self.largest = self.largest.maximum(largest_magnitude(values));
        self.sum += squares;
        Ok(())
    }

    /// Adds the largest magnitude that `old + scale value` can have; `value` is a moment itself.
    pub(crate) fn add_moment(
        &mut self,
        place: (usize, usize),
        old: T,
        scale: T,
        value: T,
    ) -> Result<(), LayerErrorKind> {
        self.see(place, value)?;
        self.sum += old.abs() + scale * value.abs();
        Ok(())
    }

    /// The sum so far.
    pub(crate) fn sum(&self) -> T {
        self.sum
    }

    fn see(&mut self, (row, column): (usize, usize), value: T) -> Result<(), LayerErrorKind> {
        if !value.is_finite() {
            return Err(LayerErrorKind::NotFinite { quantity: self.quantity, row, column });
        }
        self.largest = self.largest.maximum(value.abs());
        Ok(())
    }

    /// The sum so far, refused where it left the range of `T`.
    pub(crate) fn finish(&self) -> Result<T, LayerErrorKind> {
        self.bounded(self.sum)
    }

    /// `value` if it is inside the range of `T`, with a margin of 4 for the roundings to come.
    pub(crate) fn bounded(&self, value: T) -> Result<T, LayerErrorKind> {
        if value <= T::MAX / T::from_f64(4.0) {
            return Ok(value);
        }
        Err(LayerErrorKind::Overflow { quantity: self.quantity, largest: self.largest.to_f64() })
    }
}

/// The largest magnitude of finite numbers, 16 of them side by side.
pub(crate) fn largest_magnitude<T: Scalar>(values: &[T]) -> T {
    let mut lanes = [T::ZERO; 16];
    let (blocks, rest) = values.as_chunks::<16>();
    for block in blocks {
        for (largest, value) in lanes.iter_mut().zip(block) {
            *largest = largest.maximum(value.abs());
        }
    }
    for (largest, value) in lanes.iter_mut().zip(rest) {
        *largest = largest.maximum(value.abs());
    }
    lanes.into_iter().fold(T::ZERO, T::maximum)
}

impl Quantity {
    /// Refuses another shape than the expected one.
    pub(crate) fn expect(self, expected: [usize; 2], found: [usize; 2]) -> Result<(), LayerErrorKind> {
        if expected == found {
            return Ok(());
        }
        Err(LayerErrorKind::Shape { quantity: self, error: ShapeError::new(expected, found) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One number after the other, as `SquareSum` is meant.
    fn naive(rows: &[&[f32]]) -> Result<f64, LayerErrorKind> {
        let quantity = Quantity::Gradient;
        let (mut sum, mut largest) = (0.0_f32, 0.0_f32);
        for (row, values) in rows.iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                if !value.is_finite() {
                    return Err(LayerErrorKind::NotFinite { quantity, row, column });
                }
                largest = largest.max(value.abs());
                sum += value * value;
            }
        }
        if sum > f32::MAX / 4.0 {
            return Err(LayerErrorKind::Overflow { quantity, largest: largest.into() });
        }
        Ok(sum.into())
    }

    fn fast(rows: &[&[f32]]) -> Result<f64, LayerErrorKind> {
        let mut squares = SquareSum::new(Quantity::Gradient);
        for (row, values) in rows.iter().enumerate() {
            squares.add(row, values)?;
        }
        squares.finish().map(f64::from)
    }

    #[test]
    fn a_square_sum_names_the_same_number_as_one_that_looks_at_each() {
        for len in [1, 15, 16, 17, 40] {
            let small: [f32; 40] = core::array::from_fn(|i| (i % 7) as f32 - 3.0);
            let small = &small[..len];
            let (found, want) = (fast(&[small, small]).unwrap(), naive(&[small, small]).unwrap());
            assert!((found - want).abs() <= 1e-5 * want, "{len}: {found} {want}");
            for column in 0..len {
                for value in [f32::NAN, f32::NEG_INFINITY, -1e30, 1e19] {
                    let mut spoilt = [0.5_f32; 40];
                    spoilt[column] = value;
                    spoilt[len - 1] = if column + 1 == len { value } else { -2e19 };
                    let spoilt = &spoilt[..len];
                    for rows in [[small, spoilt], [spoilt, small], [spoilt, spoilt]] {
                        assert_eq!(fast(&rows), naive(&rows), "{value} at {column} of {len}");
                    }
                }
            }
        }
        assert_eq!(fast(&[&[]]), Ok(0.0));
    }
}
