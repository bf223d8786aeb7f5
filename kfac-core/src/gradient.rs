//! Weight gradients as the caller stores them.

use crate::error::{LayerError, LayerErrorKind, Quantity};
use crate::shape::LayerShape;
use kfac_linalg::{MatMut, Scalar, ShapeError};

/// The gradient `V = dh/dW` of one layer, preconditioned in place.
///
/// The matrix may have any strides: a framework that stores weights as `inputs x outputs` lends a transposed view.
pub struct LayerGradient<'a, T> {
    layer: usize,
    weight: MatMut<'a, T>,
    bias: Option<&'a mut [T]>,
}

impl<'a, T: Scalar> LayerGradient<'a, T> {
    /// `V` with the bias gradient, if the layer has one, as its last column: `m x n`.
    pub fn joint(layer: usize, weight: MatMut<'a, T>) -> Self {
        Self { layer, weight, bias: None }
    }

    /// `V` of the weights, `m x (n - 1)`, and of the bias, `m` numbers.
    pub fn with_bias(layer: usize, weight: MatMut<'a, T>, bias: &'a mut [T]) -> Self {
        Self { layer, weight, bias: Some(bias) }
    }

    /// The joint gradient of `layer` at the front of `flat`, and what follows it.
    pub(crate) fn first_of(
        flat: &'a mut [T],
        layer: usize,
        shape: LayerShape,
    ) -> Result<(Self, &'a mut [T]), LayerError> {
        let error = ShapeError::new([shape.weights(), 1], [flat.len(), 1]);
        let (block, tail) = flat
            .split_at_mut_checked(shape.weights())
            .ok_or(LayerErrorKind::Shape { quantity: Quantity::Gradient, error }.at(layer))?;
        let weight = MatMut::row_major(block, shape.outputs(), shape.inputs())
            .map_err(|error| LayerErrorKind::Internal(error).at(layer))?;
        Ok((Self::joint(layer, weight), tail))
    }

    /// Index of the layer in the network.
    pub fn layer(&self) -> usize {
        self.layer
    }

    pub(crate) fn expect_shape(&self, shape: LayerShape) -> Result<(), LayerErrorKind> {
        let quantity = Quantity::Gradient;
        let weight = [self.weight.rows(), self.weight.cols()];
        match &self.bias {
            None => quantity.expect([shape.outputs(), shape.inputs()], weight),
            Some(bias) if shape.has_bias() => {
                quantity.expect([shape.outputs(), shape.features()], weight)?;
                quantity.expect([shape.outputs(), 1], [bias.len(), 1])
            }
            Some(bias) => {
                let error = ShapeError::new([0, 1], [bias.len(), 1]);
                Err(LayerErrorKind::Shape { quantity, error })
            }
        }
    }

    /// Row `index` of the joint `m x n` gradient.
    pub(crate) fn read_row(&self, index: usize, out: &mut [T]) {
        let (weights, rest) = out.split_at_mut(self.weight.cols());
        let weight = self.weight.as_ref();
        match weight.row(index) {
            Some(row) => weights.copy_from_slice(row),
            None => {
                for (column, value) in weights.iter_mut().enumerate() {
                    *value = weight.at(index, column);
                }
            }
        }
        if let (Some(bias), [last]) = (&self.bias, rest) {
            *last = bias[index];
        }
    }

    /// Overwrites row `index` of the joint gradient.
    pub(crate) fn write_row(&mut self, index: usize, row: &[T]) {
        let (weights, rest) = row.split_at(self.weight.cols());
        match self.weight.row_mut(index) {
            Some(out) => out.copy_from_slice(weights),
            None => {
                for (column, &value) in weights.iter().enumerate() {
                    self.weight.set(index, column, value);
                }
            }
        }
        if let (Some(bias), [last]) = (&mut self.bias, rest) {
            bias[index] = *last;
        }
    }
}
