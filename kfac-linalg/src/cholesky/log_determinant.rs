//! A logarithm of a product, with one logarithm.

/// `ln Π x²`, the product kept as a number in `[1, 2)` times a power of two.
///
/// The rounding is that of `n` multiplications: `n eps` in the logarithm, as by a sum of `n` logarithms.
pub(super) struct LogDeterminant {
    mantissa: f64,
    exponent: i64,
}

impl LogDeterminant {
    /// `ln 1`.
    pub(super) fn new() -> Self {
        Self { mantissa: 1.0, exponent: 0 }
    }

    /// One more factor `x²`, of a positive finite number.
    pub(super) fn multiply_squared(&mut self, x: f64) {
        /// Makes every denormal number normal.
        const SHIFT: f64 = (1_u64 << 54) as f64;
        let (x, shift) = if x < f64::MIN_POSITIVE { (x * SHIFT, 54) } else { (x, 0) };
        let (x, exponent) = split(x);
        let (mantissa, carried) = split(self.mantissa * x * x);
        self.mantissa = mantissa;
        self.exponent += 2 * (exponent - shift) + carried;
    }

    pub(super) fn value(&self) -> f64 {
        // The second part is exact up to one rounding.
        libm::log(self.mantissa) + self.exponent as f64 * core::f64::consts::LN_2
    }
}

/// A positive normal number as one in `[1, 2)` times a power of two.
fn split(x: f64) -> (f64, i64) {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    (f64::from_bits(bits & !(0x7ff << 52) | 1023 << 52), exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_of_a_product_is_the_sum_of_logarithms() {
        let numbers = [1.0, 3.7, 1e-300, 5e-324, 1e308, 0.1, f64::MIN_POSITIVE, 2.0];
        let (mut product, mut sum) = (LogDeterminant::new(), 0.0);
        for x in numbers {
            product.multiply_squared(x);
            sum += 2.0 * libm::log(x);
        }
        // Each logarithm of the sum is rounded at a size of about 1,500.
        assert!(
            (product.value() - sum).abs() <= 8.0 * 1500.0 * f64::EPSILON,
            "{} and {sum}",
            product.value()
        );
        assert_eq!(LogDeterminant::new().value(), 0.0);
    }
}
