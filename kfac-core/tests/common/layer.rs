//! One layer, shown one batch; and its Fisher block from the gradients of the cases, one by one.

use super::Room;
use super::dense::Matrix;
use kfac_core::LayerShape;
use kfac_core::evidence::{Inputs, OutputGradients};
use kfac_core::linalg::{Kernel, Scalar};
use kfac_core::map::FactorMap;

/// A layer with its evidence.
pub struct OneLayer<'a, T, I> {
    pub shape: LayerShape,
    pub inputs: &'a I,
    pub gradients: OutputGradients<'a, T>,
    pub lambda: f64,
}

impl<T: Scalar, I: Inputs<T>> OneLayer<'_, T, I> {
    /// `U`, after one `add` and a refresh.
    pub fn precondition<M: FactorMap<T>, K: Kernel<T>>(&self, kernel: K, map: M, v: &[T]) -> Vec<T> {
        let net = [self.shape];
        let mut room = Room::new::<M, K>(&net);
        let (mut kfac, scratch) = room.precondition(&net, map, kernel);
        kfac.observe(self.inputs.cases()).add(0, self.inputs, self.gradients, scratch).unwrap();
        kfac.set_damping(T::from_f64(self.lambda)).unwrap();
        kfac.refresh(scratch).unwrap();
        let mut u = v.to_vec();
        kfac.precondition_flat(&mut u, scratch).unwrap();
        u
    }
}

/// Rows `ā` and `g` of the positions of a case.
pub type CaseRows = Vec<(Vec<f64>, Vec<f64>)>;

/// `Σ g āᵀ` of a case, row-major.
pub fn case_gradient(shape: LayerShape, rows: &CaseRows) -> Vec<f64> {
    let mut gradient = Matrix::zeros(shape.outputs(), shape.inputs());
    rows.iter().for_each(|(a, g)| gradient.add_outer(1.0, g, a));
    gradient.data
}

/// `E[∇w ∇wᵀ]` over the gradients of the cases.
pub fn fisher_block(gradients: &[Vec<f64>]) -> Matrix {
    let mut block = Matrix::zeros(gradients[0].len(), gradients[0].len());
    gradients.iter().for_each(|case| block.add_outer(1.0 / gradients.len() as f64, case, case));
    block
}

/// `V / (diag(F) + λ)`.
pub fn over_diagonal(block: &Matrix, lambda: f64, v: &[f64]) -> Vec<f64> {
    v.iter().enumerate().map(|(i, v)| v / (block.at(i, i) + lambda)).collect()
}
