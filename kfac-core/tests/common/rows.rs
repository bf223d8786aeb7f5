//! Rows of a batch to be preconditioned, and the gradient that they make.

use super::{Room, random};
use kfac_core::evidence::{Inputs, OutputGradients, Rows};
use kfac_core::linalg::{Kernel, MatMut, MatRef, Scalar};
use kfac_core::map::{FactorMap, Map, RowsMap};
use kfac_core::memory::rows_scratch_len;
use kfac_core::report::Preconditioned;
use kfac_core::{LayerError, LayerGradient, LayerShape, Preconditioner};

/// Wide, tall without a bias, a single output, a single input, one by one, and one with room for large batches.
pub const NET: [LayerShape; 6] = [
    LayerShape::dense(11, 4),
    LayerShape::dense(3, 9).without_bias(),
    LayerShape::dense(6, 1),
    LayerShape::dense(1, 4).without_bias(),
    LayerShape::dense(1, 1).without_bias(),
    LayerShape::dense(24, 20),
];
pub const CASES: usize = 9;
pub const LAMBDA: f64 = 0.05;
/// At 20 x 25 some are cheaper by rows and some not, by either route; the last is more than a panel.
pub const BATCHES: [usize; 8] = [1, 2, 3, 7, 10, 19, 40, 150];

/// Runs `body` on a preconditioner that has seen two batches, with scratch for rows of the promised length, all NaN.
pub fn when_ready<T: Scalar, M: RowsMap<T> + FactorMap<T>, K: Kernel<T>>(
    (map, kernel): (M, K),
    batch: usize,
    body: impl FnOnce(&mut Preconditioner<'_, T, M, K>, &mut [T], &mut [T]),
) {
    let mut room = Room::new::<M, K>(&NET);
    let mut rows_scratch = vec![T::from_f64(f64::NAN); rows_scratch_len::<T, K, M>(&NET, batch)];
    let (mut kfac, scratch) = room.precondition(&NET, map, kernel);
    kfac.set_damping(T::from_f64(LAMBDA)).unwrap();
    for update in 0..2 {
        for (layer, shape) in NET.into_iter().enumerate() {
            let seed = 1000 * update + layer as u64;
            let a = random(CASES * shape.features(), seed);
            let g = random(CASES * shape.outputs(), 100 + seed);
            let a = Rows(MatRef::row_major(&a, CASES, shape.features()).unwrap());
            let g = OutputGradients::per_case(MatRef::row_major(&g, CASES, shape.outputs()).unwrap());
            kfac.observe(CASES).add(layer, &a, g, scratch).unwrap();
        }
        if update == 0 {
            kfac.refresh(scratch).unwrap();
        }
    }
    assert_eq!(kfac.rows_scratch_len(batch), rows_scratch.len());
    body(&mut kfac, scratch, &mut rows_scratch);
}

/// Inputs and output gradients of a batch, and `V` of them in f64.
pub struct Batch<T> {
    pub shape: LayerShape,
    pub cases: usize,
    pub inputs: Vec<T>,
    pub gradients: Vec<T>,
}

impl<T: Scalar> Batch<T> {
    pub fn new(layer: usize, cases: usize) -> Self {
        let (shape, seed) = (NET[layer], (10 * cases + layer) as u64);
        let (inputs, gradients) =
            (random(cases * shape.features(), seed), random(cases * shape.outputs(), seed + 5));
        Self { shape, cases, inputs, gradients }
    }

    pub fn rows(&self) -> Rows<'_, T> {
        Rows(MatRef::row_major(&self.inputs, self.cases, self.shape.features()).unwrap())
    }

    pub fn gradients(&self) -> MatRef<'_, T> {
        MatRef::row_major(&self.gradients, self.cases, self.shape.outputs()).unwrap()
    }

    /// `(1/b) Σ g āᵀ`.
    pub fn v(&self) -> Vec<f64> {
        let (m, n, features) = (self.shape.outputs(), self.shape.inputs(), self.shape.features());
        let mut v = vec![0.0; m * n];
        for case in 0..self.cases {
            let a = &self.inputs[case * features..][..features];
            for (at, v) in v.iter_mut().enumerate() {
                let g = self.gradients[case * m + at / n].to_f64();
                *v += g * a.get(at % n).map_or(1.0, |a| a.to_f64()) / self.cases as f64;
            }
        }
        v
    }
}

pub fn precondition<T: Scalar, M: Map<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    layer: usize,
    v: &[f64],
    scratch: &mut [T],
) -> (Vec<T>, Preconditioned<T>) {
    let mut u: Vec<T> = v.iter().map(|&v| T::from_f64(v)).collect();
    let (m, n) = (NET[layer].outputs(), NET[layer].inputs());
    let gradient = LayerGradient::joint(layer, MatMut::row_major(&mut u, m, n).unwrap());
    let report = kfac.precondition(&mut [gradient], scratch).unwrap();
    (u, report)
}

/// `U` of the rows, into memory that begins as NaN.
pub fn precondition_rows<T: Scalar, M: RowsMap<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    layer: usize,
    (inputs, gradients): (&impl Inputs<T>, OutputGradients<'_, T>),
    scratch: &mut [T],
) -> Result<(Vec<T>, Preconditioned<T>), LayerError> {
    let (m, n) = (NET[layer].outputs(), NET[layer].inputs());
    let mut u = vec![T::from_f64(f64::NAN); m * n];
    let mut out = LayerGradient::joint(layer, MatMut::row_major(&mut u, m, n).unwrap());
    let outcome = kfac.precondition_rows(inputs, gradients, &mut out, scratch);
    if outcome.is_err() {
        assert!(u.iter().all(|u| !u.is_finite()), "an error wrote to `out`");
    }
    outcome.map(|report| (u, report))
}
