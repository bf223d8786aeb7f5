//! The Laplace posterior, because the factors are there: `p(W | data) = N(W*, (N F + τ I)⁻¹)`, layer by layer.
//!
//! `F` is the Fisher block of a layer in the eigenbasis of its factors, `Q_G s Q_Aᵀ` element by element, with `s = d_G d_Aᵀ`
//! for [`Eigenbasis`](crate::map::Eigenbasis) and the second moment of the rotated gradients for
//! [`Ekfac`](crate::map::Ekfac); `N` is the number of cases that the loss is summed over, `τ` the precision of the Gaussian
//! prior. A training loss that is a mean over cases with the l2 term `η |θ|² / 2` is the one of `τ = N η`.
//!
#![cfg_attr(feature = "alloc", doc = "```")]
#![cfg_attr(not(feature = "alloc"), doc = "```ignore")]
//! use kfac_core::evidence::{OutputGradients, Rows};
//! use kfac_core::linalg::{Fast, MatRef};
//! use kfac_core::posterior::Posterior;
//! use kfac_core::{LayerShape, Preconditioner, map::Eigenbasis, sampling};
//!
//! let net = [LayerShape::dense(1, 1)];
//! let mut kfac = Preconditioner::on_heap(&net, Eigenbasis::full(), Fast::detect())?;
//! let mut scratch = vec![0.0_f64; kfac.scratch_len()];
//! let (x, g) = ([1.0, -1.0], [1.0, -1.0]);
//! let g = OutputGradients::per_case(MatRef::row_major(&g, 2, 1)?);
//! kfac.observe(2).add(0, &Rows(MatRef::row_major(&x, 2, 1)?), g, &mut scratch)?;
//! kfac.refresh(&mut scratch)?;
//!
//! // 50 cases, weights of prior variance 2: A = I and G = 1, so every weight has the precision 50.5.
//! let mut posterior = Posterior::new(&mut kfac, 50.0, 0.5)?;
//! assert!((posterior.log_determinant(0)? - 2.0 * 50.5_f64.ln()).abs() < 1e-12);
//! // A sample is the trained weights and this, made of standard normal numbers.
//! let mut deviation = sampling::normal_pair([0x1234_5678, 0x9abc_def0]);
//! posterior.sample(0, &mut deviation, &mut scratch)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Source
//! Ritter, Botev and Barber 2018, "A scalable Laplace approximation for neural networks" (ICLR), which splits `τ` between the
//! factors; the eigenbasis makes the split unnecessary.

use crate::error::{LayerError, LayerErrorKind, Quantity, SettingError};
use crate::map::{MapError, SpectralMap, in_eigenbases};
use crate::memory::{LayerState, apply_scratch_len};
use crate::preconditioner::Preconditioner;
use crate::shape::LayerShape;
use crate::statistics::factor::SquareSum;
use kfac_linalg::{Kernel, Scalar};

/// The Laplace posterior of the weights, from the statistics of a preconditioner as of their last refresh.
pub struct Posterior<'p, 's, T, M, K> {
    owner: &'p mut Preconditioner<'s, T, M, K>,
    cases: T,
    prior: T,
}

impl<'p, 's, T: Scalar, M: SpectralMap<T>, K: Kernel<T>> Posterior<'p, 's, T, M, K> {
    /// The posterior after `cases` cases, `N`, under the prior precision `prior`, `τ`.
    ///
    /// # Errors
    /// [`SettingError`] unless `cases` is finite and not negative, and `prior` finite and positive.
    pub fn new(owner: &'p mut Preconditioner<'s, T, M, K>, cases: T, prior: T) -> Result<Self, SettingError> {
        SettingError::unless(cases >= T::ZERO && cases.is_finite(), "cases", cases)?;
        SettingError::unless(prior > T::ZERO && prior.is_finite(), "prior", prior)?;
        Ok(Self { owner, cases, prior })
    }

    /// `ln det (N F + τ I)` of a layer: what the evidence of a model pays for its weights.
    ///
    /// # Errors
    /// A [`LayerError`] for a layer that does not exist or has no eigenbasis yet, and where the precision overflows.
    pub fn log_determinant(&mut self, layer: usize) -> Result<T, LayerError> {
        self.sum(layer, T::ln)
    }

    /// `tr (N F + τ I)` of a layer.
    ///
    /// # Errors
    /// As for [`log_determinant`](Self::log_determinant).
    pub fn trace(&mut self, layer: usize) -> Result<T, LayerError> {
        self.sum(layer, |precision| precision)
    }

    /// `tr (N F + τ I)⁻¹`: the sum of the variances of a layer's weights.
    ///
    /// # Errors
    /// As for [`log_determinant`](Self::log_determinant).
    pub fn variance(&mut self, layer: usize) -> Result<T, LayerError> {
        self.sum(layer, |precision| T::ONE / precision)
    }

