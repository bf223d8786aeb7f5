use super::{Layer, Moving, Nonlinearity, fill_with_bias, weight_matrix};
use crate::engine::Engine;
use crate::tape::{Evidence, LayerTape, matrix, resize};
use kfac_core::LayerShape;
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// A tanh recurrent layer: `h_t = tanh(W [x_t; h_{t-1}; 1])`, `h_0 = 0`. Input and recurrent weights are one block.
#[derive(Clone, Copy, Debug)]
pub struct Recurrent {
    shape: [LayerShape; 1],
    inputs: usize,
    steps: usize,
    readout: Readout,
}

/// What a recurrent layer passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readout {
    /// The state after the last step.
    Last,
    /// The states after all steps, in order.
    All,
}

impl Recurrent {
    /// `hidden` units over `steps` steps of `inputs` numbers.
    pub fn new(inputs: usize, hidden: usize, steps: usize, readout: Readout) -> Self {
        Self { shape: [LayerShape::recurrent(inputs, hidden)], inputs, steps, readout }
    }

    fn hidden(&self) -> usize {
        self.shape[0].outputs()
    }

    /// What is passed on, out of `states`: `cases x steps x hidden`.
    fn read_out<T: Scalar>(&self, states: &[T], out: &mut Vec<T>) {
        out.clear();
        match self.readout {
            Readout::All => out.extend_from_slice(states),
            Readout::Last => {
                for case in states.chunks_exact(self.steps * self.hidden()) {
                    out.extend_from_slice(&case[(self.steps - 1) * self.hidden()..]);
                }
            }
        }
    }

    /// Step `step` of rows `(case, step) x width`, as a matrix `cases x width`.
    fn at_step<'a, T: Scalar>(&self, rows: &'a [T], width: usize, step: usize) -> MatRef<'a, T> {
        let cases = rows.len() / (self.steps * width);
        let stride = self.steps * width;
        MatRef::with_strides(&rows[step * width..], [cases, width], [stride, 1]).expect("whole sequences")
    }

    fn at_step_mut<'a, T: Scalar>(&self, rows: &'a mut [T], width: usize, step: usize) -> MatMut<'a, T> {
        let cases = rows.len() / (self.steps * width);
        let stride = self.steps * width;
        MatMut::with_strides(&mut rows[step * width..], [cases, width], [stride, 1]).expect("whole sequences")
    }

    /// The recurrent columns of the block: `hidden x hidden`.
    fn recurrent_weights<'a, T: Scalar>(&self, block: &'a [T]) -> MatRef<'a, T> {
        self.columns(block, self.inputs, self.hidden())
    }

    /// The input columns of the block: `hidden x inputs`.
    fn input_weights<'a, T: Scalar>(&self, block: &'a [T]) -> MatRef<'a, T> {
        self.columns(block, 0, self.inputs)
    }

    fn columns<'a, T: Scalar>(&self, block: &'a [T], from: usize, count: usize) -> MatRef<'a, T> {
        MatRef::with_strides(&block[from..], [self.hidden(), count], [self.shape[0].inputs(), 1])
            .expect("a block holds its shape")
    }
}

impl<T: Scalar, K: Kernel<T>> Layer<T, K> for Recurrent {
    fn input_len(&self) -> usize {
        self.steps * self.inputs
    }

    fn output_len(&self) -> usize {
        match self.readout {
            Readout::Last => self.hidden(),
            Readout::All => self.steps * self.hidden(),
        }
    }

    fn blocks(&self) -> &[LayerShape] {
        &self.shape
    }

    fn forward(&self, weights: &[T], input: &[T], tape: &mut LayerTape<T>, engine: &mut Engine<T, K>) {
        let [shape] = self.shape;
        let (h, width) = (self.hidden(), shape.features());
        let cases = input.len() / (self.steps * self.inputs);
        // Rows [x_t, h_{t-1}] of the block, and the states h_t.
        let (rows, states) = (&mut tape.blocks[0].inputs, &mut tape.memo);
        resize(rows, cases * self.steps * width);
        resize(states, cases * self.steps * h);
        for (row, x) in rows.chunks_exact_mut(width).zip(input.chunks_exact(self.inputs)) {
            row[..self.inputs].copy_from_slice(x);
        }
        fill_with_bias(weights, shape, states.chunks_exact_mut(h));
        for step in 0..self.steps {
            for case in 0..cases {
                let index = case * self.steps + step;
                let previous = &mut rows[index * width + self.inputs..][..h];
                match step {
                    0 => previous.fill(T::ZERO),
                    _ => previous.copy_from_slice(&states[(index - 1) * h..][..h]),
                }
            }
            engine.add_product(
                self.at_step_mut(states, h, step),
                self.at_step(rows, width, step),
                weight_matrix(weights, shape).transposed(),
            );
            for case in 0..cases {
                for state in &mut states[(case * self.steps + step) * h..][..h] {
                    *state = state.tanh();
                }
            }
        }
        self.read_out(&tape.memo, &mut tape.output);
    }

