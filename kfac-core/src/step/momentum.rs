use kfac_linalg::{Scalar, ShapeError};

/// Heavy ball: `δ <- momentum δ - rate U`, to be added to the weights. `rate` is the learning rate times the clip's
/// `ν`. Both slices run over the same weights in the same order.
///
/// # Errors
/// A [`ShapeError`] when the slices differ in length; then nothing is changed.
pub fn heavy_ball<T: Scalar>(delta: &mut [T], u: &[T], rate: T, momentum: T) -> Result<(), ShapeError> {
    if delta.len() != u.len() {
        return Err(ShapeError::new([delta.len(), 1], [u.len(), 1]));
    }
    for (delta, &u) in delta.iter_mut().zip(u) {
        *delta = momentum * *delta - rate * u;
    }
    Ok(())
}
