//! Random numbers from raw integers: the same bits on every target, whatever generator the integers come from.

use kfac_linalg::Scalar;

/// A number in `[0, 1)`: the upper 24 bits, exact in every float.
pub fn uniform<T: Scalar>(bits: u32) -> T {
    T::from_f64(f64::from(bits >> 8) / 16_777_216.0)
}

/// Two independent standard normal numbers (Box and Muller 1958).
pub fn normal_pair<T: Scalar>([first, second]: [u32; 2]) -> [T; 2] {
    // 1 - u lies in (0, 1], so the logarithm is finite.
    let radius = (T::from_f64(-2.0) * (T::ONE - uniform::<T>(first)).ln()).sqrt();
    let angle = T::from_f64(core::f64::consts::TAU) * uniform::<T>(second);
    [radius * angle.cos(), radius * angle.sin()]
}