    fn backward(
        &self,
        weights: &[T],
        tape: &mut LayerTape<T>,
        input_gradient: &mut [T],
        engine: &mut Engine<T, K>,
    ) {
        let (h, states) = (self.hidden(), &tape.memo);
        let cases = states.len() / (self.steps * h);
        let g = &mut tape.blocks[0].gradients;
        resize(g, states.len());
        g.fill(T::ZERO);
        // First the gradients at h_t that come from outside, then, from the last step on, those from h_{t+1}.
        match self.readout {
            Readout::All => g.copy_from_slice(&tape.output_gradient),
            Readout::Last => {
                let last_steps = g.chunks_exact_mut(self.steps * h);
                for (case, gradient) in last_steps.zip(tape.output_gradient.chunks_exact(h)) {
                    case[(self.steps - 1) * h..].copy_from_slice(gradient);
                }
            }
        }
        let mut later = std::mem::take(&mut engine.panel);
        for step in (0..self.steps).rev() {
            if step + 1 < self.steps {
                resize(&mut later, cases * h);
                let carried = MatMut::row_major(&mut later, cases, h).expect("sized above");
                engine.set_product(carried, self.at_step(g, h, step + 1), self.recurrent_weights(weights));
            }
            for case in 0..cases {
                let at = (case * self.steps + step) * h;
                for (unit, g) in g[at..][..h].iter_mut().enumerate() {
                    let from_later = if step + 1 < self.steps { later[case * h + unit] } else { T::ZERO };
                    *g = (*g + from_later) * Nonlinearity::Tanh.slope(states[at + unit]);
                }
            }
        }
        engine.panel = later;
        if !input_gradient.is_empty() {
            let rows = cases * self.steps;
            let out = MatMut::row_major(input_gradient, rows, self.inputs).expect("same rows");
            engine.set_product(out, matrix(g, h), self.input_weights(weights));
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
        let (h, states) = (self.hidden(), &tape.memo);
        let cases = states.len() / (self.steps * h);
        // What the moving weights do to s at all steps at once; then the states carry it on.
        let mut tangents = std::mem::take(&mut engine.panel);
        resize(&mut tangents, states.len());
        fill_with_bias(moving.direction, shape, tangents.chunks_exact_mut(h));
        let rows = matrix(&tape.blocks[0].inputs, shape.features());
        let mut all = MatMut::row_major(&mut tangents, cases * self.steps, h).expect("sized above");
        engine.add_product(all.reborrow(), rows, weight_matrix(moving.direction, shape).transposed());
        if !input_tangent.is_empty() {
            let moved = matrix(input_tangent, self.inputs);
            engine.add_product(all, moved, self.input_weights(moving.weights).transposed());
        }
        let mut carried = std::mem::take(&mut engine.panel_product);
        resize(&mut carried, cases * h);
        for step in 0..self.steps {
            if step > 0 {
                let out = MatMut::row_major(&mut carried, cases, h).expect("sized above");
                let previous = self.at_step(&tangents, h, step - 1);
                engine.set_product(out, previous, self.recurrent_weights(moving.weights).transposed());
            }
            for case in 0..cases {
                let at = (case * self.steps + step) * h;
                for (unit, tangent) in tangents[at..][..h].iter_mut().enumerate() {
                    let from_earlier = if step > 0 { carried[case * h + unit] } else { T::ZERO };
                    *tangent = (*tangent + from_earlier) * Nonlinearity::Tanh.slope(states[at + unit]);
                }
            }
        }
        self.read_out(&tangents, &mut tape.output_tangent);
        (engine.panel, engine.panel_product) = (tangents, carried);
    }

    fn evidence<'t>(&self, block: usize, tape: &'t LayerTape<T>) -> Evidence<'t, T> {
        Evidence::of_rows(&tape.blocks[block], self.shape[block], self.steps)
    }
}
