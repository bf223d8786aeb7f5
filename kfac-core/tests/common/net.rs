//! Tiny networks, written out: forward, backward, losses, and the columns of the loss Hessian's square root.

use super::dense::Matrix;
use super::golden::{Array, Case, list};
use kfac_core::evidence::{Inputs, OutputGradients, Reduced, Sequence};
use kfac_core::linalg::{Kernel, MatRef, Scalar};
use kfac_core::losses::{self, Target};
use kfac_core::map::FactorMap;
use kfac_core::{LayerShape, Observation};
use serde_json::Value;

/// An elementwise function.
#[derive(Clone, Copy, Debug)]
pub enum Activation {
    Identity,
    Tanh,
    Relu,
    Sigmoid,
}

impl Activation {
    pub fn named(name: &Value) -> Self {
        match name.as_str() {
            Some("identity") => Self::Identity,
            Some("tanh") => Self::Tanh,
            Some("relu") => Self::Relu,
            Some("sigmoid") => Self::Sigmoid,
            _ => panic!("no activation {name}"),
        }
    }

    pub fn value<T: Scalar>(self, s: T) -> T {
        match self {
            Self::Identity => s,
            Self::Tanh => s.tanh(),
            Self::Relu => s.maximum(T::ZERO),
            Self::Sigmoid => T::ONE / (T::ONE + (-s).exp()),
        }
    }

    pub fn derivative<T: Scalar>(self, s: T) -> T {
        match self {
            Self::Identity => T::ONE,
            Self::Tanh => T::ONE - s.tanh() * s.tanh(),
            Self::Relu => {
                if s > T::ZERO {
                    T::ONE
                } else {
                    T::ZERO
                }
            }
            Self::Sigmoid => self.value(s) * (T::ONE - self.value(s)),
        }
    }
}

/// `f(W ā)`.
#[derive(Clone, Debug)]
pub struct Layer<T> {
    pub shape: LayerShape,
    /// `m x n`, row-major, the bias last.
    pub w: Vec<T>,
    pub activation: Activation,
}

impl<T: Scalar> Layer<T> {
    pub fn new(w: &Array<T>, bias: bool, activation: Activation) -> Self {
        let [m, n] = w.shape[..] else { panic!("weights are a matrix") };
        let shape = if bias { LayerShape::dense(n - 1, m) } else { LayerShape::dense(n, m).without_bias() };
        Self { shape, w: w.data.clone(), activation }
    }

    /// `W ā`.
    pub fn sums(&self, a: &[T]) -> Vec<T> {
        let rows = self.w.chunks(self.shape.inputs());
        let product = |w: &[T]| -> T {
            let bias = if self.shape.has_bias() { w[a.len()] } else { T::ZERO };
            w.iter().zip(a).fold(bias, |sum, (&w, &a)| sum + w * a)
        };
        rows.map(product).collect()
    }

    /// `Wᵀ g`, without the bias column.
    pub fn backward(&self, g: &[T]) -> Vec<T> {
        let mut back = vec![T::ZERO; self.shape.features()];
        for (row, &g) in self.w.chunks(self.shape.inputs()).zip(g) {
            back.iter_mut().zip(row).for_each(|(back, &w)| *back += w * g);
        }
        back
    }
}

/// Inputs and output gradients of one layer for one case, row by row over its positions.
#[derive(Clone, Debug, Default)]
pub struct PositionRows<T> {
    /// Without the homogeneous one.
    pub inputs: Vec<Vec<T>>,
    pub gradients: Vec<Vec<T>>,
}

/// How the positions of a case enter the factors.
#[derive(Clone, Copy)]
pub enum Sharing {
    Expand,
    Reduce,
}

impl Sharing {
    pub fn add<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
        self,
        observation: &mut Observation<'_, '_, T, M, K>,
        layer: usize,
        inputs: &impl Inputs<T>,
        gradients: OutputGradients<'_, T>,
        scratch: &mut [T],
    ) {
        let added = match self {
            Self::Expand => observation.add(layer, inputs, gradients, scratch),
            Self::Reduce => observation.add(layer, &Reduced(inputs), gradients, scratch),
        };
        added.unwrap();
    }
}

