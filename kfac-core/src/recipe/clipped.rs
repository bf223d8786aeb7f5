use crate::report::Preconditioned;
use crate::step::{ClipError, KlClip};
use kfac_linalg::Scalar;

/// A fixed learning rate, shortened by the KL clip; momentum, if any, is [`heavy_ball`](crate::step::heavy_ball)'s.
///
/// Where to start, for a loss of order 1: rate 0.1 to 1, damping 0.01 to 0.1, `κ` 1e-3 to 1e-2 (the clip does not see the
/// momentum, which lengthens the step up to `1 / (1 - momentum)` times).
///
/// ```
/// use kfac_core::evidence::{OutputGradients, Rows};
/// use kfac_core::linalg::{MatMut, MatRef, Reproducible};
/// use kfac_core::losses::Loss;
/// use kfac_core::map::{Factored, Map};
/// use kfac_core::memory::{Memory, scratch_len, state_len};
/// use kfac_core::recipe::ClippedStep;
/// use kfac_core::step::{KlClip, heavy_ball};
/// use kfac_core::{LayerGradient, LayerShape, Preconditioner};
///
/// // One layer, y = W [x; 1], half squared error: four cases of two inputs, one output.
/// const NET: &[LayerShape] = &[LayerShape::dense(2, 1)];
/// const NUMBERS: usize = state_len(NET, <Factored as Map<f64>>::LAYOUT);
/// const SCRATCH: usize = scratch_len::<f64, Reproducible, Factored>(NET);
/// let x = [0.1, 1.0, 0.7, -0.4, -0.9, 0.3, 0.5, 0.5];
/// let y = [1.2, -0.3, 0.9, 0.1];
/// let (mut memory, mut scratch) = (Memory::<f64, NUMBERS, 1>::new(), [0.0; SCRATCH]);
/// let mut kfac = Preconditioner::new(NET, Factored, Reproducible, memory.borrow())?;
/// kfac.set_damping(1e-3)?;
/// let recipe = ClippedStep { rate: 0.5, clip: KlClip::new(1.0)? };
/// let (mut w, mut delta) = ([0.0; 3], [0.0; 3]);
/// let mut loss = f64::INFINITY;
/// for step in 0..40u32 {
///     let residual: [f64; 4] =
///         core::array::from_fn(|i| w[0] * x[2 * i] + w[1] * x[2 * i + 1] + w[2] - y[i]);
///     loss = residual.iter().map(|r| r * r / 8.0).sum();
///     // Gradients at targets drawn from the model give the true Fisher; any generator of integers will do.
///     let mut sampled = [0.0; 4];
///     for (case, g) in sampled.iter_mut().enumerate() {
///         let bits = [1, 2].map(|i: u32| (8 * step + 2 * case as u32 + i).wrapping_mul(2_654_435_769));
///         Loss::Square.sampled_gradient(&[residual[case] + y[case]], &bits, core::slice::from_mut(g))?;
///     }
///     let rows = Rows(MatRef::row_major(&x, 4, 2)?);
///     let g = OutputGradients::per_case(MatRef::row_major(&sampled, 4, 1)?);
///     kfac.observe(4).add(0, &rows, g, &mut scratch)?;
///     kfac.refresh(&mut scratch)?;
///
///     let mut u = [0.0; 3]; // V, then U
///     for (case, r) in x.chunks(2).zip(residual) {
///         for (u, a) in u.iter_mut().zip([case[0], case[1], 1.0]) {
///             *u += r * a / 4.0;
///         }
///     }
///     let gradient = LayerGradient::joint(0, MatMut::row_major(&mut u, 1, 3)?);
///     let preconditioned = kfac.precondition(&mut [gradient], &mut scratch)?;
///     heavy_ball(&mut delta, &u, recipe.rate(&preconditioned)?, 0.5)?;
///     for (w, delta) in w.iter_mut().zip(delta) {
///         *w += delta;
///     }
/// }
/// assert!(loss < 0.0183, "{loss}"); // the least squares lie at 0.01823
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClippedStep<T> {
    /// Learning rate.
    pub rate: T,
    /// The clip.
    pub clip: KlClip<T>,
}

impl<T: Scalar> ClippedStep<T> {
    /// `rate ν`: what `U` is multiplied by.
    ///
    /// # Errors
    /// A [`ClipError`]: do not step.
    pub fn rate(&self, preconditioned: &Preconditioned<T>) -> Result<T, ClipError> {
        Ok(self.rate * self.clip.factor(self.rate, preconditioned)?)
    }
}