    /// `V <- (N F + τ I)⁻¹ V` for `m n` numbers, row-major.
    ///
    /// `scratch`: [`scratch_len`](crate::memory::scratch_len).
    ///
    /// # Errors
    /// As for [`log_determinant`](Self::log_determinant), for a wrong length, numbers that are not finite, and scratch.
    pub fn solve(&mut self, layer: usize, v: &mut [T], scratch: &mut [T]) -> Result<(), LayerError> {
        self.rotate(layer, v, scratch, |precision| T::ONE / precision).map_err(|kind| kind.at(layer))
    }

    /// Turns `m n` independent standard normal numbers, row-major, into a sample of `W - W*`:
    /// `Q_G [noise / √(N s + τ)] Q_Aᵀ`.
    ///
    /// `scratch`: [`scratch_len`](crate::memory::scratch_len). For numbers, see [`normal_pair`](crate::sampling::normal_pair).
    ///
    /// # Errors
    /// As for [`solve`](Self::solve).
    pub fn sample(&mut self, layer: usize, noise: &mut [T], scratch: &mut [T]) -> Result<(), LayerError> {
        self.rotate(layer, noise, scratch, |precision| T::ONE / precision.sqrt())
            .map_err(|kind| kind.at(layer))
    }

    fn sum(&mut self, layer: usize, of: impl Fn(T) -> T) -> Result<T, LayerError> {
        self.try_sum(layer, of).map_err(|kind| kind.at(layer))
    }

    fn try_sum(&mut self, layer: usize, of: impl Fn(T) -> T) -> Result<T, LayerErrorKind> {
        let shape = self.shape(layer)?;
        let (cases, prior) = (self.cases, self.prior);
        let state = self.owner.layer_state(layer);
        finite(cases * largest_curvature::<T, M>(&state) + prior)?;
        let mut total = T::ZERO;
        for row in 0..shape.outputs() {
            let columns = 0..shape.inputs();
            let precision = |column| cases * M::curvature(&state, [row, column]) + prior;
            total += columns.fold(T::ZERO, |sum, column| sum + of(precision(column)));
        }
        finite(total)
    }

    fn rotate(
        &mut self,
        layer: usize,
        v: &mut [T],
        scratch: &mut [T],
        factor: impl Fn(T) -> T,
    ) -> Result<(), LayerErrorKind> {
        let shape = self.shape(layer)?;
        Quantity::Gradient.expect([shape.weights(), 1], [v.len(), 1])?;
        SquareSum::of_rows(Quantity::Gradient, v, shape.inputs())?;
        let needed = apply_scratch_len::<T, M>(shape);
        self.owner.expect_scratch(layer, needed, scratch).map_err(|error| error.kind)?;
        let (cases, prior, kernel) = (self.cases, self.prior, self.owner.kernel);
        let state = self.owner.layer_state(layer);
        finite(cases * largest_curvature::<T, M>(&state) + prior)?;
        let scale = |v: &mut [T]| {
            for (row, values) in v.chunks_exact_mut(shape.inputs()).enumerate() {
                for (column, value) in values.iter_mut().enumerate() {
                    *value *= factor(cases * M::curvature(&state, [row, column]) + prior);
                }
            }
        };
        let (rotated, scratch) = scratch.split_at_mut(v.len());
        rotated.copy_from_slice(v);
        in_eigenbases(kernel, &state, rotated, scratch, scale).map_err(LayerErrorKind::Apply)?;
        SquareSum::of_rows(Quantity::Preconditioned, rotated, shape.inputs())?;
        v.copy_from_slice(rotated);
        Ok(())
    }

    fn shape(&self, layer: usize) -> Result<LayerShape, LayerErrorKind> {
        let net = self.owner.net();
        let &shape = net.get(layer).ok_or(LayerErrorKind::NoSuchLayer { layers: net.len() })?;
        if self.owner.slots[layer].is_ready() { Ok(shape) } else { Err(LayerErrorKind::NotReady) }
    }
}

fn largest_curvature<T: Scalar, M: SpectralMap<T>>(state: &LayerState<'_, T>) -> T {
    let columns = state.shape.inputs();
    let places = (0..state.shape.outputs()).flat_map(|row| (0..columns).map(move |column| [row, column]));
    places.fold(T::ZERO, |most, place| most.maximum(M::curvature(state, place)))
}

/// A precision that is one.
fn finite<T: Scalar>(precision: T) -> Result<T, LayerErrorKind> {
    if precision.is_finite() {
        return Ok(precision);
    }
    Err(LayerErrorKind::Apply(MapError::Scales { largest: precision.to_f64() }))
}