/// A network on a batch. The outputs of a case are one or more loss terms, one after the other, which are summed.
pub trait Model<T: Scalar> {
    fn shapes(&self) -> Vec<LayerShape>;
    fn cases(&self) -> usize;
    fn outputs(&self, case: usize) -> &[T];
    /// Outputs of one loss term.
    fn term_len(&self) -> usize;
    /// The rows of every layer from `dl/df`.
    fn rows(&self, case: usize, gradient: &[T]) -> Vec<PositionRows<T>>;

    /// Adds every layer's evidence at the gradients `dl/df` of every case, of a loss of the given weight: here one
    /// case at a time.
    fn observe<M: FactorMap<T>, K: Kernel<T>>(
        &self,
        observation: &mut Observation<'_, '_, T, M, K>,
        gradients: &[Vec<T>],
        (weight, sharing): (T, Sharing),
        scratch: &mut [T],
    ) {
        for (case, gradient) in gradients.iter().enumerate() {
            for (layer, (rows, shape)) in self.rows(case, gradient).iter().zip(self.shapes()).enumerate() {
                let positions = rows.inputs.len();
                let (a, g) = (rows.inputs.concat(), rows.gradients.concat());
                let a = MatRef::row_major(&a, positions, shape.features()).unwrap();
                let g = MatRef::row_major(&g, positions, shape.outputs()).unwrap();
                let a = Sequence::new(a, positions).unwrap();
                sharing.add(observation, layer, &a, OutputGradients::of_weighted_nll(g, weight), scratch);
            }
        }
    }

    /// The summed loss of one case.
    fn loss(&self, loss: Loss<T>, case: usize, targets: &[T]) -> T {
        let len = self.term_len();
        let terms = self.outputs(case).chunks(len).zip(targets.chunks(loss.target_len(len)));
        terms.fold(T::ZERO, |sum, (f, y)| sum + loss.value(f, y))
    }

    /// `dl/df` of one case.
    fn loss_gradient(&self, loss: Loss<T>, case: usize, targets: &[T]) -> Vec<T> {
        let len = self.term_len();
        let terms = self.outputs(case).chunks(len).zip(targets.chunks(loss.target_len(len)));
        terms.flat_map(|(f, y)| loss.gradient(f, y)).collect()
    }

    /// `dl/df` of every case, at `targets` that lie one case after the other.
    fn loss_gradients(&self, loss: Loss<T>, targets: &[T]) -> Vec<Vec<T>> {
        let targets = targets.chunks(targets.len() / self.cases());
        targets.enumerate().map(|(case, targets)| self.loss_gradient(loss, case, targets)).collect()
    }

    fn mean_loss(&self, loss: Loss<T>, targets: &[T]) -> T {
        let targets = targets.chunks(targets.len() / self.cases()).enumerate();
        let total = targets.fold(T::ZERO, |sum, (case, targets)| sum + self.loss(loss, case, targets));
        total / T::from_usize(self.cases())
    }

    /// Columns of a square root of the Hessian of one case's loss in its outputs. Each belongs to one loss term and
    /// is zero at the others.
    fn hessian_columns(&self, loss: Loss<T>, case: usize) -> Vec<Vec<T>> {
        let (outputs, len) = (self.outputs(case), self.term_len());
        let mut columns = vec![];
        for (term, f) in outputs.chunks(len).enumerate() {
            for column in loss.hessian_columns(f) {
                let mut whole = vec![T::ZERO; outputs.len()];
                whole[term * len..][..len].copy_from_slice(&column);
                columns.push(whole);
            }
        }
        columns
    }

    /// The exact Fisher as sets of gradients, one set for each column of the loss Hessian's root, and the weight of
    /// the loss to observe them with.
    ///
    /// An add counts its cases, so the columns would be averaged; gradients of a loss of weight `1/columns` are the
    /// ones whose mean is the sum.
    fn type_2(&self, loss: Loss<T>) -> (Vec<Vec<Vec<T>>>, T) {
        let columns: Vec<_> = (0..self.cases()).map(|case| self.hessian_columns(loss, case)).collect();
        let column = |c: usize| columns.iter().map(|of_case| of_case[c].clone()).collect();
        let sets: Vec<Vec<Vec<T>>> = (0..columns[0].len()).map(column).collect();
        let weight = T::ONE / T::from_usize(sets.len());
        (sets, weight)
    }

