use crate::error::SettingError;
use crate::report::Preconditioned;
use core::fmt;
use kfac_linalg::Scalar;

/// Shortens a step so that `½ δᵀFδ`, as the map sees it, stays near `κ/2`.
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

    /// `ν = min(1, √(κ / (rate² Σ U·V)))` over all layers; 1 where `V` is zero.
    ///
    /// # Errors
    /// [`NegativeProduct`] where `Σ U·V <= 0` though `V` is not zero: a map that is not positive definite. The
    /// step must not be taken.
    pub fn factor(&self, rate: T, preconditioned: &Preconditioned<T>) -> Result<T, NegativeProduct> {
        if preconditioned.gradient_squares == T::ZERO {
            return Ok(T::ONE);
        }
        let inner = preconditioned.inner;
        if inner > T::ZERO && inner.is_finite() {
            // The root of each factor: rate² inner may leave the range of T where the quotient does not.
            return Ok((self.kappa.sqrt() / (rate.abs() * inner.sqrt())).minimum(T::ONE));
        }
        Err(NegativeProduct { product: inner.to_f64() })
    }
}

/// `Σ U·V` is not positive though `V` is not zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NegativeProduct {
    /// `Σ U·V`.
    pub product: f64,
}

impl fmt::Display for NegativeProduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the preconditioned gradient has the product {:e} with the gradient", self.product)
    }
}

impl core::error::Error for NegativeProduct {}

#[cfg(test)]
mod tests {
    use super::*;

    fn preconditioned(inner: f64, gradient_squares: f64) -> Preconditioned<f64> {
        Preconditioned { inner, gradient_squares, stale_layers: 0 }
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
            assert_eq!(clip.factor(0.1, &preconditioned(product, 9.0)), Err(NegativeProduct { product }));
        }
        assert!(clip.factor(0.1, &preconditioned(f64::NAN, 9.0)).is_err());
        assert!(KlClip::new(0.0).is_err() && KlClip::new(f64::NAN).is_err());
    }
}
