//! A chain of layers with its loss, and the buffers of its passes.

use crate::data::{Batch, Targets};
use crate::engine::Engine;
use crate::layer::{Layer, Moving};
use crate::tape::{BlockTape, Evidence, LayerTape, matrix, resize};
use kfac_core::LayerShape;
use kfac_core::evidence::{Inputs, OutputGradients};
use kfac_core::losses::{Loss, LossError, Target};
use kfac_core::step::FisherProducts;
use kfac_linalg::product::Accumulate;
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use std::fmt;
use std::ops::Range;

/// A chain of layers, its loss, and one batch's trace through both.
///
/// Weights are one flat vector owned by the caller, block after block, each `m x n` row-major with the bias last;
/// gradients and directions have the same layout. The passes reuse their buffers: once a batch size has been seen
/// they allocate nothing.
pub struct Network<T, K> {
    layers: Vec<Box<dyn Layer<T, K>>>,
    loss: Loss,
    /// Outputs of one row of the loss.
    outputs: usize,
    shapes: Vec<LayerShape>,
    /// Each layer's part of the weights.
    parts: Vec<Range<usize>>,
    tapes: Vec<LayerTape<T>>,
    engine: Engine<T, K>,
    /// Cases of the last forward pass.
    cases: usize,
    /// What has been run on that batch.
    passed: Option<Pass>,
    /// Output tangents of the first of two directions.
    first_tangent: Vec<T>,
    bits: Vec<u32>,
}

/// The passes whose traces other passes work on, in the order in which they are run over a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// [`Network::forward`].
    Forward,
    /// [`Network::backward`] or [`Network::backward_sampled`].
    Backward,
}

impl<T: Scalar, K: Kernel<T>> Network<T, K> {
    /// Chains `layers`, whose last one gives rows of `outputs` numbers to `loss`.
    ///
    /// # Errors
    /// [`NetworkError`] where a layer is empty, two neighbours do not fit, or the last layer's output is no multiple of
    /// `outputs`.
    pub fn new(
        layers: Vec<Box<dyn Layer<T, K>>>,
        loss: Loss,
        outputs: usize,
        kernel: K,
    ) -> Result<Self, NetworkError> {
        let mut sizes = layers.iter().map(|layer| [layer.input_len(), layer.output_len()]);
        if let Some(layer) = sizes.position(|sizes| sizes.contains(&0)) {
            return Err(NetworkError::EmptyLayer { layer });
        }
        for (index, pair) in layers.windows(2).enumerate() {
            let (given, taken) = (pair[0].output_len(), pair[1].input_len());
            if given != taken {
                return Err(NetworkError::Chain { layer: index + 1, given, taken });
            }
        }
        let given = layers.last().map_or(0, |layer| layer.output_len());
        if outputs == 0 || given == 0 || !given.is_multiple_of(outputs) {
            return Err(NetworkError::Outputs { given, outputs });
        }
        let (mut shapes, mut parts, mut tapes, mut end) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for layer in &layers {
            let start = end;
            end += layer.blocks().iter().map(|shape| shape.weights()).sum::<usize>();
            parts.push(start..end);
            shapes.extend_from_slice(layer.blocks());
            let blocks = layer.blocks().iter().map(|_| BlockTape::default()).collect();
            tapes.push(LayerTape { blocks, ..LayerTape::default() });
        }
        let engine = Engine::new(kernel);
        let first_tangent = Vec::new();
        Ok(Self {
            layers,
            loss,
            outputs,
            shapes,
            parts,
            tapes,
            engine,
            cases: 0,
            passed: None,
            first_tangent,
            bits: Vec::new(),
        })
    }

    /// Shapes of all weight blocks, in the order of the weights.
    pub fn shapes(&self) -> &[LayerShape] {
        &self.shapes
    }

    /// Number of weights.
    pub fn weight_count(&self) -> usize {
        self.shapes.iter().map(|shape| shape.weights()).sum()
    }

    /// The kernel that the passes run on.
    pub fn kernel(&self) -> K {
        self.engine.kernel()
    }

    /// Numbers per case that go in.
    pub fn input_len(&self) -> usize {
        self.layers[0].input_len()
    }

    /// The loss.
    pub fn loss_function(&self) -> Loss {
        self.loss
    }

    /// Each block's part of the weights.
    pub fn blocks(&self) -> impl Iterator<Item = (LayerShape, Range<usize>)> {
        self.shapes.iter().scan(0, |end, &shape| {
            let start = *end;
            *end += shape.weights();
            Some((shape, start..*end))
        })
    }