    /// `Σ g āᵀ` of every layer for one case, `m x n`.
    fn weight_gradients(&self, case: usize, gradient: &[T]) -> Vec<Vec<T>> {
        let of_layer = |(rows, shape): (PositionRows<T>, LayerShape)| {
            let mut v = vec![T::ZERO; shape.weights()];
            for (a, g) in rows.inputs.iter().zip(&rows.gradients) {
                let a = with_one(shape, a);
                v.iter_mut().enumerate().for_each(|(at, v)| *v += g[at / a.len()] * a[at % a.len()]);
            }
            v
        };
        self.rows(case, gradient).into_iter().zip(self.shapes()).map(of_layer).collect()
    }

    /// `V` of every layer: the mean of [`weight_gradients`](Self::weight_gradients) over the cases.
    fn mean_gradients(&self, gradients: &[Vec<T>]) -> Vec<Vec<T>> {
        let mut mean: Vec<Vec<T>> =
            self.shapes().iter().map(|shape| vec![T::ZERO; shape.weights()]).collect();
        for (case, gradient) in gradients.iter().enumerate() {
            for (mean, v) in mean.iter_mut().zip(self.weight_gradients(case, gradient)) {
                mean.iter_mut().zip(v).for_each(|(mean, v)| *mean += v / T::from_usize(self.cases()));
            }
        }
        mean
    }

    /// The exact Gauss-Newton block of a layer, entry `W[i][j]` at `j m + i`: the mean of `Jᵀ H J`, by the core's
    /// Fisher products on the columns of `J`.
    fn gauss_newton_block(&self, loss: Loss<T>, layer: usize) -> Matrix {
        let (shape, len) = (self.shapes()[layer], self.term_len());
        let mut block = Matrix::zeros(shape.weights(), shape.weights());
        for case in 0..self.cases() {
            let outputs = self.outputs(case);
            let row_of_j = |o: usize| {
                let unit: Vec<T> =
                    (0..outputs.len()).map(|i| if i == o { T::ONE } else { T::ZERO }).collect();
                self.weight_gradients(case, &unit).swap_remove(layer)
            };
            let j: Vec<Vec<T>> = (0..outputs.len()).map(row_of_j).collect();
            let column = |at: usize| -> Vec<T> {
                let weight = at % shape.outputs() * shape.inputs() + at / shape.outputs();
                j.iter().map(|row| row[weight]).collect()
            };
            let columns: Vec<Vec<T>> = (0..shape.weights()).map(column).collect();
            for (p, v) in columns.iter().enumerate() {
                for (q, w) in columns.iter().enumerate() {
                    let terms = outputs.chunks(len).zip(v.chunks(len).zip(w.chunks(len)));
                    let product = terms.map(|(f, (v, w))| loss.fisher_product(f, v, w).to_f64());
                    *block.at_mut(p, q) += product.sum::<f64>() / self.cases() as f64;
                }
            }
        }
        block
    }
}

/// Where the loss of a [`DenseNet`] is taken.
#[derive(Clone, Copy, PartialEq)]
pub enum LossTerms {
    /// At every position, summed.
    PerPosition,
    /// At the mean of the outputs over the positions.
    OfMean,
}

/// Dense layers, applied at every position of every case.
pub struct DenseNet<T> {
    layers: Vec<Layer<T>>,
    terms: LossTerms,
    /// Case, position.
    traces: Vec<Vec<Trace<T>>>,
    outputs: Vec<Vec<T>>,
}

/// What a forward pass leaves.
struct Trace<T> {
    /// Input of every layer, without the homogeneous one.
    inputs: Vec<Vec<T>>,
    /// `s` of every layer.
    sums: Vec<Vec<T>>,
    outputs: Vec<T>,
}

