//! `G` by recursion: one matrix goes back through the network, in place of a row for every case.
//!
//! `Ḡ` begins as the mean Hessian of the loss in the network's outputs and is taken at the sums `s` of every layer:
//!
//! - through a layer `s = W ā`, from its sums to its inputs: `Ḡ <- Wᵀ Ḡ W`, `W` without its bias column;
//! - through an elementwise function `a = f(s)`: `Ḡ <- Ḡ ∘ E[f'(s) f'(s)ᵀ]`, the mean over the batch.
//!
//! What it costs does not depend on the number of outputs, and it needs neither targets nor samples. It takes a mean of
//! products for the product of means: for a single case, for linear networks and at the last layer it is the `G` of the
//! exact Fisher ([`Type-2`](crate::losses::Loss::hessian_column)); elsewhere it is an approximation.
//!
#![cfg_attr(feature = "alloc", doc = "```")]
#![cfg_attr(not(feature = "alloc"), doc = "```ignore")]
//! use kfac_core::evidence::Rows;
//! use kfac_core::linalg::{MatMut, MatRef, Reproducible};
//! use kfac_core::{LayerShape, Preconditioner, losses::Loss, map::Factored, statistics::kfra};
//!
//! // 3 -> 2 -> 2 with a ReLU between, on two cases.
//! let net = [LayerShape::dense(3, 2), LayerShape::dense(2, 2)];
//! let (x, hidden) = ([1.0, 2.0, 3.0, 0.5, 0.0, -1.0], [0.7, 0.0, 0.2, 1.5]);
//! let (slopes, outputs) = ([1.0, 0.0, 1.0, 1.0], [0.1, -0.4, 2.0, 1.0]);
//! let w = [0.5, -1.0, 0.2, 0.3, 2.0, 0.1]; // Of the second layer, the bias last.
//! let rows = |x, width| MatRef::row_major(x, 2, width);
//! let mut kfac = Preconditioner::on_heap(&net, Factored, Reproducible)?;
//! let mut scratch = vec![0.0; kfac.scratch_len().max(100)];
//! let mut observation = kfac.observe(2);
//!
//! let (mut g, mut below) = ([0.0; 4], [0.0; 4]);
//! let into = MatMut::row_major(&mut g, 2, 2)?;
//! kfra::mean_loss_hessian(Loss::Softmax, 1.0, rows(&outputs, 2)?, into, &mut scratch)?;
//! let inputs = Rows(rows(&hidden, 2)?);
//! observation.add_with_output_moment(1, &inputs, MatRef::row_major(&g, 2, 2)?, &mut scratch)?;
//!
//! let w = MatRef::row_major(&w, 2, 3)?.block(0..2, 0..2)?;
//! let into = MatMut::row_major(&mut below, 2, 2)?;
//! kfra::through_linear(Reproducible, w, MatRef::row_major(&g, 2, 2)?, into, &mut scratch)?;
//! let moment = MatMut::row_major(&mut below, 2, 2)?;
//! kfra::through_activation(Reproducible, rows(&slopes, 2)?, moment, &mut scratch)?;
//! let inputs = Rows(rows(&x, 3)?);
//! observation.add_with_output_moment(0, &inputs, MatRef::row_major(&below, 2, 2)?, &mut scratch)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Numbers are not looked at on the way: one that is not finite spreads, and is refused by name where `Ḡ` is
//! [added](crate::Observation::add_with_output_moment).
//!
//! Source: Botev, Ritter and Barber 2017, arXiv:1706.03662, section 3.2.

use crate::losses::Loss;
use core::fmt;
use kfac_linalg::product::{Accumulate, ProductError, gemm, gemm_scratch_len, syrk_lower, syrk_scratch_len};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar, ScratchError, ShapeError};

/// Scratch, in elements, that [`mean_loss_hessian`] needs.
pub const fn mean_loss_hessian_scratch_len(outputs: usize) -> usize {
    outputs.saturating_mul(2)
}

/// `Ḡ = (weight / N) Σ_cases H(f)`, the mean Hessian of `weight ℓ` in the outputs `f`, where the recursion begins.
///
/// # Shapes
/// `outputs`: `N x m`; `g_bar`: `m x m`, both triangles are written; `scratch`: [`mean_loss_hessian_scratch_len`].
/// # Units
/// `weight`: what the loss of a case is multiplied by; 1 for [`Loss`] as it stands.
/// # Errors
/// [`KfraError`]; `g_bar` is untouched then.
/// # Source
/// Botev, Ritter and Barber 2017, arXiv:1706.03662, section 3.2.
pub fn mean_loss_hessian<T: Scalar>(
    loss: Loss,
    weight: T,
    outputs: MatRef<'_, T>,
    mut g_bar: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), KfraError> {
    let [cases, m] = outputs.shape();
    expect([m, m], g_bar.shape())?;
    expect_scratch(mean_loss_hessian_scratch_len(m), scratch)?;
    if cases == 0 {
        return Err(KfraError::EmptyBatch);
    }
    if !(weight > T::ZERO && weight.is_finite()) {
        return Err(KfraError::Weight { weight: weight.to_f64() });
    }
    let (row, rest) = scratch.split_at_mut(m);
    g_bar.fill(T::ZERO);
    for case in 0..cases {
        for (column, f) in row.iter_mut().enumerate() {
            *f = outputs.at(case, column);
        }
        loss.add_hessian(row, weight / T::from_usize(cases), &mut g_bar, &mut rest[..m]);
    }
    Ok(())
}