    /// Runs a batch through the layers.
    ///
    /// # Errors
    /// [`NetworkError`] where weights or inputs have the wrong length, or there is no case.
    pub fn forward(&mut self, weights: &[T], batch: &Batch<T>) -> Result<(), NetworkError> {
        self.expect_weights(weights)?;
        let expected = batch.cases.saturating_mul(self.input_len());
        if batch.cases == 0 || batch.inputs.len() != expected {
            return Err(NetworkError::Inputs { expected, found: batch.inputs.len(), cases: batch.cases });
        }
        self.cases = batch.cases;
        for (index, layer) in self.layers.iter().enumerate() {
            let (before, rest) = self.tapes.split_at_mut(index);
            let input = before.last().map_or(batch.inputs.as_slice(), |tape| &tape.output);
            layer.forward(&weights[self.parts[index].clone()], input, &mut rest[0], &mut self.engine);
        }
        self.passed = Some(Pass::Forward);
        Ok(())
    }

    /// Outputs of the last forward pass: rows of what the loss takes (for softmax and Bernoulli the logits); no row
    /// before the first one.
    pub fn outputs(&self) -> MatRef<'_, T> {
        matrix(&self.last_tape().output, self.outputs)
    }

    /// Mean over the cases of the loss, summed over the rows of a case. The sum is one of `f64` and rounded once: a step is
    /// judged by the difference of two such means.
    ///
    /// # Errors
    /// [`NetworkError::NoPass`] before a forward pass, [`NetworkError::Targets`] or [`NetworkError::Loss`] where the
    /// targets do not fit.
    pub fn mean_loss(&self, targets: &Targets<T>) -> Result<T, NetworkError> {
        self.expect_pass(Pass::Forward)?;
        self.expect_targets(targets)?;
        let mut total = 0.0;
        for (row, outputs) in self.output_rows().enumerate() {
            total += self.loss.value(outputs, self.target(targets, row))?.to_f64();
        }
        Ok(T::from_f64(total / self.cases as f64))
    }

    /// Backward pass from the training targets: afterwards the tape holds `g` of the training loss.
    ///
    /// # Errors
    /// [`NetworkError`] where weights or targets do not fit, or there was no forward pass.
    pub fn backward(&mut self, weights: &[T], targets: &Targets<T>) -> Result<(), NetworkError> {
        self.expect_pass(Pass::Forward)?;
        self.expect_weights(weights)?;
        self.expect_targets(targets)?;
        let mut gradient = std::mem::take(&mut self.last_tape_mut().output_gradient);
        resize(&mut gradient, self.last_tape().output.len());
        let rows = self.output_rows().zip(gradient.chunks_exact_mut(self.outputs));
        let result = rows.enumerate().try_for_each(|(row, (outputs, gradient))| {
            Ok(self.loss.gradient(outputs, self.target(targets, row), gradient)?)
        });
        self.last_tape_mut().output_gradient = gradient;
        result.map(|()| self.backward_from_outputs(weights))
    }

    /// Backward pass from targets drawn from the model: afterwards the tape holds `g` for the true Fisher.
    ///
    /// # Errors
    /// [`NetworkError`] where the weights do not fit, or there was no forward pass.
    pub fn backward_sampled(
        &mut self,
        weights: &[T],
        generator: &mut ChaCha8Rng,
    ) -> Result<(), NetworkError> {
        self.expect_pass(Pass::Forward)?;
        self.expect_weights(weights)?;
        let mut gradient = std::mem::take(&mut self.last_tape_mut().output_gradient);
        let mut bits = std::mem::take(&mut self.bits);
        resize(&mut gradient, self.last_tape().output.len());
        bits.resize(self.loss.bits_needed(self.outputs), 0);
        let result = self.output_rows().zip(gradient.chunks_exact_mut(self.outputs)).try_for_each(
            |(outputs, gradient)| {
                bits.iter_mut().for_each(|bits| *bits = generator.next_u32());
                Ok(self.loss.sampled_gradient(outputs, &bits, gradient)?)
            },
        );
        self.bits = bits;
        self.last_tape_mut().output_gradient = gradient;
        result.map(|()| self.backward_from_outputs(weights))
    }

    fn backward_from_outputs(&mut self, weights: &[T]) {
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let (before, rest) = self.tapes.split_at_mut(index);
            let input_gradient: &mut [T] = match before.last_mut() {
                Some(tape) => {
                    resize(&mut tape.output_gradient, tape.output.len());
                    &mut tape.output_gradient
                }
                None => &mut [],
            };
            let part = &weights[self.parts[index].clone()];
            layer.backward(part, &mut rest[0], input_gradient, &mut self.engine);
        }
        self.passed = Some(Pass::Backward);
    }

    /// `a` and `g` of every weight block, from the last forward and backward pass.
    ///
    /// # Errors
    /// [`NetworkError::NoPass`] where no backward pass followed the last forward pass: `a` and `g` would be those of two
    /// batches.
    pub fn evidence(
        &self,
    ) -> Result<impl Iterator<Item = (Evidence<'_, T>, OutputGradients<'_, T>)>, NetworkError> {
        self.expect_pass(Pass::Backward)?;
        Ok(self.layers.iter().zip(&self.tapes).flat_map(|(layer, tape)| {
            layer.blocks().iter().enumerate().map(move |(block, shape)| {
                let g = matrix(&tape.blocks[block].gradients, shape.outputs());
                (layer.evidence(block, tape), OutputGradients::per_case(g))
            })
        }))
    }

    /// Gradient of the mean loss: `V = (1/N) Σ g āᵀ` over cases and positions, from the last passes.
    ///
    /// # Errors
    /// [`NetworkError::Weights`] where `gradient` has the wrong length, [`NetworkError::NoPass`] where no backward pass
    /// followed the last forward pass.
    pub fn gradient(&mut self, gradient: &mut [T]) -> Result<(), NetworkError> {
        self.expect_pass(Pass::Backward)?;
        self.expect_weights(gradient)?;
        let scale = T::ONE / T::from_usize(self.cases);
        for (index, layer) in self.layers.iter().enumerate() {
            let mut rest = &mut gradient[self.parts[index].clone()];
            for (block, &shape) in layer.blocks().iter().enumerate() {
                let (out, tail) = rest.split_at_mut(shape.weights());
                rest = tail;
                let g = matrix(&self.tapes[index].blocks[block].gradients, shape.outputs());
                let evidence = layer.evidence(block, &self.tapes[index]);
                let out = MatMut::row_major(out, shape.outputs(), shape.inputs()).expect("a block's part");
                add_outer_products(out, scale, &evidence, g, &mut self.engine);
            }
        }
        Ok(())
    }

    /// `vᵀFw` for both directions, `F` the Fisher of the whole network on the batch of the last forward pass.
    ///
    /// # Errors
    /// [`NetworkError`] where weights or directions do not fit, or there was no forward pass.
    pub fn fisher_products(
        &mut self,
        weights: &[T],
        delta: &[T],
        previous: &[T],
    ) -> Result<FisherProducts<T>, NetworkError> {
        self.tangent(weights, delta)?;
        let mut first = std::mem::take(&mut self.first_tangent);
        first.clear();
        first.extend_from_slice(&self.last_tape().output_tangent);
        self.tangent(weights, previous)?;
        let second = &self.last_tape().output_tangent;

        let mut products = FisherProducts::default();
        let tangents = first.chunks_exact(self.outputs).zip(second.chunks_exact(self.outputs));
        for (outputs, (v, w)) in self.output_rows().zip(tangents) {
            products.delta_delta += self.loss.fisher_product(outputs, v, v)?;
            products.delta_previous += self.loss.fisher_product(outputs, v, w)?;
            products.previous_previous += self.loss.fisher_product(outputs, w, w)?;
        }
        self.first_tangent = first;
        let cases = T::from_usize(self.cases);
        products.delta_delta /= cases;
        products.delta_previous /= cases;
        products.previous_previous /= cases;
        Ok(products)
    }

    /// Forward-mode pass: the derivative of the outputs when the weights move along `direction`.
    ///
    /// # Errors
    /// [`NetworkError::Weights`] where weights or direction have the wrong length, [`NetworkError::NoPass`] before a
    /// forward pass.
    pub fn tangent(&mut self, weights: &[T], direction: &[T]) -> Result<MatRef<'_, T>, NetworkError> {
        self.expect_pass(Pass::Forward)?;
        self.expect_weights(weights)?;
        self.expect_weights(direction)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let (before, rest) = self.tapes.split_at_mut(index);
            let input_tangent: &[T] = before.last().map_or(&[], |tape| &tape.output_tangent);
            let part = self.parts[index].clone();
            let moving = Moving { weights: &weights[part.clone()], direction: &direction[part] };
            layer.tangent(moving, input_tangent, &mut rest[0], &mut self.engine);
        }
        Ok(matrix(&self.last_tape().output_tangent, self.outputs))
    }

    fn last_tape(&self) -> &LayerTape<T> {
        self.tapes.last().expect("a network has a layer")
    }

    fn last_tape_mut(&mut self) -> &mut LayerTape<T> {
        self.tapes.last_mut().expect("a network has a layer")
    }

    fn output_rows(&self) -> impl Iterator<Item = &[T]> {
        self.last_tape().output.chunks_exact(self.outputs)
    }

    /// The target of an output row, out of targets that fit.
    fn target<'a>(&self, targets: &'a Targets<T>, row: usize) -> Target<'a, T> {
        match targets {
            Targets::Values(values) => Target::Values(&values[row * self.outputs..][..self.outputs]),
            Targets::Classes(classes) => Target::Class(classes[row] as usize),
        }
    }

    /// Refuses targets of the wrong kind, too few, and too many: those would pair rows with the targets of others.
    fn expect_targets(&self, targets: &Targets<T>) -> Result<(), NetworkError> {
        let numbers = self.last_tape().output.len();
        let (expected, found) = match (self.loss, targets) {
            (Loss::Square | Loss::Bernoulli, Targets::Values(values)) => (numbers, values.len()),
            (Loss::Softmax, Targets::Classes(classes)) => (numbers / self.outputs, classes.len()),
            _ => return Err(LossError::WrongTarget.into()),
        };
        if expected == found { Ok(()) } else { Err(NetworkError::Targets { expected, found }) }
    }

    /// Refuses to work on a trace that is not there.
    fn expect_pass(&self, missing: Pass) -> Result<(), NetworkError> {
        if self.passed >= Some(missing) { Ok(()) } else { Err(NetworkError::NoPass { missing }) }
    }

    fn expect_weights(&self, weights: &[T]) -> Result<(), NetworkError> {
        let expected = self.weight_count();
        if weights.len() == expected {
            return Ok(());
        }
        Err(NetworkError::Weights { expected, found: weights.len() })
    }
}

