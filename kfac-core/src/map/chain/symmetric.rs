use super::super::basis::{ROTATION, bases, sandwich};
use super::super::{
    Cost, Cubic, DampingInForce, FactorMap, Map, MapError, PerCase, RefreshUnit, Refreshed, Routine,
    Workspace, take,
};
use super::weight::write_mean_weights;
use super::{Bound, ChainMap, Correlation, split};
use crate::damping::split::Split;
use crate::error::SettingError;
use crate::evidence::{Evidence, Inputs};
use crate::memory::{LayerState, Layout, SideLayout};
use crate::shape::Side;
use crate::statistics::{lag, lengths};
use kfac_linalg::eigh::{Eigensolver, Jacobi, Method, Outcome, Qr};
use kfac_linalg::product::{Accumulate, ProductError};
use kfac_linalg::{Kernel, MatRef, Scalar};

/// `U = L_G [(L_Gᵀ V L_A) ∘ T̄/D(ψ_G ψ_Aᵀ)] L_Aᵀ`: the chain with `Ψ̂` made symmetric, `(Ψ̂ + Ψ̂ᵀ)/2 = U_X diag(ψ) U_Xᵀ` and
/// `L_X = X₀^(-1/2) U_X` (the paper's option 1).
///
/// The inverse of the Fisher block of the chain that has the damped `X₀` and these lag moments, exactly and for every length,
/// where the lag moments are symmetric; where they are not, the error does not shrink with the length. [`D`](super::chain_weight) is averaged over the
/// [lengths](crate::statistics::lengths) that were seen, never taken at their mean. The damping is that of the last refresh.
///
/// `|ψ|` is bounded by 0.95, and `D` from below by `10⁻³ T̄`, unless they are set otherwise. `ψ` never exceeds 1, beyond which
/// `D` may be negative.
///
/// # Source
/// Martens, Ba and Johnson 2018 (ICLR, openreview HyMTkQZAb), option 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChainSymmetric<S = Qr> {
    /// What decomposes moments and correlations.
    pub solver: S,
    bound: Bound,
    floor: f64,
}

impl ChainSymmetric<Qr> {
    /// Decomposes by QR, the fastest way at every size.
    pub const fn full() -> Self {
        Self::with_solver(Qr)
    }
}

impl ChainSymmetric<Jacobi> {
    /// Decomposes by Jacobi's method, whose code is smaller.
    pub const fn jacobi() -> Self {
        Self::with_solver(Jacobi { budget: kfac_linalg::eigh::jacobi::Budget::FULL })
    }
}

impl<S> ChainSymmetric<S> {
    const fn with_solver(solver: S) -> Self {
        Self { solver, bound: Bound::DEFAULT, floor: 1e-3 }
    }

    /// Sets the largest magnitude of an eigenvalue `ψ`.
    ///
    /// # Errors
    /// [`SettingError`] unless it lies in `(0, 1]`.
    pub fn with_bound(self, bound: f64) -> Result<Self, SettingError> {
        Ok(Self { bound: Bound::new(bound)?, ..self })
    }

    /// Leaves every correlation as it is found, up to 1.
    #[must_use]
    pub fn without_bound(self) -> Self {
        Self { bound: Bound::NONE, ..self }
    }

    /// Sets the smallest `D/T̄`.
    ///
    /// # Errors
    /// [`SettingError`] unless it is finite and positive.
    pub fn with_floor(self, floor: f64) -> Result<Self, SettingError> {
        SettingError::unless(floor > 0.0 && floor.is_finite(), "floor of the chain weight", floor)?;
        Ok(Self { floor, ..self })
    }

    /// Leaves every `D` as it is found. One that is not positive, as of an even number of steps that cancel each other, then
    /// fails the refresh.
    #[must_use]
    pub fn without_floor(self) -> Self {
        Self { floor: 0.0, ..self }
    }
}

impl Default for ChainSymmetric<Qr> {
    fn default() -> Self {
        Self::full()
    }
}

