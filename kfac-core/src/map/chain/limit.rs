use super::super::basis::{ROTATION, bases, largest, sandwich};
use super::super::{
    Cost, Cubic, DampingInForce, FactorMap, Map, MapError, PerCase, RefreshUnit, Refreshed, Routine,
    Workspace, take,
};
use super::{Bound, ChainMap, Correlation, split};
use crate::damping::split::Split;
use crate::error::SettingError;
use crate::evidence::{Evidence, Inputs};
use crate::memory::{LayerState, Layout, SideLayout};
use crate::shape::Side;
use crate::statistics::lag;
use kfac_linalg::eigh::{Eigensolver, Jacobi, Method, Outcome, Qr};
use kfac_linalg::product::{Accumulate, ProductError};
use kfac_linalg::{Kernel, MatRef, Scalar};

/// The inverse of a chain's Fisher block in the limit of long sequences, whatever the lag moments (the paper's option 2).
/// Its error falls like `1/T`.
///
/// With `Ψ̂ᵀΨ̂ = E diag(μ) Eᵀ` on either side: `V <- G₀^(-1/2) V A₀^(-1/2)`, then `V <- V - Ψ̂_Gᵀ V Ψ̂_A`, then
/// `V <- E_G [(E_Gᵀ V E_A) / (1 - μ_G μ_Aᵀ)] E_Aᵀ`, then `V <- V - Ψ̂_G V Ψ̂_Aᵀ`, then `U = G₀^(-1/2) V A₀^(-1/2)`.
/// Kept are `X₀^(-1/2) E` and `Eᵀ Ψ̂ E`, in whose coordinates the eight products of the other steps suffice. The damping is
/// that of the last refresh.
///
/// `μ` is bounded by `0.95²`, unless it is set otherwise, and always by 1; `Ψ̂` itself is left as it is, so that `U` is symmetric
/// and positive semidefinite in `V` whatever the bound.
///
/// # Source
/// Martens, Ba and Johnson 2018 (ICLR, openreview HyMTkQZAb), option 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChainLimit<S = Qr> {
    /// What decomposes moments and correlations.
    pub solver: S,
    bound: Bound,
}

impl ChainLimit<Qr> {
    /// Decomposes by QR, the fastest way at every size.
    pub const fn full() -> Self {
        Self { solver: Qr, bound: Bound::DEFAULT }
    }
}

impl ChainLimit<Jacobi> {
    /// Decomposes by Jacobi's method, whose code is smaller.
    pub const fn jacobi() -> Self {
        Self { solver: Jacobi { budget: kfac_linalg::eigh::jacobi::Budget::FULL }, bound: Bound::DEFAULT }
    }
}

impl<S> ChainLimit<S> {
    /// Sets the largest singular value of `Ψ̂` that is divided by: `μ` is bounded by its square.
    ///
    /// # Errors
    /// [`SettingError`] unless it lies in `(0, 1]`.
    pub fn with_bound(self, bound: f64) -> Result<Self, SettingError> {
        Ok(Self { bound: Bound::new(bound)?, ..self })
    }

    /// Leaves every correlation as it is found, up to 1. Where it is 1 on both sides, the refresh fails.
    #[must_use]
    pub fn without_bound(self) -> Self {
        Self { bound: Bound::NONE, ..self }
    }
}

impl Default for ChainLimit<Qr> {
    fn default() -> Self {
        Self::full()
    }
}

