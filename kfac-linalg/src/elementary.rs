//! Exponential, hyperbolic tangent and their kin in single precision, as plain arithmetic without branches.
//!
//! `libm` promises the same bits everywhere, but one call at a time: on a recurrent net its `tanhf` takes two
//! thirds of a training step. What stands here has the same promise (only `+ - * /` and shifts of bits, nothing
//! that a compiler may fuse) and compiles to SIMD inside loops. Errors are below 3 units in the last place of
//! the result (measured between -87 and 88.7, see the tests).
//!
//! All of it rests on `e^y = 2^k (1 + q)` with `k = round(y / ln 2)` and `q = e^r - 1`, `|r| <= ln(2)/2`: keeping `q`
//! instead of `1 + q` keeps small results exact to rounding.

/// `ln 2` in two parts; `k LN_2_HIGH` is exact for every `k` that occurs.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// Adding this number and taking it away again rounds to the nearest integer, which the low bits hold meanwhile.
const ROUNDING: f32 = 12_582_912.0;

/// `(k, q)` with `e^y = 2^k (1 + q)`, for `|y| <= 104`. A NaN gives a `q` that is NaN.
#[inline(always)]
fn split_exponential(y: f32) -> (i32, f32) {
    let shifted = y * core::f32::consts::LOG2_E + ROUNDING;
    let k = shifted - ROUNDING;
    let r = (y - k * LN_2_HIGH) - k * LN_2_LOW;
    // Taylor's series; its first missing term is 5e-9 of the result.
    let tail = 1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0))));
    let q = r + (r * r) * (0.5 + r * tail);
    let k = (shifted.to_bits() as i32).wrapping_sub(ROUNDING.to_bits() as i32);
    (k, q)
}

/// `2^k` for `-126 <= k <= 127`.
#[inline(always)]
fn power_of_two(k: i32) -> f32 {
    f32::from_bits((k.wrapping_add(127) as u32) << 23)
}

/// `e^y`.
#[inline(always)]
pub(crate) fn exp(y: f32) -> f32 {
    // Beyond these the result is infinite, or zero.
    let clamped = if y > 89.0 { 89.0 } else { y };
    let clamped = if clamped < -104.0 { -104.0 } else { clamped };
    let (k, q) = split_exponential(clamped);
    // Two factors, since 2^128 and 2^-149 are out of reach of one.
    let half = k >> 1;
    (1.0 + q) * power_of_two(half) * power_of_two(k.wrapping_sub(half))
}

/// `tanh x = -m / (2 + m)` with `m = e^(-2|x|) - 1`, and the sign of `x`.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    // tanh 10 rounds to 1.
    let clamped = if magnitude > 10.0 { 10.0 } else { magnitude };
    let (k, q) = split_exponential(-2.0 * clamped);
    let scale = power_of_two(k);
    let m = scale * q + (scale - 1.0);
    (-m / (2.0 + m)).copysign(x)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let decay = exp(-x.abs());
    let upper = 1.0 / (1.0 + decay);
    if x >= 0.0 { upper } else { decay * upper }
}

/// `ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)`.
#[inline(always)]
pub(crate) fn softplus(x: f32) -> f32 {
    let positive = if x < 0.0 { 0.0 } else { x };
    positive + ln_1p_unit(exp(-x.abs()))
}

/// `ln(1 + e)` for `0 <= e <= 1`: `2 artanh z` with `z = e / (2 + e) <= 1/3`, no rounding of `1 + e` involved.
#[inline(always)]
fn ln_1p_unit(e: f32) -> f32 {
    let z = e / (2.0 + e);
    let square = z * z;
    // 1/3, 1/5, ... 1/17; the first missing term is 3e-10 of the result.
    let mut tail = 1.0 / 17.0;
    for denominator in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        tail = 1.0 / denominator + square * tail;
    }
    2.0 * (z + z * square * tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worst error of `function` against `truth` over a grid of bit patterns, in units in the last place.
    fn worst(function: fn(f32) -> f32, truth: fn(f64) -> f64, range: core::ops::RangeInclusive<f32>) -> f64 {
        let mut worst = 0.0_f64;
        for bits in (0..=u32::MAX).step_by(9973) {
            let x = f32::from_bits(bits);
            if !range.contains(&x) {
                continue;
            }
            let exact = truth(f64::from(x));
            let nearest = (exact as f32).abs().max(f32::MIN_POSITIVE);
            let ulp = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
            let error = (f64::from(function(x)) - exact).abs() / ulp;
            assert!(!error.is_nan(), "{x:e}");
            worst = worst.max(error);
        }
        worst
    }

    #[test]
    fn errors_stay_below_three_units_in_the_last_place() {
        type Function<F> = fn(F) -> F;
        let functions: [(&str, Function<f32>, Function<f64>); 4] = [
            ("exp", exp, libm::exp),
            ("tanh", tanh, libm::tanh),
            ("sigmoid", sigmoid, |x| {
                if x < 0.0 { libm::exp(x) / (1.0 + libm::exp(x)) } else { 1.0 / (1.0 + libm::exp(-x)) }
            }),
            ("softplus", softplus, |x| x.max(0.0) + libm::log1p(libm::exp(-x.abs()))),
        ];
        for (name, function, truth) in functions {
            let error = worst(function, truth, -87.0..=88.7);
            assert!(error < 3.0, "{name}: {error} ulp");
        }
    }

    #[test]
    fn ends_and_nan_are_as_in_the_definition() {
        assert_eq!((exp(f32::INFINITY), exp(-f32::INFINITY), exp(0.0)), (f32::INFINITY, 0.0, 1.0));
        assert_eq!((exp(89.0), exp(-200.0)), (f32::INFINITY, 0.0));
        assert!(exp(-100.0) > 0.0, "gradual underflow");
        assert_eq!((tanh(f32::INFINITY), tanh(-f32::INFINITY)), (1.0, -1.0));
        assert_eq!((tanh(0.0).to_bits(), tanh(-0.0).to_bits()), (0, (-0.0_f32).to_bits()));
        assert_eq!((sigmoid(f32::INFINITY), sigmoid(-f32::INFINITY), sigmoid(0.0)), (1.0, 0.0, 0.5));
        assert_eq!((softplus(f32::INFINITY), softplus(-f32::INFINITY)), (f32::INFINITY, 0.0));
        for function in [exp, tanh, sigmoid, softplus] {
            assert!(function(f32::NAN).is_nan());
        }
    }
}
