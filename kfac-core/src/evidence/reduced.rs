use super::{Inputs, OutputGradients};
use kfac_linalg::Scalar;

/// Weight sharing where the loss sees only the mean over positions: `A` from the mean of `ā` over the valid positions of a
/// case, `G` from the sum of their `g`. Wraps the inputs; the gradients stay as they are, a row for each position.
///
/// Exact for linear layers whose output is averaged over the positions before the loss (a pooled feature map, a
/// sequence of which the mean is classified), where the inputs alone (`expand`) are not; and inexact where every position
/// has a loss term of its own, where they are.
///
/// # Source
/// Eschenhagen, Immer, Turner, Schneider and Hennig 2023, arXiv:2311.00636 (K-FAC-reduce).
#[derive(Clone, Copy)]
pub struct Reduced<'a, I: ?Sized>(
    /// Inputs of every position.
    pub &'a I,
);

impl<I: ?Sized> Reduced<'_, I> {
    fn valid<T: Scalar>(&self, case: usize) -> impl Iterator<Item = usize>
    where
        I: Inputs<T>,
    {
        (0..self.0.positions()).filter(move |&position| self.0.is_valid(case, position))
    }
}

impl<T: Scalar, I: Inputs<T> + ?Sized> Inputs<T> for Reduced<'_, I> {
    fn cases(&self) -> usize {
        self.0.cases()
    }

    fn positions(&self) -> usize {
        self.0.positions().min(1)
    }

    fn features(&self) -> usize {
        self.0.features()
    }

    fn is_valid(&self, case: usize, _position: usize) -> bool {
        self.valid(case).next().is_some()
    }

    fn write_row(&self, case: usize, position: usize, out: &mut [T]) {
        out.fill(T::ZERO);
        self.add_row(case, position, out);
    }

    fn add_row(&self, case: usize, _position: usize, out: &mut [T]) {
        // `out` may hold something: what is added must be divided alone.
        let share = T::from_usize(self.valid(case).count());
        out.iter_mut().for_each(|value| *value *= share);
        self.valid(case).for_each(|position| self.0.add_row(case, position, out));
        out.iter_mut().for_each(|value| *value /= share);
    }

    fn gradient_rows(&self) -> usize {
        self.0.gradient_rows()
    }

    fn gradient_width(&self, outputs: usize) -> Option<usize> {
        self.0.gradient_width(outputs)
    }

    fn write_gradient(&self, gradients: &OutputGradients<'_, T>, place: (usize, usize), out: &mut [T]) {
        out.fill(T::ZERO);
        self.add_gradient(gradients, place, out);
    }

    fn add_gradient(&self, gradients: &OutputGradients<'_, T>, (case, _): (usize, usize), out: &mut [T]) {
        self.valid(case).for_each(|position| self.0.add_gradient(gradients, (case, position), out));
    }
}
