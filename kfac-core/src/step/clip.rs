use crate::error::SettingError;
use crate::report::Preconditioned;
use core::fmt;
use kfac_linalg::Scalar;

/// Shortens a step so that `δᵀFδ`, as the map sees it, does not exceed `κ`. (The `κ` of
/// [`StepBound`](super::StepBound) bounds `½ δᵀFδ` under the exact Fisher.)
///
/// # Source
/// Ba, Grosse and Martens 2017, section 5, with the unscaled `κ` of later implementations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlClip<T> {
    kappa: T,
}

impl<T: Scalar> KlClip<T> {
    /// A clip at `kappa`, in units of the loss.
    ///
    /// # Errors
    /// [`SettingError`] unless `kappa` is positive.
    pub fn new(kappa: T) -> Result<Self, SettingError> {
        SettingError::unless(kappa > T::ZERO, "kappa", kappa)?;
        Ok(Self { kappa })
    }

    /// `ν = min(1, √(κ / (rate² Σ U·V)))` over all layers; 1 where `V` is zero, or so small that its product with `U`
    /// underflows.
    ///
    /// # Errors
    /// A [`ClipError`]: the step must not be taken.
    pub fn factor(&self, rate: T, preconditioned: &Preconditioned<T>) -> Result<T, ClipError> {
        let Preconditioned { inner, gradient_squares, .. } = *preconditioned;
        if !rate.is_finite() {
            return Err(ClipError::Rate { rate: rate.to_f64() });
        }
        if !inner.is_finite() {
            return Err(ClipError::NotFinite { product: inner.to_f64() });
        }
        if inner == T::ZERO && gradient_squares.is_some_and(|squares| squares < T::MIN_POSITIVE / T::EPSILON)
        {
            return Ok(T::ONE);
        }
        if inner <= T::ZERO {
            return Err(ClipError::NotPositive { product: inner.to_f64() });
        }
        // The root of each factor: rate² inner may leave the range of T where the quotient does not.
        Ok((self.kappa.sqrt() / (rate.abs() * inner.sqrt())).minimum(T::ONE))
    }
}

/// A step that cannot be clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ClipError {
    /// `Σ U·V <= 0` though `V` is not zero: a map that is not positive definite.
    NotPositive {
        /// `Σ U·V`.
        product: f64,
    },
    /// `Σ U·V` is NaN or infinite.
    NotFinite {
        /// `Σ U·V`.
        product: f64,
    },
    /// The learning rate is NaN or infinite.
    Rate {
        /// The rate.
        rate: f64,
    },
}

impl fmt::Display for ClipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPositive { product } => {
                write!(f, "the preconditioned gradient has the product {product:e} with the gradient")
            }
            Self::NotFinite { product } => {
                write!(f, "the product of gradient and preconditioned gradient is not finite: {product:e}")
            }
            Self::Rate { rate } => write!(f, "the learning rate is not finite: {rate:e}"),
        }
    }
}

impl core::error::Error for ClipError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn preconditioned(inner: f64, gradient_squares: f64) -> Preconditioned<f64> {
        Preconditioned { inner, gradient_squares: Some(gradient_squares), stale_layers: 0 }
    }

    #[test]
    fn the_clip_follows_the_formula() {
        let clip = KlClip::new(1e-3).unwrap();
        let nu = clip.factor(0.1, &preconditioned(18.0, 9.0)).unwrap();
        assert!((nu - 0.0745355992).abs() < 1e-10, "{nu}");
        assert_eq!(clip.factor(1e-3, &preconditioned(18.0, 9.0)), Ok(1.0));
    }

    #[test]
    fn a_product_that_is_not_positive_is_an_error_unless_the_gradient_is_zero() {
        let clip = KlClip::new(1e-3).unwrap();
        assert_eq!(clip.factor(0.1, &preconditioned(0.0, 0.0)), Ok(1.0));
        for product in [0.0, -2.0] {
            let error = Err(ClipError::NotPositive { product });
            assert_eq!(clip.factor(0.1, &preconditioned(product, 9.0)), error);
        }
        assert!(KlClip::new(0.0).is_err() && KlClip::new(f64::NAN).is_err());
    }

    #[test]
    fn numbers_that_are_not_finite_are_named_for_what_they_are() {
        let clip = KlClip::new(1e-3).unwrap();
        let product = f64::INFINITY;
        assert_eq!(clip.factor(0.1, &preconditioned(product, 9.0)), Err(ClipError::NotFinite { product }));
        assert!(clip.factor(0.1, &preconditioned(f64::NAN, 9.0)).is_err());
        let rate = f64::NEG_INFINITY;
        for squares in [0.0, 9.0] {
            assert_eq!(clip.factor(rate, &preconditioned(0.1, squares)), Err(ClipError::Rate { rate }));
        }
    }

    /// `V = 1e-20` in `f32`: `V·V` is subnormal, and `U·V` with a damping of 1e7 is 0.
    #[test]
    fn a_product_that_underflows_needs_no_clip() {
        let clip = KlClip::new(1e-3_f32).unwrap();
        let tiny = Preconditioned { inner: 0.0, gradient_squares: Some(1e-40), stale_layers: 0 };
        assert_eq!(clip.factor(0.1, &tiny), Ok(1.0));
        let zero = Preconditioned { gradient_squares: Some(1e-20), ..tiny };
        assert_eq!(clip.factor(0.1, &zero), Err(ClipError::NotPositive { product: 0.0 }));
    }
}
