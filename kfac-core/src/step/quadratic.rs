use crate::error::SettingError;
use core::fmt;
use kfac_linalg::product::dot;
use kfac_linalg::{Scalar, ShapeError};

/// The quadratic model `½ δᵀ(F + (λ + η) I) δ + ∇hᵀδ` on the plane of the proposed step and the previous one.
///
/// `F` is the exact Fisher of the whole network on the batch, off-diagonal layer blocks included; it enters through
/// three numbers, so no closure over the model is needed.
///
/// # Source
/// Martens and Grosse 2015, sections 6.4 and 7.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuadraticModel<T> {
    /// Damping `λ`.
    pub lambda: T,
    /// l2 weight decay `η`, part of the loss. The gradient must already contain `ηθ`.
    pub l2: T,
}

/// Inner products over all weights; `delta` is the proposed direction `Δ = -U`, `previous` the last step `δ₀`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slopes<T> {
    /// `∇hᵀΔ`.
    pub gradient_delta: T,
    /// `∇hᵀδ₀`.
    pub gradient_previous: T,
    /// `ΔᵀΔ`.
    pub delta_delta: T,
    /// `Δᵀδ₀`.
    pub delta_previous: T,
    /// `δ₀ᵀδ₀`.
    pub previous_previous: T,
}

impl<T: Scalar> Slopes<T> {
    /// Adds the products over one piece of the weights.
    ///
    /// # Errors
    /// A [`ShapeError`] when the slices differ in length; then nothing is changed.
    pub fn add(&mut self, gradient: &[T], delta: &[T], previous: &[T]) -> Result<(), ShapeError> {
        let [gd, gp] = [dot(gradient, delta)?, dot(gradient, previous)?];
        self.gradient_delta += gd;
        self.gradient_previous += gp;
        self.delta_delta += dot(delta, delta)?;
        self.delta_previous += dot(delta, previous)?;
        self.previous_previous += dot(previous, previous)?;
        Ok(())
    }
}

/// `vᵀFw` for `v, w` in `{Δ, δ₀}`: means over the batch of `(Jv)ᵀ H (Jw)`, from two forward-mode derivatives and
/// [`losses`](crate::losses).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FisherProducts<T> {
    /// `ΔᵀFΔ`.
    pub delta_delta: T,
    /// `ΔᵀFδ₀`.
    pub delta_previous: T,
    /// `δ₀ᵀFδ₀`.
    pub previous_previous: T,
}

/// A step `δ = α Δ + μ δ₀`, and what the model promises of it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "a proposal does nothing until its step is added to the weights"]
pub struct Proposal<T> {
    /// Factor of the proposed direction.
    pub alpha: T,
    /// Factor of the previous step: the momentum.
    pub mu: T,
    /// Change of the model, damping included (negative).
    pub predicted: T,
    /// Change of the model without `½ λ |δ|²`; the l2 term stays, it is part of the loss.
    pub predicted_without_damping: T,
    /// `½ δᵀFδ`: how far the step moves the output distribution, to second order.
    pub divergence: T,
}

impl<T: Scalar> QuadraticModel<T> {
    /// The minimum of the model over `α` and `μ`.
    ///
    /// A zero vector keeps the factor 0. Where both vectors point the same way (to rounding), or `δ₀` has no
    /// curvature, `α` alone is left.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] where a product is not finite, [`ModelError::NoCurvature`] where no direction has
    /// positive curvature though one is not zero.
    pub fn minimise(&self, slopes: Slopes<T>, fisher: FisherProducts<T>) -> Result<Proposal<T>, ModelError> {
        let shift = self.lambda + self.l2;
        let (b1, b2) = (-slopes.gradient_delta, -slopes.gradient_previous);
        let m11 = fisher.delta_delta + shift * slopes.delta_delta;
        let m12 = fisher.delta_previous + shift * slopes.delta_previous;
        let m22 = fisher.previous_previous + shift * slopes.previous_previous;
        if let Some(product) = [b1, b2, m11, m12, m22].into_iter().find(|product| !product.is_finite()) {
            return Err(ModelError::NotFinite { product: product.to_f64() });
        }

        let curved = (m11 > T::ZERO, m22 > T::ZERO);
        let (alpha, mu) = match curved {
            (true, true) => minimise_in_plane([m11, m12, m22], [b1, b2]),
            (true, false) => (b1 / m11, T::ZERO),
            (false, true) => (T::ZERO, b2 / m22),
            (false, false) if slopes.delta_delta == T::ZERO && slopes.previous_previous == T::ZERO => {
                (T::ZERO, T::ZERO)
            }
            (false, false) => {
                return Err(ModelError::NoCurvature { curvature: m11.maximum(m22).to_f64() });
            }
        };
        if !(alpha.is_finite() && mu.is_finite()) {
            return Err(ModelError::NotFinite { product: (alpha + mu).to_f64() });
        }
        let proposal = self.propose(alpha, mu, slopes, fisher);
        let promised = [proposal.predicted, proposal.predicted_without_damping, proposal.divergence];
        match promised.into_iter().find(|product| !product.is_finite()) {
            Some(product) => Err(ModelError::NotFinite { product: product.to_f64() }),
            None => Ok(proposal),
        }
    }

