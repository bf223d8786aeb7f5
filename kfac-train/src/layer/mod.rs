//! Layers: forward, backward and forward-mode derivative, each written once and checked against finite differences.
//!
//! A new layer is one file that implements [`Layer`]. It leaves `a` and `g` of every weight block on its tape;
//! weight gradients and Kronecker statistics come from there, so no layer computes either.

mod activation;
mod convolution;
mod dense;
mod recurrent;

pub use activation::{Activation, Nonlinearity};
pub use convolution::Convolution;
pub use dense::Dense;
pub use recurrent::{Readout, Recurrent};

use crate::engine::Engine;
use crate::tape::{Evidence, LayerTape};
use kfac_core::LayerShape;
use kfac_linalg::{Kernel, MatRef, Scalar};

/// One stage of a network.
///
/// Batches are case-major slices: `cases x input_len` in, `cases x output_len` out.
pub trait Layer<T: Scalar, K: Kernel<T>>: Send + Sync {
    /// Numbers per case that go in.
    fn input_len(&self) -> usize;

    /// Numbers per case that come out.
    fn output_len(&self) -> usize;

    /// The weight blocks, in the order in which their numbers lie in the layer's part of the weights.
    fn blocks(&self) -> &[LayerShape];

    /// Computes `tape.output` from `input`, and remembers what the other passes need.
    fn forward(&self, weights: &[T], input: &[T], tape: &mut LayerTape<T>, engine: &mut Engine<T, K>);

    /// From `tape.output_gradient`: leaves the `g` of every block on the tape, and writes the gradient at the input
    /// to `input_gradient`, which is empty where nobody needs it.
    fn backward(
        &self,
        weights: &[T],
        tape: &mut LayerTape<T>,
        input_gradient: &mut [T],
        engine: &mut Engine<T, K>,
    );

    /// Computes `tape.output_tangent`, the derivative of the output when the weights move along `direction` and the
    /// input along `input_tangent` (empty: it does not move).
    fn tangent(
        &self,
        weights: Moving<'_, T>,
        input_tangent: &[T],
        tape: &mut LayerTape<T>,
        engine: &mut Engine<T, K>,
    );

    /// The inputs of weight block `block`, from the last forward pass.
    fn evidence<'t>(&self, block: usize, tape: &'t LayerTape<T>) -> Evidence<'t, T>;
}

/// Weights and the direction in which they move.
#[derive(Clone, Copy)]
pub struct Moving<'a, T> {
    /// Where they are.
    pub weights: &'a [T],
    /// Where they go.
    pub direction: &'a [T],
}

/// A weight block `[W b]` as `W`: `outputs x features`.
fn weight_matrix<T: Scalar>(block: &[T], shape: LayerShape) -> MatRef<'_, T> {
    MatRef::with_strides(block, [shape.outputs(), shape.features()], [shape.inputs(), 1])
        .expect("a block holds its shape")
}

/// Fills the rows of `out` with the bias `b` of a block, or with zeros.
fn fill_with_bias<'o, T: Scalar + 'o>(
    block: &[T],
    shape: LayerShape,
    rows: impl Iterator<Item = &'o mut [T]>,
) {
    for row in rows {
        if shape.has_bias() {
            let last_column = block.iter().skip(shape.features()).step_by(shape.inputs());
            for (out, &bias) in row.iter_mut().zip(last_column) {
                *out = bias;
            }
        } else {
            row.fill(T::ZERO);
        }
    }
}
