//! A short training run on made-up evidence, whose every step can be compared to the bit.

use super::{bits, random, saved};
use kfac_core::evidence::{OutputGradients, Rows};
use kfac_core::linalg::{Kernel, MatMut, MatRef, Scalar};
use kfac_core::map::FactorMap;
use kfac_core::{LayerGradient, LayerShape, Observation, Preconditioner};

pub const NET: [LayerShape; 3] =
    [LayerShape::dense(4, 3), LayerShape::dense(3, 5).without_bias(), LayerShape::dense(5, 2)];
pub const LAST: usize = NET.len() - 1;
pub const CASES: usize = 6;

/// What one layer contributes to one step.
pub struct Evidence<T> {
    pub shape: LayerShape,
    pub inputs: Vec<T>,
    pub gradients: Vec<T>,
}

impl<T: Scalar> Evidence<T> {
    pub fn at(step: usize, layer: usize) -> Self {
        let (shape, seed) = (NET[layer], (1 + 100 * step + 10 * layer) as u64);
        Self {
            shape,
            inputs: random(CASES * shape.features(), seed),
            gradients: random(CASES * shape.outputs(), seed + 1),
        }
    }

    /// Adds some of the cases.
    pub fn add_cases<M: FactorMap<T>, K: Kernel<T>>(
        &self,
        observation: &mut Observation<'_, '_, T, M, K>,
        layer: usize,
        cases: std::ops::Range<usize>,
        scratch: &mut [T],
    ) -> Result<(), kfac_core::LayerError> {
        let (n, m) = (self.shape.features(), self.shape.outputs());
        let a = MatRef::row_major(&self.inputs, CASES, n).unwrap().block(cases.clone(), 0..n).unwrap();
        let g = MatRef::row_major(&self.gradients, CASES, m).unwrap().block(cases, 0..m).unwrap();
        observation.add(layer, &Rows(a), OutputGradients::per_case(g), scratch)
    }

    pub fn add<M: FactorMap<T>, K: Kernel<T>>(
        &self,
        observation: &mut Observation<'_, '_, T, M, K>,
        layer: usize,
        scratch: &mut [T],
    ) -> Result<(), kfac_core::LayerError> {
        self.add_cases(observation, layer, 0..CASES, scratch)
    }
}

/// Gradients of all layers, one after the other.
pub fn gradients<T: Scalar>(step: usize) -> Vec<T> {
    random(NET.iter().map(|shape| shape.weights()).sum(), 7_000 + step as u64)
}

/// The gradients of all layers in one slice, as views.
pub fn views<'v, T: Scalar>(flat: &'v mut [T]) -> Vec<LayerGradient<'v, T>> {
    let mut rest = flat;
    let mut views = vec![];
    for (layer, shape) in NET.iter().enumerate() {
        let (block, tail) = rest.split_at_mut(shape.weights());
        let weight = MatMut::row_major(block, shape.outputs(), shape.inputs()).unwrap();
        views.push(LayerGradient::joint(layer, weight));
        rest = tail;
    }
    views
}

/// All that a step leaves behind: the saved state, and the bits of `U`.
#[derive(Debug, PartialEq)]
pub struct Mark {
    pub state: Vec<u8>,
    pub u: Vec<u64>,
}

/// One step: every layer's evidence, where it is wanted, then refresh and precondition. The damping moves too.
pub fn step<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    step: usize,
    scratch: &mut [T],
) -> Mark {
    observe(kfac, step, 0..NET.len(), scratch);
    finish(kfac, step, scratch)
}

/// The evidence of some layers.
pub fn observe<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    step: usize,
    layers: std::ops::Range<usize>,
    scratch: &mut [T],
) {
    if kfac.wants_statistics() {
        let mut observation = kfac.observe(CASES);
        for layer in layers {
            Evidence::at(step, layer).add(&mut observation, layer, scratch).unwrap();
        }
    }
}

/// Also those of layers that were never observed, which `is_ready` does not ask of.
pub fn has_all_inverses<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    kfac: &Preconditioner<'_, T, M, K>,
) -> bool {
    (0..NET.len()).all(|layer| kfac.layer_report(layer).is_some_and(|report| report.age.is_some()))
}

/// Refresh and precondition. While a layer is not ready there is no `U`.
pub fn finish<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    step: usize,
    scratch: &mut [T],
) -> Mark {
    kfac.set_damping(T::from_f64(0.1 / (1 + step) as f64)).unwrap();
    kfac.refresh(scratch).unwrap();
    let mut u = gradients(step);
    if has_all_inverses(kfac) {
        kfac.precondition_flat(&mut u, scratch).unwrap();
    } else {
        u.clear();
    }
    Mark { state: saved(kfac), u: bits(&u) }
}