    /// What the model says of `α Δ + μ δ₀`, for any `α` and `μ`.
    pub fn propose(&self, alpha: T, mu: T, slopes: Slopes<T>, fisher: FisherProducts<T>) -> Proposal<T> {
        let half = T::from_f64(0.5);
        let quadratic =
            |dd: T, dp: T, pp: T| half * (alpha * (alpha * dd + mu * dp) + mu * (alpha * dp + mu * pp));
        let divergence = quadratic(fisher.delta_delta, fisher.delta_previous, fisher.previous_previous);
        let square = quadratic(slopes.delta_delta, slopes.delta_previous, slopes.previous_previous);
        let linear = alpha * slopes.gradient_delta + mu * slopes.gradient_previous;
        let predicted_without_damping = linear + divergence + self.l2 * square;
        Proposal {
            alpha,
            mu,
            predicted: predicted_without_damping + self.lambda * square,
            predicted_without_damping,
            divergence,
        }
    }
}

/// Solves `[m11 m12; m12 m22] [α μ]ᵀ = [b1 b2]ᵀ` with positive diagonal, by elimination of `μ` from the equation
/// scaled to unit diagonal. A determinant lost in rounding means that the vectors are collinear: then `μ = 0`.
fn minimise_in_plane<T: Scalar>([m11, m12, m22]: [T; 3], [b1, b2]: [T; 2]) -> (T, T) {
    let (r1, r2) = (m11.sqrt(), m22.sqrt());
    let cosine = m12 / r1 / r2;
    let determinant = (T::ONE - cosine) * (T::ONE + cosine);
    if determinant <= T::from_f64(16.0) * T::EPSILON {
        return (b1 / m11, T::ZERO);
    }
    let (c1, c2) = (b1 / r1, b2 / r2);
    ((c1 - cosine * c2) / determinant / r1, (c2 - cosine * c1) / determinant / r2)
}

/// The quadratic model has no minimum to offer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ModelError {
    /// A product, or the step it leads to, is not finite.
    NotFinite {
        /// The product.
        product: f64,
    },
    /// Neither direction has positive curvature.
    NoCurvature {
        /// The larger of the two curvatures.
        curvature: f64,
    },
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { product } => write!(f, "a product of the quadratic model is {product}"),
            Self::NoCurvature { curvature } => {
                write!(f, "the quadratic model has no positive curvature, the largest is {curvature:e}")
            }
        }
    }
}

impl core::error::Error for ModelError {}

/// Bounds `½ δᵀFδ` by `κ`, after the quadratic model has chosen the step: `δ` is scaled by
/// `min(1, √(κ / ½ δᵀFδ))`.
///
/// On noisy batches Levenberg-Marquardt lets `λ` fall to its floor, where damping no longer sees the noise; this
/// bound is what then keeps a run alive (a measured repair, not in the papers). `κ` is in units of the output
/// distribution: regression targets should be of order 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepBound<T> {
    kappa: T,
    range: [T; 2],
    thresholds: [T; 2],
}

impl<T: Scalar> StepBound<T> {
    /// A fixed bound.
    ///
    /// # Errors
    /// [`SettingError`] unless `kappa` is positive and finite.
    pub fn fixed(kappa: T) -> Result<Self, SettingError> {
        Self::adaptive(kappa, [kappa, kappa])
    }

    /// A bound that [`StepBound::adapt`] moves within `[floor, cap]`.
    ///
    /// # Errors
    /// [`SettingError`] unless `0 < floor <= kappa <= cap`, all finite.
    pub fn adaptive(kappa: T, [floor, cap]: [T; 2]) -> Result<Self, SettingError> {
        SettingError::unless(floor > T::ZERO && floor <= kappa, "floor of the step bound", floor)?;
        SettingError::unless(cap.is_finite() && kappa <= cap, "cap of the step bound", cap)?;
        Ok(Self { kappa, range: [floor, cap], thresholds: [T::ZERO, T::from_f64(0.5)] })
    }

