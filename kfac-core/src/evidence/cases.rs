use super::{Inputs, OutputGradients};
use crate::shape::LayerShape;
use kfac_linalg::Scalar;

/// What one `add` brings: the rows of a layer's inputs and of the gradients at its output, as
/// [`FactorMap::learn`](crate::map::FactorMap::learn) reads them.
pub struct Evidence<'a, T, I: ?Sized> {
    /// The layer's shape.
    pub(crate) shape: LayerShape,
    /// Rows of `a`.
    pub(crate) inputs: &'a I,
    /// Rows of `g`.
    pub(crate) gradients: OutputGradients<'a, T>,
}

impl<T: Scalar, I: Inputs<T> + ?Sized> Evidence<'_, T, I> {
    /// Most positions that a case has.
    pub fn positions_of_a_case(&self) -> usize {
        self.inputs.positions()
    }

    /// The valid (case, position) pairs in order.
    pub fn positions(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.inputs.cases()).flat_map(|case| self.positions_of(case))
    }

    /// Those of one case.
    pub fn positions_of(&self, case: usize) -> impl Iterator<Item = (usize, usize)> {
        let valid = move |&position: &usize| self.inputs.is_valid(case, position);
        (0..self.inputs.positions()).filter(valid).map(move |position| (case, position))
    }

    /// The place of the one in `a` at a valid place, where it is known that there is nothing else in it.
    pub fn token(&self, (case, position): (usize, usize)) -> Option<usize> {
        self.inputs.token(case, position)
    }

    /// Writes `ā` at a valid place: the bias adds a last one.
    pub fn write_input(&self, (case, position): (usize, usize), out: &mut [T]) {
        let (features, ones) = out.split_at_mut(self.shape.features());
        self.inputs.write_row(case, position, features);
        ones.fill(T::ONE);
    }

    /// Writes `g` at a valid place, in the scale of the statistic.
    pub fn write_gradient(&self, place: (usize, usize), out: &mut [T]) {
        self.inputs.write_gradient(&self.gradients, place, out);
    }
}
