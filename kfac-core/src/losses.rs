//! The losses whose Fisher matrix is known in closed form: value, gradient, sampled gradient, Fisher product.
//!
//! All functions work on the outputs `f` of one case (or one position): `ℓ` is summed over the outputs and not
//! divided by anything. Sampled targets come from raw 32-bit integers, so that a trajectory is the same on every
//! target; the arithmetic uses `libm` only.

use crate::sampling::{normal_pair, uniform};
use core::fmt;
use kfac_linalg::product::{dot, sum_terms};
use kfac_linalg::{MatMut, Scalar, ShapeError};

/// The loss of one case, and the distribution that it is the negative log-likelihood of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// `½ Σ (f - y)²`: `y ~ N(f, 1)`, Fisher `I`.
    Square,
    /// Cross-entropy of `softmax(f)` with a class: Fisher `diag(p) - p pᵀ`.
    Softmax,
    /// Sum of binary cross-entropies of `σ(f)` with targets in `[0, 1]`: Fisher `diag(p (1 - p))`.
    Bernoulli,
}

/// Target of one case.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a, T> {
    /// One number per output, for [`Loss::Square`] and, between 0 and 1, for [`Loss::Bernoulli`].
    Values(&'a [T]),
    /// Index of the class, for [`Loss::Softmax`].
    Class(usize),
}

impl Loss {
    /// `ℓ`.
    ///
    /// # Errors
    /// [`LossError`] where the target does not fit the loss or the number of outputs.
    pub fn value<T: Scalar>(self, outputs: &[T], target: Target<'_, T>) -> Result<T, LossError> {
        match (self, target) {
            (Self::Square, Target::Values(y)) => {
                Ok(T::from_f64(0.5) * sum_terms([outputs, y], |[f, y]| (f - y) * (f - y))?)
            }
            (Self::Softmax, Target::Class(class)) => {
                let &f =
                    outputs.get(class).ok_or(LossError::NoSuchClass { class, outputs: outputs.len() })?;
                let (top, sum) = exponential_sum(outputs);
                Ok(sum.ln() + (top - f))
            }
            (Self::Bernoulli, Target::Values(y)) => {
                expect_probabilities(y)?;
                // -y ln p - (1 - y) ln(1 - p) = ln(1 + e^f) - y f
                Ok(sum_terms([outputs, y], |[f, y]| f.softplus() - y * f)?)
            }
            _ => Err(LossError::WrongTarget),
        }
    }

    /// `dℓ/df`, written to `gradient`.
    ///
    /// # Errors
    /// [`LossError`] where the target or the gradient does not fit.
    pub fn gradient<T: Scalar>(
        self,
        outputs: &[T],
        target: Target<'_, T>,
        gradient: &mut [T],
    ) -> Result<(), LossError> {
        same_length(outputs, gradient)?;
        match (self, target) {
            (Self::Square, Target::Values(y)) => {
                same_length(outputs, y)?;
                for ((gradient, &f), &y) in gradient.iter_mut().zip(outputs).zip(y) {
                    *gradient = f - y;
                }
            }
            (Self::Softmax, Target::Class(class)) => {
                if class >= outputs.len() {
                    return Err(LossError::NoSuchClass { class, outputs: outputs.len() });
                }
                softmax(outputs, gradient);
                gradient[class] -= T::ONE;
            }
            (Self::Bernoulli, Target::Values(y)) => {
                same_length(outputs, y)?;
                expect_probabilities(y)?;
                for ((gradient, &f), &y) in gradient.iter_mut().zip(outputs).zip(y) {
                    *gradient = f.sigmoid() - y;
                }
            }
            _ => return Err(LossError::WrongTarget),
        }
        Ok(())
    }

    /// Random integers that [`Loss::sampled_gradient`] uses up for one case.
    pub const fn bits_needed(self, outputs: usize) -> usize {
        match self {
            // Box-Muller makes two normal numbers of two uniform ones.
            Self::Square => outputs.next_multiple_of(2),
            Self::Softmax => 1,
            Self::Bernoulli => outputs,
        }
    }