/// Dense layers as the golden files write them.
pub fn layers<T: Scalar>(layers: &Value) -> Vec<Layer<T>> {
    let layer = |layer: &Value| {
        let bias = layer["bias"].as_bool().unwrap();
        Layer::new(&Array::read(&layer["w"]).unwrap(), bias, Activation::named(&layer["activation"]))
    };
    list(layers).iter().map(layer).collect()
}

impl<T: Scalar> DenseNet<T> {
    /// `x`: case, any number of axes of positions, width.
    pub fn new(layers: Vec<Layer<T>>, terms: LossTerms, x: &Array<T>) -> Self {
        let width = layers[0].shape.features();
        let of_case = |case| x.piece(case).chunks(width).map(|x| forward(&layers, x)).collect();
        let traces: Vec<Vec<Trace<T>>> = (0..x.shape[0]).map(of_case).collect();
        let outputs = |traces: &Vec<Trace<T>>| {
            let all: Vec<Vec<T>> = traces.iter().map(|trace| trace.outputs.clone()).collect();
            match terms {
                LossTerms::PerPosition => all.concat(),
                LossTerms::OfMean => mean(&all),
            }
        };
        let outputs = traces.iter().map(outputs).collect();
        Self { layers, terms, traces, outputs }
    }

    pub fn layers(&self) -> &[Layer<T>] {
        &self.layers
    }

    /// `f'(s)` of a layer, a row for every case, which has one position.
    pub fn derivatives(&self, layer: usize) -> Vec<T> {
        let activation = self.layers[layer].activation;
        let sums = self.traces.iter().flat_map(|positions| &positions[0].sums[layer]);
        sums.map(|&s| activation.derivative(s)).collect()
    }

    /// Inputs of a layer without the homogeneous one, a row for every case, which has one position.
    pub fn inputs(&self, layer: usize) -> Vec<T> {
        self.traces.iter().flat_map(|positions| positions[0].inputs[layer].clone()).collect()
    }

    /// `dl/ds` of every layer, from `dl/df` at one position.
    fn backward(&self, trace: &Trace<T>, gradient: &[T]) -> Vec<Vec<T>> {
        let mut gradients = vec![];
        let mut back = gradient.to_vec();
        for (layer, sums) in self.layers.iter().zip(&trace.sums).rev() {
            let g: Vec<T> =
                back.iter().zip(sums).map(|(&b, &s)| b * layer.activation.derivative(s)).collect();
            back = layer.backward(&g);
            gradients.push(g);
        }
        gradients.reverse();
        gradients
    }
}

fn forward<T: Scalar>(layers: &[Layer<T>], x: &[T]) -> Trace<T> {
    let mut trace = Trace { inputs: vec![], sums: vec![], outputs: x.to_vec() };
    for layer in layers {
        let sums = layer.sums(&trace.outputs);
        let outputs = sums.iter().map(|&s| layer.activation.value(s)).collect();
        trace.inputs.push(std::mem::replace(&mut trace.outputs, outputs));
        trace.sums.push(sums);
    }
    trace
}

fn mean<T: Scalar>(rows: &[Vec<T>]) -> Vec<T> {
    let sum = |i: usize| rows.iter().fold(T::ZERO, |sum, row| sum + row[i]);
    (0..rows[0].len()).map(|i| sum(i) / T::from_usize(rows.len())).collect()
}

impl<T: Scalar> Model<T> for DenseNet<T> {
    fn shapes(&self) -> Vec<LayerShape> {
        self.layers.iter().map(|layer| layer.shape).collect()
    }

    fn cases(&self) -> usize {
        self.traces.len()
    }

    fn outputs(&self, case: usize) -> &[T] {
        &self.outputs[case]
    }

    fn term_len(&self) -> usize {
        self.traces[0][0].outputs.len()
    }