/// Scratch, in elements, that [`through_activation`] needs.
pub const fn through_activation_scratch_len<T: Scalar>(cases: usize, m: usize) -> usize {
    m.saturating_mul(m).saturating_add(syrk_scratch_len::<T>(m, cases))
}

/// `Ḡ <- Ḡ ∘ E[f'(s) f'(s)ᵀ]`: from the values of an elementwise function to its arguments.
///
/// # Shapes
/// `derivatives`: `N x m`, `f'(s)` of every case; `g_bar`: `m x m`, its lower triangle is read, both are written;
/// `scratch`: [`through_activation_scratch_len`].
/// # Errors
/// [`KfraError`]; `g_bar` is untouched then.
/// # Source
/// Botev, Ritter and Barber 2017, arXiv:1706.03662, section 3.2.
pub fn through_activation<T: Scalar, K: Kernel<T>>(
    kernel: K,
    derivatives: MatRef<'_, T>,
    mut g_bar: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), KfraError> {
    let [cases, m] = derivatives.shape();
    expect([m, m], g_bar.shape())?;
    expect_scratch(through_activation_scratch_len::<T>(cases, m), scratch)?;
    if cases == 0 {
        return Err(KfraError::EmptyBatch);
    }
    let (square, scratch) = scratch.split_at_mut(m * m);
    let mut mean = MatMut::row_major(square, m, m)?;
    let share = Accumulate::Replace(T::ONE / T::from_usize(cases));
    syrk_lower(kernel, mean.reborrow(), share, derivatives, scratch)?;
    for (i, j) in lower_triangle(m) {
        let product = g_bar.at(i, j) * mean.at(i, j);
        g_bar.set(i, j, product);
        g_bar.set(j, i, product);
    }
    Ok(())
}

/// Scratch, in elements, that [`through_linear`] needs.
pub const fn through_linear_scratch_len<T: Scalar>(m: usize, features: usize) -> usize {
    let (left, right) = (gemm_scratch_len::<T>(m, features, m), gemm_scratch_len::<T>(features, features, m));
    m.saturating_mul(features).saturating_add(if left > right { left } else { right })
}

/// `Wᵀ Ḡ W`: from a layer's sums to its inputs.
///
/// # Shapes
/// `weights`: `m x d`, any strides, `W` without its bias column (a [`block`](MatRef::block) of it); `g_bar`: `m x m`, both
/// triangles are read; `below`: `d x d`, both triangles are written, equal to the bit; `scratch`:
/// [`through_linear_scratch_len`].
/// # Errors
/// [`KfraError`]; `below` is untouched then.
/// # Source
/// Botev, Ritter and Barber 2017, arXiv:1706.03662, section 3.2.
pub fn through_linear<T: Scalar, K: Kernel<T>>(
    kernel: K,
    weights: MatRef<'_, T>,
    g_bar: MatRef<'_, T>,
    mut below: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), KfraError> {
    let [m, features] = weights.shape();
    expect([m, m], g_bar.shape())?;
    expect([features, features], below.shape())?;
    expect_scratch(through_linear_scratch_len::<T>(m, features), scratch)?;
    let (half, scratch) = scratch.split_at_mut(m * features);
    let replace = Accumulate::Replace(T::ONE);
    gemm(kernel, MatMut::row_major(half, m, features)?, replace, g_bar, weights, scratch)?;
    let half = MatRef::row_major(half, m, features)?;
    gemm(kernel, below.reborrow(), replace, weights.transposed(), half, scratch)?;
    // The two triangles were rounded apart.
    for (i, j) in lower_triangle(features) {
        below.set(j, i, below.at(i, j));
    }
    Ok(())
}

fn lower_triangle(size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..size).flat_map(|i| (0..=i).map(move |j| (i, j)))
}

fn expect(expected: [usize; 2], found: [usize; 2]) -> Result<(), KfraError> {
    if expected == found { Ok(()) } else { Err(KfraError::Shape(ShapeError::new(expected, found))) }
}

fn expect_scratch<T>(needed: usize, scratch: &[T]) -> Result<(), KfraError> {
    let found = scratch.len();
    if found >= needed { Ok(()) } else { Err(KfraError::Scratch(ScratchError { needed, found })) }
}

/// A step of the recursion that cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum KfraError {
    /// Matrices whose shapes do not fit together.
    Shape(ShapeError),
    /// Scratch too short.
    Scratch(ScratchError),
    /// No case to take a mean over.
    EmptyBatch,
    /// The weight of the loss is not positive and finite.
    Weight {
        /// The weight.
        weight: f64,
    },
}

impl From<ShapeError> for KfraError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl From<ProductError> for KfraError {
    fn from(error: ProductError) -> Self {
        match error {
            ProductError::Shape(error) => Self::Shape(error),
            ProductError::Scratch(error) => Self::Scratch(error),
            _ => Self::Shape(ShapeError::new([0; 2], [0; 2])),
        }
    }
}

impl fmt::Display for KfraError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(error) => error.fmt(f),
            Self::Scratch(error) => error.fmt(f),
            Self::EmptyBatch => f.write_str("the batch has no case"),
            Self::Weight { weight } => write!(f, "the weight of a loss cannot be {weight:e}"),
        }
    }
}

impl core::error::Error for KfraError {}
