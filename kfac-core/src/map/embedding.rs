use super::basis::{decompose, decomposition_flops, largest};
use super::{
    Cost, Cubic, DampingInForce, FactorMap, Map, MapError, RefreshUnit, Refreshed, Renewal, Routine,
    Workspace, take,
};
use crate::memory::{LayerState, Layout, Moment, SideLayout};
use crate::shape::Side;
use kfac_linalg::eigh::{Eigensolver, Jacobi, Method, Qr};
use kfac_linalg::product::{Accumulate, gemm};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// `U = Q_G [(Q_Gᵀ V) / (d_G aᵀ + λ)]` with `a = diag(A)`: the input factor is kept as its diagonal, the gradient factor
/// whole, and the damping of `diag(A) (x) G + λ I` is exact.
///
/// For an embedding nothing is left out: its inputs are unit vectors ([`Tokens`](crate::evidence::Tokens)), so `A` is the
/// diagonal matrix of the tokens' frequencies, and `U` is that of [`Eigenbasis`](super::Eigenbasis). A refresh costs
/// `O(m³)` and the state `n + O(m²)`, whatever the vocabulary `n`. For other inputs the correlations between them are lost.
///
/// `a` is the running average as it stands, not that of the last refresh, so a token counts from the first update that has
/// it. Along one that was never seen, `U = V / λ`. The damping is the current one. Finished moments, a whole `A`, are
/// refused by type.
///
/// # Source
/// Martens and Grosse 2015, arXiv:1503.05671, section 4.2 for the block; Eschenhagen, Immer, Turner, Schneider and
/// Hennig 2023, arXiv:2311.00636, for its positions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Embedding<S = Qr> {
    /// What decomposes the gradient factor.
    pub solver: S,
}

impl Embedding<Qr> {
    /// Decomposes to full accuracy by QR, the fastest way at every size.
    pub const fn full() -> Self {
        Self { solver: Qr }
    }
}

impl Embedding<Jacobi> {
    /// Takes the basis that a bounded number of Jacobi's sweeps reaches.
    pub const fn bounded(sweeps: u8) -> Self {
        Self { solver: Jacobi { budget: kfac_linalg::eigh::jacobi::Budget::bounded(sweeps) } }
    }
}

impl<T: Scalar, S: Renewal> Map<T> for Embedding<S> {
    const NAME: &'static str = match <S::Solver as Eigensolver>::METHOD {
        Method::Qr => "embedding",
        Method::Jacobi => "embedding by jacobi",
    };
    /// The diagonal of `A`; `G`, its eigenvectors and eigenvalues.
    const LAYOUT: Layout = Layout {
        input: SideLayout { moment: Moment::Diagonal, ..SideLayout::MOMENT },
        output: SideLayout { square: 1, diagonal: 1, ..SideLayout::MOMENT },
        per_weight: 0,
        per_layer: 0,
    };
    const UNIT: RefreshUnit = RefreshUnit::Layer;
    const DAMPING: DampingInForce = DampingInForce::Current;
    const REFRESH: Workspace =
        Workspace { routine: Routine::OutputBasis(<S::Solver as Eigensolver>::METHOD), ..Workspace::NONE };
    /// The half-transformed gradient.
    const APPLY: Workspace = Workspace { per_weight: 1, routine: Routine::LeftProducts, ..Workspace::NONE };

    fn cost(&self) -> Cost {
        let output = decomposition_flops(self.solver);
        Cost { unit: RefreshUnit::Layer, cubic: Cubic::Sides { input: 0, output } }
    }

    fn refresh<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        _side: Side,
        _lambda: T,
        scratch: &mut [T],
    ) -> Result<Refreshed, MapError> {
        let no_inputs = layer.input.sum.iter().all(|&sum| sum == T::ZERO);
        let refreshed = decompose(kernel, self.solver, &mut layer.output, Side::Output, scratch)?;
        Ok(Refreshed { zero_trace: refreshed.zero_trace || no_inputs, ..refreshed })
    }

    fn apply<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        lambda: T,
        v: &mut [T],
        mut scratch: &mut [T],
    ) -> Result<(), MapError> {
        let (n, m) = (layer.input.size, layer.output.size);
        let (sums, normaliser) = (&*layer.input.sum, layer.input.normaliser());
        let (input, output) = (largest(sums) * normaliser, largest(layer.output.diagonal));
        if !(output * input + lambda).is_finite() {
            return Err(MapError::Range { input: input.to_f64(), output: output.to_f64() });
        }
        let qg = MatRef::row_major(layer.output.square, m, m)?;
        let half = take(&mut scratch, m * n)?;
        let replace = Accumulate::Replace(T::ONE);
        let into = MatMut::row_major(half, m, n)?;
        gemm(kernel, into, replace, qg.transposed(), MatRef::row_major(v, m, n)?, scratch)?;
        for (row, &dg) in half.chunks_exact_mut(n).zip(&*layer.output.diagonal) {
            for (value, &sum) in row.iter_mut().zip(sums) {
                *value /= dg * (sum * normaliser) + lambda;
            }
        }
        let into = MatMut::row_major(v, m, n)?;
        Ok(gemm(kernel, into, replace, qg, MatRef::row_major(half, m, n)?, scratch)?)
    }
}

impl<T: Scalar, S: Renewal> FactorMap<T> for Embedding<S> {}