impl<T: Scalar, S: Eigensolver> Map<T> for ChainSymmetric<S> {
    const NAME: &'static str = match S::METHOD {
        Method::Qr => "symmetric chain",
        Method::Jacobi => "symmetric chain by jacobi",
    };
    /// At each side the moment, the lag moment, `L`, `ψ`; the quotients `T̄/D`; the histogram of lengths.
    const LAYOUT: Layout = Layout {
        per_weight: 1,
        per_layer: lengths::BINS,
        ..Layout::of_both_sides(SideLayout { square: 2, diagonal: 1, ..SideLayout::MOMENT })
    };
    const UNIT: RefreshUnit = RefreshUnit::Layer;
    const DAMPING: DampingInForce = DampingInForce::LastRefresh;
    /// `L` and `ψ` of both sides and the quotients until all are known to be good, two squares and one vector to work in.
    const REFRESH: Workspace = Workspace {
        both_squares: 1,
        largest_squares: 2,
        vectors: 2,
        per_weight: 1,
        routine: Routine::EighAndProducts(S::METHOD),
    };
    const APPLY: Workspace = ROTATION;
    const PER_CASE: PerCase = PerCase::Lags;

    /// Two decompositions and three products a side. The weights, one Horner step for each of the `T` steps of the longest
    /// sequence, are not counted.
    fn cost(&self) -> Cost {
        let decomposition = S::METHOD.flops(1, self.solver.planned_sweeps(1));
        Cost { unit: RefreshUnit::Layer, cubic: Cubic::Both(2 * decomposition + 6) }
    }

    fn refresh<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        side: Side,
        lambda: T,
        mut scratch: &mut [T],
    ) -> Result<Refreshed, MapError> {
        let (n, m, largest) = (layer.input.size, layer.output.size, layer.shape.largest_side());
        let split = split(layer, lambda)?;
        let (l_a, l_g) = (take(&mut scratch, n * n)?, take(&mut scratch, m * m)?);
        let (psi_a, psi_g) = (take(&mut scratch, n)?, take(&mut scratch, m)?);
        let quotients = take(&mut scratch, m * n)?;
        let squares = take(&mut scratch, 2 * largest * largest)?;

        let mut sweeps = 0;
        for (side, arrays, l, psi) in [
            (Side::Input, &layer.input, &mut *l_a, &mut *psi_a),
            (Side::Output, &layer.output, &mut *l_g, &mut *psi_g),
        ] {
            let correlation = Correlation { kernel, solver: self.solver, side, arrays };
            let (one, rest) = squares.split_at_mut(arrays.size * arrays.size);
            let two = &mut rest[..arrays.size * arrays.size];
            let found = correlation.symmetrised(split, [l, one, two], psi, scratch)?;
            let bound = T::from_f64(self.bound.0);
            psi.iter_mut().for_each(|psi| *psi = psi.minimum(bound).maximum(-bound));
            sweeps = sweeps.max(found.sweeps);
        }
        self.write_quotients(layer, [psi_g, psi_a], &mut scratch[..n], quotients)?;

        // Everything stands: only now is the layer touched.
        layer.input.square[n * n..].copy_from_slice(l_a);
        layer.output.square[m * m..].copy_from_slice(l_g);
        layer.input.diagonal.copy_from_slice(psi_a);
        layer.output.diagonal.copy_from_slice(psi_g);
        layer.per_weight.copy_from_slice(quotients);
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
        let l = bases(layer, 1)?;
        sandwich(kernel, l.map(MatRef::transposed), Accumulate::Replace(T::ONE), v, scratch)?;
        v.iter_mut().zip(&*layer.per_weight).for_each(|(v, &quotient)| *v *= quotient);
        sandwich(kernel, l, Accumulate::Replace(T::ONE), v, scratch)
    }
}

impl<S> ChainSymmetric<S> {
    /// `T̄/D(ψ_G ψ_Aᵀ)`. `row`: `n` numbers to work in.
    fn write_quotients<T: Scalar>(
        &self,
        layer: &LayerState<'_, T>,
        [psi_g, psi_a]: [&[T]; 2],
        row: &mut [T],
        quotients: &mut [T],
    ) -> Result<(), MapError> {
        write_mean_weights(layer.per_layer, [psi_g, psi_a], row, quotients)
            .map_err(|positions| MapError::Lengths { positions })?;
        let floor = T::from_f64(self.floor);
        for (quotients, &g) in quotients.chunks_exact_mut(psi_a.len()).zip(psi_g) {
            for (weight, &a) in quotients.iter_mut().zip(psi_a) {
                let quotient = T::ONE / weight.maximum(floor);
                if !(quotient > T::ZERO && quotient.is_finite()) {
                    let (correlation, weight) = ((g * a).to_f64(), weight.to_f64());
                    return Err(MapError::ChainWeight { correlation, weight });
                }
                *weight = quotient;
            }
        }
        Ok(())
    }
}

impl<T: Scalar, K: Kernel<T>, S: Eigensolver> Correlation<'_, '_, T, K, S> {
    /// `L` with `Lᵀ X₀ L = I` and `Lᵀ (X₁ + X₁ᵀ)/2 L = diag(ψ)`. `l`, `one`, `two`: `n²` numbers.
    fn symmetrised(
        &self,
        split: Split<T>,
        [l, one, two]: [&mut [T]; 3],
        psi: &mut [T],
        scratch: &mut [T],
    ) -> Result<Outcome, MapError> {
        let n = self.arrays.size;
        let whitened = self.whiten(split, [l, one, two], scratch)?;
        for i in 0..n {
            for j in 0..i {
                let mean = T::from_f64(0.5) * (one[i * n + j] + one[j * n + i]);
                (one[i * n + j], one[j * n + i]) = (mean, mean);
            }
        }
        let outcome = self.decompose(one, two, psi, scratch)?;
        self.multiply(one, self.view(l)?, self.view(two)?, scratch)?;
        l.copy_from_slice(one);
        self.expect_finite([l, psi, &[]])?;
        Ok(Outcome { sweeps: outcome.sweeps.max(whitened.sweeps), ..outcome })
    }
}

impl<T: Scalar, S: Eigensolver> FactorMap<T> for ChainSymmetric<S> {
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

impl<T: Scalar, S: Eigensolver> ChainMap<T> for ChainSymmetric<S> {}