    /// `dℓ/df` at a target drawn from the model, written to `gradient`. Its mean outer product over the draws is
    /// the Fisher matrix.
    ///
    /// # Errors
    /// [`LossError::Shape`] where the gradient or the integers do not fit.
    pub fn sampled_gradient<T: Scalar>(
        self,
        outputs: &[T],
        bits: &[u32],
        gradient: &mut [T],
    ) -> Result<(), LossError> {
        same_length(outputs, gradient)?;
        let needed = self.bits_needed(outputs.len());
        if bits.len() < needed {
            return Err(LossError::Shape(ShapeError::new([needed, 1], [bits.len(), 1])));
        }
        match self {
            Self::Square => {
                for (pair, bits) in gradient.chunks_mut(2).zip(bits.chunks_exact(2)) {
                    let normals = normal_pair::<T>([bits[0], bits[1]]);
                    for (gradient, normal) in pair.iter_mut().zip(normals) {
                        *gradient = -normal;
                    }
                }
            }
            Self::Softmax => {
                softmax(outputs, gradient);
                let class = draw_class(gradient, uniform(bits[0]));
                if let Some(drawn) = gradient.get_mut(class) {
                    *drawn -= T::ONE;
                }
            }
            Self::Bernoulli => {
                for ((gradient, &f), &bits) in gradient.iter_mut().zip(outputs).zip(bits) {
                    let p = f.sigmoid();
                    *gradient = if uniform::<T>(bits) < p { p - T::ONE } else { p };
                }
            }
        }
        Ok(())
    }

    /// Column `column` of a square root `S` of the loss Hessian, `S Sᵀ = H`, written to `gradient`: what the backward pass of
    /// a type-2 Fisher starts from, once for each output. See
    /// [`OutputGradients::of_hessian_column`](crate::evidence::OutputGradients::of_hessian_column).
    ///
    /// `I` for [`Loss::Square`], `diag(√p) - p √pᵀ` for [`Loss::Softmax`], `diag(√(p (1 - p)))` for [`Loss::Bernoulli`].
    ///
    /// # Errors
    /// [`LossError::Shape`] where the gradient does not fit, or there is no such column.
    ///
    /// # Source
    /// Dangel, Kunstner and Hennig 2020, arXiv:1912.10985 (BackPACK).
    pub fn hessian_column<T: Scalar>(
        self,
        outputs: &[T],
        column: usize,
        gradient: &mut [T],
    ) -> Result<(), LossError> {
        same_length(outputs, gradient)?;
        let Some(&output) = outputs.get(column) else {
            return Err(LossError::Shape(ShapeError::new([outputs.len(), 1], [column, 1])));
        };
        match self {
            Self::Square => {
                gradient.fill(T::ZERO);
                gradient[column] = T::ONE;
            }
            Self::Softmax => {
                softmax(outputs, gradient);
                let root = gradient[column].sqrt();
                gradient.iter_mut().for_each(|p| *p = -(*p * root));
                gradient[column] += root;
            }
            Self::Bernoulli => {
                gradient.fill(T::ZERO);
                let p = output.sigmoid();
                gradient[column] = (p * (T::ONE - p)).sqrt();
            }
        }
        Ok(())
    }

    /// `hessian += scale H`; `probabilities`, of the length of `outputs`, is overwritten.
    pub(crate) fn add_hessian<T: Scalar>(
        self,
        outputs: &[T],
        scale: T,
        hessian: &mut MatMut<'_, T>,
        probabilities: &mut [T],
    ) {
        let mut add = |i, j, x| hessian.set(i, j, hessian.at(i, j) + x);
        match self {
            Self::Square => (0..outputs.len()).for_each(|i| add(i, i, scale)),
            Self::Softmax => {
                // `p_i - p_i²` as the sum of the other `p_i p_j`, which does not cancel where one class is next to certain.
                softmax(outputs, probabilities);
                for (i, &p) in probabilities.iter().enumerate() {
                    for (j, &q) in probabilities[..i].iter().enumerate() {
                        let product = scale * (p * q);
                        add(i, j, -product);
                        add(j, i, -product);
                        add(i, i, product);
                        add(j, j, product);
                    }
                }
            }
            Self::Bernoulli => {
                for (i, &f) in outputs.iter().enumerate() {
                    // `1 - p` is the probability of the opposite, which does not cancel.
                    add(i, i, scale * (f.sigmoid() * (-f).sigmoid()));
                }
            }
        }
    }