impl<T: Scalar, S: Eigensolver> Map<T> for ChainLimit<S> {
    const NAME: &'static str = match S::METHOD {
        Method::Qr => "limit of a chain",
        Method::Jacobi => "limit of a chain by jacobi",
    };
    /// At each side the moment, the lag moment, `X₀^(-1/2) E`, `Eᵀ Ψ̂ E`, `μ`.
    const LAYOUT: Layout = Layout::of_both_sides(SideLayout { square: 3, diagonal: 1, ..SideLayout::MOMENT });
    const UNIT: RefreshUnit = RefreshUnit::Layer;
    const DAMPING: DampingInForce = DampingInForce::LastRefresh;
    /// Both squares and `μ` of both sides until all are known to be good, two squares and one vector to work in.
    const REFRESH: Workspace = Workspace {
        both_squares: 2,
        largest_squares: 2,
        vectors: 2,
        per_weight: 0,
        routine: Routine::EighAndProducts(S::METHOD),
    };
    const APPLY: Workspace = ROTATION;
    const PER_CASE: PerCase = PerCase::Lags;

    /// Two decompositions and six products a side.
    fn cost(&self) -> Cost {
        let decomposition = S::METHOD.flops(1, self.solver.planned_sweeps(1));
        Cost { unit: RefreshUnit::Layer, cubic: Cubic::Both(2 * decomposition + 12) }
    }

    fn refresh<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        side: Side,
        lambda: T,
        mut scratch: &mut [T],
    ) -> Result<Refreshed, MapError> {
        let (n, m, most) = (layer.input.size, layer.output.size, layer.shape.largest_side());
        let split = split(layer, lambda)?;
        let (input, output) = (take(&mut scratch, 2 * n * n)?, take(&mut scratch, 2 * m * m)?);
        let (mu_a, mu_g) = (take(&mut scratch, n)?, take(&mut scratch, m)?);
        let squares = take(&mut scratch, 2 * most * most)?;

        let mut sweeps = 0;
        for (side, arrays, kept, mu) in [
            (Side::Input, &layer.input, &mut *input, &mut *mu_a),
            (Side::Output, &layer.output, &mut *output, &mut *mu_g),
        ] {
            let correlation = Correlation { kernel, solver: self.solver, side, arrays };
            let square = arrays.size * arrays.size;
            let ((basis, psi), (one, rest)) = (kept.split_at_mut(square), squares.split_at_mut(square));
            let found =
                correlation.in_singular_basis(split, [basis, psi, one, &mut rest[..square]], mu, scratch)?;
            let bound = T::from_f64(self.bound.0 * self.bound.0);
            mu.iter_mut().for_each(|mu| *mu = mu.minimum(bound).maximum(T::ZERO));
            sweeps = sweeps.max(found.sweeps);
        }
        let correlation = largest(mu_g) * largest(mu_a);
        let weight = T::ONE - correlation;
        let is_positive = weight > T::ZERO;
        if !is_positive {
            let (correlation, weight) = (correlation.to_f64(), weight.to_f64());
            return Err(MapError::ChainWeight { correlation, weight });
        }

        // Everything stands: only now is the layer touched.
        layer.input.square[n * n..].copy_from_slice(input);
        layer.output.square[m * m..].copy_from_slice(output);
        layer.input.diagonal.copy_from_slice(mu_a);
        layer.output.diagonal.copy_from_slice(mu_g);
        let flops = Map::<T>::cost(self).flops(layer.shape, side);
        Ok(Refreshed { flops, sweeps, zero_trace: matches!(split, Split::Replace { .. }), is_kept: false })
    }

    fn apply<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        _lambda: T,
        v: &mut [T],
        scratch: &mut [T],
    ) -> Result<(), MapError> {
        let (basis, psi) = (bases(layer, 1)?, bases(layer, 2)?);
        let (replace, subtract) = (Accumulate::Replace(T::ONE), Accumulate::Add(-T::ONE));
        sandwich(kernel, basis.map(MatRef::transposed), replace, v, scratch)?;
        sandwich(kernel, psi.map(MatRef::transposed), subtract, v, scratch)?;
        for (row, &g) in v.chunks_exact_mut(layer.input.size).zip(&*layer.output.diagonal) {
            row.iter_mut().zip(&*layer.input.diagonal).for_each(|(v, &a)| *v /= T::ONE - g * a);
        }
        sandwich(kernel, psi, subtract, v, scratch)?;
        sandwich(kernel, basis, replace, v, scratch)
    }
}

impl<T: Scalar, K: Kernel<T>, S: Eigensolver> Correlation<'_, '_, T, K, S> {
    /// `basis` with `basisᵀ X₀ basis = I`, and `psi = basisᵀ X₁ basis` with `psiᵀ psi = diag(mu)`.
    /// `basis`, `psi`, `one`, `two`: `n²` numbers.
    fn in_singular_basis(
        &self,
        split: Split<T>,
        [basis, psi, one, two]: [&mut [T]; 4],
        mu: &mut [T],
        scratch: &mut [T],
    ) -> Result<Outcome, MapError> {
        let whitened = self.whiten(split, [basis, one, two], scratch)?;
        self.multiply(two, self.view(one)?.transposed(), self.view(one)?, scratch)?;
        let e = psi;
        let outcome = self.decompose(two, e, mu, scratch)?;
        self.multiply(two, self.view(basis)?, self.view(e)?, scratch)?;
        basis.copy_from_slice(two);
        self.multiply(two, self.view(one)?, self.view(e)?, scratch)?;
        self.multiply(one, self.view(e)?.transposed(), self.view(two)?, scratch)?;
        let psi = e;
        psi.copy_from_slice(one);
        self.expect_finite([basis, psi, mu])?;
        Ok(Outcome { sweeps: outcome.sweeps.max(whitened.sweeps), ..outcome })
    }
}

impl<T: Scalar, S: Eigensolver> FactorMap<T> for ChainLimit<S> {
    fn learn<K: Kernel<T>, I: Inputs<T> + ?Sized>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        evidence: &Evidence<'_, T, I>,
        per_case: T,
        scratch: &mut [T],
    ) -> Result<(), ProductError> {
        lag::add(kernel, layer, evidence, per_case, scratch)
    }
}

impl<T: Scalar, S: Eigensolver> ChainMap<T> for ChainLimit<S> {}