/// `out = scale Σ g āᵀ` over the rows of a block, gathered in panels.
fn add_outer_products<T: Scalar, K: Kernel<T>>(
    mut out: MatMut<'_, T>,
    scale: T,
    evidence: &Evidence<'_, T>,
    g: MatRef<'_, T>,
    engine: &mut Engine<T, K>,
) {
    const PANEL: usize = 256;
    let (n, rows, positions) = (out.cols(), g.rows(), evidence.positions());
    let mut panel = std::mem::take(&mut engine.panel);
    for first in (0..rows).step_by(PANEL) {
        let count = PANEL.min(rows - first);
        resize(&mut panel, count * n);
        for (index, row) in panel.chunks_exact_mut(n).enumerate() {
            let (features, ones) = row.split_at_mut(evidence.features());
            evidence.write_row((first + index) / positions, (first + index) % positions, features);
            ones.fill(T::ONE);
        }
        let g = g.block(first..first + count, 0..out.rows()).expect("rows of the batch");
        let accumulate = if first == 0 { Accumulate::Replace(scale) } else { Accumulate::Add(scale) };
        engine.product(out.reborrow(), accumulate, g.transposed(), matrix(&panel, n));
    }
    engine.panel = panel;
}

/// A network that cannot be built, or arguments that do not fit it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum NetworkError {
    /// A layer has no input or no output.
    EmptyLayer {
        /// Its index.
        layer: usize,
    },
    /// A layer takes another number of inputs than the one before it gives.
    Chain {
        /// Its index.
        layer: usize,
        /// What it is given.
        given: usize,
        /// What it takes.
        taken: usize,
    },
    /// The last layer's output is no whole number of rows of the loss.
    Outputs {
        /// What it gives.
        given: usize,
        /// Numbers in a row.
        outputs: usize,
    },
    /// Another number of weights than the network has.
    Weights {
        /// What it has.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// No case, or inputs of another length.
    Inputs {
        /// `cases x input_len`.
        expected: usize,
        /// What was given.
        found: usize,
        /// Number of cases.
        cases: usize,
    },
    /// Another number of targets than the outputs ask for: one per number, or one class per row.
    Targets {
        /// What they ask for.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A target that does not fit the loss.
    Loss(LossError),
    /// The pass whose trace is asked for has not been run on the last batch.
    NoPass {
        /// That pass.
        missing: Pass,
    },
}

impl From<LossError> for NetworkError {
    fn from(error: LossError) -> Self {
        Self::Loss(error)
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyLayer { layer } => write!(f, "layer {layer} has no input or no output"),
            Self::Chain { layer, given, taken } => {
                write!(f, "layer {layer} takes {taken} numbers, the one before it gives {given}")
            }
            Self::Outputs { given, outputs } => {
                write!(f, "the last layer gives {given} numbers, which are no rows of {outputs}")
            }
            Self::Weights { expected, found } => write!(f, "the network has {expected} weights, not {found}"),
            Self::Inputs { expected, found, cases } => {
                write!(f, "{cases} cases take {expected} inputs, {found} were given")
            }
            Self::Targets { expected, found } => {
                write!(f, "the outputs take {expected} targets, {found} were given")
            }
            Self::Loss(error) => error.fmt(f),
            Self::NoPass { missing: Pass::Forward } => f.write_str("no batch has been run forward yet"),
            Self::NoPass { missing: Pass::Backward } => {
                f.write_str("no backward pass has followed the last forward pass")
            }
        }
    }
}

impl std::error::Error for NetworkError {}
