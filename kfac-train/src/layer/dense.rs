use super::{Layer, Moving, fill_with_bias, weight_matrix};
use crate::engine::Engine;
use crate::tape::{Evidence, LayerTape, matrix, resize};
use kfac_core::LayerShape;
use kfac_linalg::{Kernel, MatMut, Scalar};

/// `s = W [a; 1]` at every position of a case.
#[derive(Clone, Copy, Debug)]
pub struct Dense {
    shape: [LayerShape; 1],
    positions: usize,
}

impl Dense {
    /// One position.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        Self { shape: [LayerShape::dense(inputs, outputs)], positions: 1 }
    }

    /// The same weights at each of `positions` positions: input and output are `positions` rows per case.
    pub fn at_positions(self, positions: usize) -> Self {
        Self { positions, ..self }
    }
}

impl<T: Scalar, K: Kernel<T>> Layer<T, K> for Dense {
    fn input_len(&self) -> usize {
        self.positions * self.shape[0].features()
    }

    fn output_len(&self) -> usize {
        self.positions * self.shape[0].outputs()
    }

    fn blocks(&self) -> &[LayerShape] {
        &self.shape
    }

    fn forward(&self, weights: &[T], input: &[T], tape: &mut LayerTape<T>, engine: &mut Engine<T, K>) {
        let [shape] = self.shape;
        let block = &mut tape.blocks[0];
        block.inputs.clear();
        block.inputs.extend_from_slice(input);
        let (rows, m) = (input.len() / shape.features(), shape.outputs());
        resize(&mut tape.output, rows * m);
        fill_with_bias(weights, shape, tape.output.chunks_exact_mut(m));
        let s = MatMut::row_major(&mut tape.output, rows, m).expect("sized above");
        engine.add_product(s, matrix(input, shape.features()), weight_matrix(weights, shape).transposed());
    }

    fn backward(
        &self,
        weights: &[T],
        tape: &mut LayerTape<T>,
        input_gradient: &mut [T],
        engine: &mut Engine<T, K>,
    ) {
        let [shape] = self.shape;
        let gradients = &mut tape.blocks[0].gradients;
        gradients.clear();
        gradients.extend_from_slice(&tape.output_gradient);
        if !input_gradient.is_empty() {
            let g = matrix(gradients, shape.outputs());
            let out = MatMut::row_major(input_gradient, g.rows(), shape.features()).expect("same rows");
            engine.set_product(out, g, weight_matrix(weights, shape));
        }
    }

    fn tangent(
        &self,
        moving: Moving<'_, T>,
        input_tangent: &[T],
        tape: &mut LayerTape<T>,
        engine: &mut Engine<T, K>,
    ) {
        let [shape] = self.shape;
        let a = matrix(&tape.blocks[0].inputs, shape.features());
        let (rows, m) = (a.rows(), shape.outputs());
        resize(&mut tape.output_tangent, rows * m);
        fill_with_bias(moving.direction, shape, tape.output_tangent.chunks_exact_mut(m));
        let mut out = MatMut::row_major(&mut tape.output_tangent, rows, m).expect("sized above");
        engine.add_product(out.reborrow(), a, weight_matrix(moving.direction, shape).transposed());
        if !input_tangent.is_empty() {
            let moved = matrix(input_tangent, shape.features());
            engine.add_product(out, moved, weight_matrix(moving.weights, shape).transposed());
        }
    }

    fn evidence<'t>(&self, block: usize, tape: &'t LayerTape<T>) -> Evidence<'t, T> {
        Evidence::of_rows(&tape.blocks[block], self.shape[block], self.positions)
    }
}