    /// `vᵀ H w` for output tangents `v = J δ₁` and `w = J δ₂` of one case: the mean over cases is `δ₁ᵀ F δ₂`.
    ///
    /// # Errors
    /// [`LossError::Shape`] where the lengths differ.
    pub fn fisher_product<T: Scalar>(self, outputs: &[T], v: &[T], w: &[T]) -> Result<T, LossError> {
        same_length(outputs, v)?;
        same_length(outputs, w)?;
        Ok(match self {
            Self::Square => dot(v, w)?,
            Self::Softmax => {
                let (top, total) = exponential_sum(outputs);
                let (mut vw, mut mean_v, mut mean_w) = (T::ZERO, T::ZERO, T::ZERO);
                for ((&f, &v), &w) in outputs.iter().zip(v).zip(w) {
                    let p = (f - top).exp() / total;
                    vw += p * v * w;
                    mean_v += p * v;
                    mean_w += p * w;
                }
                vw - mean_v * mean_w
            }
            Self::Bernoulli => sum_terms([outputs, v, w], |[f, v, w]| {
                let p = f.sigmoid();
                p * (T::ONE - p) * v * w
            })?,
        })
    }
}

/// `e^f / Σ e^f`, written to `probabilities`.
fn softmax<T: Scalar>(outputs: &[T], probabilities: &mut [T]) {
    let (top, sum) = exponential_sum(outputs);
    for (p, &f) in probabilities.iter_mut().zip(outputs) {
        *p = (f - top).exp() / sum;
    }
}

/// The largest output `top`, and `Σ e^(f - top)`.
fn exponential_sum<T: Scalar>(outputs: &[T]) -> (T, T) {
    let top = outputs.iter().copied().fold(-T::MAX, T::maximum);
    (top, outputs.iter().fold(T::ZERO, |sum, &f| sum + (f - top).exp()))
}

/// The class in whose share of `[0, 1)` the number falls.
fn draw_class<T: Scalar>(probabilities: &[T], mut number: T) -> usize {
    for (class, &p) in probabilities.iter().enumerate() {
        if number < p {
            return class;
        }
        number -= p;
    }
    // Only rounding leads here. The last class may have next to no probability, and its gradient would be enormous.
    let mut most_probable = 0;
    for (class, p) in probabilities.iter().enumerate() {
        if *p > probabilities[most_probable] {
            most_probable = class;
        }
    }
    most_probable
}

/// Refuses targets that no Bernoulli variable has as its mean: pixels from 0 to 255, say.
fn expect_probabilities<T: Scalar>(targets: &[T]) -> Result<(), LossError> {
    match targets.iter().position(|y| !(T::ZERO..=T::ONE).contains(y)) {
        Some(index) => Err(LossError::TargetRange { index, target: targets[index].to_f64() }),
        None => Ok(()),
    }
}

fn same_length<T>(outputs: &[T], other: &[T]) -> Result<(), LossError> {
    if outputs.len() == other.len() {
        return Ok(());
    }
    Err(LossError::Shape(ShapeError::vector("another slice", outputs.len(), other.len())))
}

/// A target or a buffer that does not fit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum LossError {
    /// The loss wants another kind of target.
    WrongTarget,
    /// The class is none of the outputs.
    NoSuchClass {
        /// The class.
        class: usize,
        /// Number of outputs.
        outputs: usize,
    },
    /// A target of [`Loss::Bernoulli`] lies outside `[0, 1]`.
    TargetRange {
        /// Its place among the targets of the case.
        index: usize,
        /// The target.
        target: f64,
    },
    /// A slice has another length than the outputs.
    Shape(ShapeError),
}

impl From<ShapeError> for LossError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl fmt::Display for LossError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongTarget => f.write_str("softmax takes a class as target, the other losses take values"),
            Self::NoSuchClass { class, outputs } => {
                write!(f, "class {class} is none of the {outputs} outputs")
            }
            Self::TargetRange { index, target } => {
                write!(f, "target {index} is {target:e}, a binary cross-entropy takes numbers from 0 to 1")
            }
            Self::Shape(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LossError {}