    /// For networks with recurrent chains on samples that are fresh at every step, and for regression: starts at 0.003,
    /// within `[1e-3, 0.03]`. Where samples come back, use [`finite_data`](Self::finite_data): its lower floor is
    /// needed once the training loss is far below that of new samples.
    pub fn recurrent() -> Self {
        Self {
            kappa: T::from_f64(0.003),
            range: [T::from_f64(1e-3), T::from_f64(0.03)],
            thresholds: [T::ZERO, T::from_f64(0.5)],
        }
    }

    /// For finite data sets and language models: starts at 0.003, within `[3e-4, 0.03]`, thresholds of ±0.25.
    pub fn finite_data() -> Self {
        Self {
            kappa: T::from_f64(0.003),
            range: [T::from_f64(3e-4), T::from_f64(0.03)],
            thresholds: [T::from_f64(-0.25), T::from_f64(0.25)],
        }
    }

    /// The bound in force.
    pub fn kappa(&self) -> T {
        self.kappa
    }

    /// Where [`adapt`](Self::adapt) keeps the bound, floor and cap.
    pub fn range(&self) -> [T; 2] {
        self.range
    }

    /// Does [`adapt`](Self::adapt) ever move the bound?
    pub fn is_adaptive(&self) -> bool {
        self.range[0] < self.range[1]
    }

    /// Reduction ratios below and above which [`adapt`](Self::adapt) moves the bound.
    pub fn thresholds(&self) -> [T; 2] {
        self.thresholds
    }

    /// Continues from a saved `κ`.
    ///
    /// # Errors
    /// [`SettingError`] where it lies outside the range.
    pub fn resume(&mut self, kappa: T) -> Result<(), SettingError> {
        SettingError::unless(kappa >= self.range[0] && kappa <= self.range[1], "kappa", kappa)?;
        self.kappa = kappa;
        Ok(())
    }

    /// `min(1, √(κ / ½ δᵀFδ))`.
    pub fn factor(&self, proposal: &Proposal<T>) -> T {
        if proposal.divergence > self.kappa { (self.kappa / proposal.divergence).sqrt() } else { T::ONE }
    }

    /// Moves `κ` by the reduction ratio of the last step on the *next* batch, `(h(θ+δ) - h(θ)) / predicted`: above the
    /// upper [threshold](Self::thresholds) up by 1.1, below the lower one down by 1.1. A NaN counts as below.
    pub fn adapt(&mut self, rho: T) {
        let growth = T::from_f64(1.1);
        let [lower, upper] = self.thresholds;
        let [floor, cap] = self.range;
        if rho > upper {
            self.kappa = (self.kappa * growth).minimum(cap);
        } else if rho < lower || !rho.is_finite() {
            self.kappa = (self.kappa / growth).maximum(floor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_scales_the_step_to_its_divergence() {
        let bound = StepBound::fixed(0.01).unwrap();
        assert!(!bound.is_adaptive() && StepBound::<f64>::recurrent().is_adaptive());
        let model = QuadraticModel { lambda: 0.1, l2: 0.0 };
        let slopes = Slopes { gradient_delta: -1.0, delta_delta: 2.0, ..Slopes::default() };
        let fisher = FisherProducts { delta_delta: 3.0, ..FisherProducts::default() };
        let free = model.minimise(slopes, fisher).unwrap();
        let scale = bound.factor(&free);
        let bounded = model.propose(scale * free.alpha, scale * free.mu, slopes, fisher);
        assert!((bounded.divergence - 0.01).abs() < 1e-15, "{bounded:?}");
        assert!(bounded.predicted > free.predicted && bounded.predicted < 0.0);
        assert!(bound.factor(&bounded) > 1.0 - 1e-15);
    }

    #[test]
    fn the_bound_adapts_within_its_range() {
        let mut bound = StepBound::adaptive(0.01, [0.0095, 0.0105]).unwrap();
        assert_eq!((bound.range(), bound.thresholds()), ([0.0095, 0.0105], [0.0, 0.5]));
        bound.adapt(0.3);
        assert_eq!(bound.kappa(), 0.01);
        bound.adapt(0.6);
        assert_eq!(bound.kappa(), 0.0105);
        for _ in 0..3 {
            bound.adapt(f64::NAN);
        }
        assert_eq!(bound.kappa(), 0.0095);
    }
}