    fn rows(&self, case: usize, gradient: &[T]) -> Vec<PositionRows<T>> {
        let positions = &self.traces[case];
        let mut rows = vec![PositionRows { inputs: vec![], gradients: vec![] }; self.layers.len()];
        for (position, trace) in positions.iter().enumerate() {
            let at_position: Vec<T> = match self.terms {
                LossTerms::PerPosition => gradient[position * self.term_len()..][..self.term_len()].to_vec(),
                LossTerms::OfMean => gradient.iter().map(|&g| g / T::from_usize(positions.len())).collect(),
            };
            let g = self.backward(trace, &at_position);
            for (rows, (a, g)) in rows.iter_mut().zip(trace.inputs.iter().zip(g)) {
                rows.inputs.push(a.clone());
                rows.gradients.push(g);
            }
        }
        rows
    }
}

/// A loss as the golden files name it: a core loss times a factor.
#[derive(Clone, Copy, Debug)]
pub struct Loss<T> {
    pub kind: losses::Loss,
    /// `scale`; twice that for `scale Σ (f - y)²`, since the core's square loss has a half.
    pub factor: T,
}

impl<T: Scalar> Loss<T> {
    pub fn of(case: &Case) -> Self {
        let loss = &case.inputs["loss"];
        let scale = loss["scale"].as_f64().unwrap();
        let (kind, factor) = match loss["kind"].as_str() {
            Some("squared") => (losses::Loss::Square, 2.0 * scale),
            Some("softmax") => (losses::Loss::Softmax, scale),
            Some("sigmoid") => (losses::Loss::Bernoulli, scale),
            _ => panic!("{}: no loss {loss}", case.label),
        };
        Self { kind, factor: T::from_f64(factor) }
    }

    /// Numbers that one target takes.
    pub fn target_len(self, outputs: usize) -> usize {
        if self.kind == losses::Loss::Softmax { 1 } else { outputs }
    }

    fn target(self, target: &[T]) -> Target<'_, T> {
        match self.kind {
            losses::Loss::Softmax => Target::Class(target[0].to_f64() as usize),
            _ => Target::Values(target),
        }
    }

    pub fn value(self, outputs: &[T], target: &[T]) -> T {
        self.factor * self.kind.value(outputs, self.target(target)).unwrap()
    }

    pub fn gradient(self, outputs: &[T], target: &[T]) -> Vec<T> {
        let mut gradient = vec![T::ZERO; outputs.len()];
        self.kind.gradient(outputs, self.target(target), &mut gradient).unwrap();
        gradient.iter().map(|&g| self.factor * g).collect()
    }

    pub fn fisher_product(self, outputs: &[T], v: &[T], w: &[T]) -> T {
        self.factor * self.kind.fisher_product(outputs, v, w).unwrap()
    }

    /// Columns of a square root of the loss Hessian: `Σ_c column columnᵀ` is the Fisher matrix of the output. From
    /// the formulas, not from the core: `I`, `diag(√p) - p √pᵀ`, `diag(√(p (1 - p)))`.
    pub fn hessian_columns(self, outputs: &[T]) -> Vec<Vec<T>> {
        let top = outputs.iter().copied().fold(outputs[0], T::maximum);
        let total = outputs.iter().fold(T::ZERO, |sum, &f| sum + (f - top).exp());
        let column = |c: usize| -> Vec<T> {
            let unit = |i: usize| if i == c { T::ONE } else { T::ZERO };
            let element = |(i, &f): (usize, &T)| match self.kind {
                losses::Loss::Square => unit(i),
                losses::Loss::Softmax => {
                    let p = |f: T| (f - top).exp() / total;
                    p(outputs[c]).sqrt() * (unit(i) - p(f))
                }
                losses::Loss::Bernoulli => {
                    let p = T::ONE / (T::ONE + (-f).exp());
                    (p * (T::ONE - p)).sqrt() * unit(i)
                }
            };
            outputs.iter().enumerate().map(|x| self.factor.sqrt() * element(x)).collect()
        };
        (0..outputs.len()).map(column).collect()
    }
}

/// `ā`.
pub fn with_one<T: Scalar>(shape: LayerShape, a: &[T]) -> Vec<T> {
    let mut a = a.to_vec();
    a.resize(shape.inputs(), T::ONE);
    a
}
