//! `U` from the rows that the gradient is a sum of, without the gradient.

use super::case_gradients::CaseGradients;
use super::{Map, MapError};
use crate::evidence::{Evidence, Inputs};
use crate::memory::LayerState;
use crate::shape::LayerShape;
use kfac_linalg::product::ProductError;
use kfac_linalg::{Kernel, MatRef, Scalar};

/// A map that can take `V = (1/b) Dᵀ X` as its rows: the gradients `D` (`b x m`) at the output of a layer with one
/// position a case, and its inputs `X` (`b x n`, with the bias).
///
/// Where the batch is small beside the layer, products with `b` rows cost less than those with the `m` rows of `V`.
pub trait RowsMap<T: Scalar>: Map<T> {
    /// The products that take the place of those of [`Map::apply`].
    const ROWS: RowsRoute;

    /// Writes `U` to [`BatchRows::u`]. `None`: the sums that it returns would be lost in rounding or leave the range of
    /// `T`, and the gradient must be formed; `u` is then of no use.
    ///
    /// # Errors
    /// As for [`Map::apply`].
    fn apply_rows<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        lambda: T,
        rows: BatchRows<'_, T>,
        scratch: &mut [T],
    ) -> Result<Option<RowProducts<T>>, MapError>;
}

/// Rows to be preconditioned, and where to.
pub struct BatchRows<'a, T> {
    /// `X`: `b x n`.
    pub inputs: MatRef<'a, T>,
    /// `D`: `b x m`, of each case's own loss.
    pub gradients: MatRef<'a, T>,
    /// `m n` numbers.
    pub u: &'a mut [T],
}

impl<T: Scalar> BatchRows<'_, T> {
    /// `1/b`.
    pub(super) fn share(&self) -> T {
        T::ONE / T::from_usize(self.inputs.rows())
    }
}

/// What became of a layer's rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowProducts<T> {
    /// `Σ U·V`.
    pub inner: T,
    /// `Σ V·V`, where the way leads past it.
    pub gradient_squares: Option<T>,
}

/// Rows of a triangle that are formed at once.
pub(super) const BAND: usize = 32;

/// How a map comes from `D` and `X` to `U`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsRoute {
    /// `U = (1/b) (D G⁻¹)ᵀ (X A⁻¹)`, `Σ U·V = (1/b²) Σ (D G⁻¹ Dᵀ) ∘ (X A⁻¹ Xᵀ)`, of which the lower triangles are formed in bands of
    /// 32 rows.
    Inverses,
    /// `Q_Gᵀ V Q_A = (1/b) (D Q_G)ᵀ (X Q_A)`, from where it goes on as ever.
    Bases,
    /// The same with the orthogonal matrix of the tridiagonal form on the larger side.
    Tridiagonal,
}

impl RowsRoute {
    /// Is this way cheaper for `batch` cases than forming `V`? Counted is what the two do not share: products of `b` rows
    /// with the squares of both sides, and those for the sums, against the products of `V` with the squares.
    pub const fn is_cheaper(self, shape: LayerShape, batch: usize) -> bool {
        let (m, n, b) = (shape.outputs() as u64, shape.inputs() as u64, batch as u64);
        let squares = m.saturating_mul(m).saturating_add(n.saturating_mul(n));
        let sides = m.saturating_add(n);
        let of_rows = b.saturating_mul(2).saturating_mul(squares);
        let of_sums = match self {
            Self::Inverses => {
                let band = if batch < BAND { b } else { BAND as u64 };
                b.saturating_mul(b.saturating_add(band)).saturating_mul(sides)
            }
            Self::Bases | Self::Tridiagonal => 0,
        };
        of_rows.saturating_add(of_sums) < m.saturating_mul(n).saturating_mul(2).saturating_mul(sides)
    }

    /// The largest batch up to `most` for which it is cheaper; 0 where there is none.
    pub(crate) const fn largest_batch(self, shape: LayerShape, most: usize) -> usize {
        // Cheaper at `low` (or 0), not at `high`: the cost grows with the batch, what it is compared with does not.
        let (mut low, mut high) = (0, most.saturating_add(1));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.is_cheaper(shape, middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// `v = scale Σ g āᵀ` over all places.
pub(crate) fn form_gradient<T: Scalar, K: Kernel<T>, I: Inputs<T> + ?Sized>(
    kernel: K,
    evidence: &Evidence<'_, T, I>,
    scale: T,
    v: &mut [T],
    scratch: &mut [T],
) -> Result<(), ProductError> {
    v.fill(T::ZERO);
    CaseGradients::of_weights(kernel, evidence.shape, scratch)?.add_sum(evidence, scale, v)
}
