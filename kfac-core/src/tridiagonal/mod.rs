//! Block-tridiagonal K-FAC: the inverse of the Fisher matrix couples each layer with its neighbours.
//!
//! With `F_{i,j} = A_{i,j} (x) G_{i,j}` between any two layers, the Gaussian that has the diagonal blocks and those beside
//! them as its covariance, and in which a layer depends on the others through the next one alone, has the precision
//!
//! ```text
//!     F⁻¹ = Ξᵀ Λ Ξ
//!     Ξ:  I on the diagonal, -Ψ_i = -Ψ_A (x) Ψ_G above it,  Ψ_A = A_{i,i+1} Â_{i+1}⁻¹,  Ψ_G = G_{i,i+1} Ĝ_{i+1}⁻¹
//!     Λ:  Σ_i⁻¹ on the diagonal,  Σ_i = Â_i (x) Ĝ_i - Ψ_A Â_{i+1} Ψ_Aᵀ (x) Ψ_G Ĝ_{i+1} Ψ_Gᵀ,  the last one Â (x) Ĝ
//! ```
//!
//! `Â` and `Ĝ` are damped layer by layer as in [`Factored`](crate::map::Factored), the factors between layers are not. A
//! layer one of whose factors vanishes, where damping takes the place of both, is coupled with nothing: its blocks beside
//! the diagonal vanish too.
//!
//! [`Tridiagonal`] owns the factors of a chain of dense layers, each of which feeds the next, and has the verbs of
//! [`Preconditioner`](crate::Preconditioner): observe, refresh, precondition, for all layers at once.
//!
#![cfg_attr(feature = "alloc", doc = "```")]
#![cfg_attr(not(feature = "alloc"), doc = "```ignore")]
//! use kfac_core::evidence::{OutputGradients, Rows};
//! use kfac_core::linalg::{MatRef, Reproducible};
//! use kfac_core::tridiagonal::LayerRows;
//! use kfac_core::{LayerShape, Tridiagonal};
//!
//! let net = [LayerShape::dense(2, 3), LayerShape::dense(3, 1)];
//! let mut kfac = Tridiagonal::on_heap(&net, Reproducible)?;
//! let mut scratch = vec![0.0; kfac.scratch_len()];
//! // Two cases: inputs and output gradients of either layer.
//! let (x, g) = ([1.0, -2.0, 0.5, 0.3], [0.1, 0.0, -0.4, 0.2, 0.3, 0.0]);
//! let (hidden, error) = ([0.4, -0.1, 0.9, 0.2, 0.6, -0.7], [0.5, -1.5]);
//! let layer = |inputs, features, gradients, outputs| -> Result<_, kfac_core::linalg::ShapeError> {
//!     let gradients = OutputGradients::per_case(MatRef::row_major(gradients, 2, outputs)?);
//!     Ok(LayerRows { inputs: Rows(MatRef::row_major(inputs, 2, features)?), gradients })
//! };
//! kfac.observe(2).add(&[layer(&x, 2, &g, 3)?, layer(&hidden, 3, &error, 1)?], &mut scratch)?;
//! kfac.refresh(&mut scratch)?;
//! let mut gradients = [1.0; 9 + 4];
//! kfac.precondition_flat(&mut gradients, &mut scratch)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Source: Martens and Grosse 2015, arXiv:1503.05671, section 4.3 and appendix B.

mod apply;
mod computed;
mod layout;
mod observation;
mod precondition;
mod saved;

pub use layout::{refresh_flops, scratch_len, state_len};
pub use observation::{LayerRows, MomentPair, NetworkMoments, TridiagonalObservation};
pub use saved::saved_len;

use crate::error::{LayerError, LayerErrorKind, SettingError};
use crate::memory::{Buffer, LayerSlot, LayerState, Moment, Net, Storage, StorageError};
use crate::report::{LayerReport, RefreshReport};
use crate::schedule::Schedule;
use crate::shape::{LayerShape, Side};
use kfac_linalg::{Kernel, MatRef, PackedRef, Scalar, ScratchError};
use layout::{OWN, computed_len, computed_range, next_range, own_range, statistics_len};

/// Natural-gradient preconditioning of a chain of dense layers by the block-tridiagonal inverse of the
/// [module](self).
///
/// The whole network is one unit: it is observed, refreshed and preconditioned together, at the damping of the last
/// refresh. An error leaves state and gradients as if the call had not been made, but for a refresh that fails: it is that of
/// its step, is counted, and leaves the last inverse in force.
///
/// # Source
/// Martens and Grosse 2015, arXiv:1503.05671, section 4.3 and appendix B.
pub struct Tridiagonal<'s, T, K> {
    net: Net<'s>,
    numbers: Buffer<'s, T>,
    /// One, of the network.
    slots: Buffer<'s, LayerSlot>,
    kernel: K,
    schedule: Schedule,
    decay: T,
    damping: T,
    l2: T,
    /// Steps begun: calls of `refresh`.
    step: u64,
}

impl<'s, T: Scalar, K: Kernel<T>> Tridiagonal<'s, T, K> {
    /// Name in saved states.
    pub const NAME: &'static str = "tridiagonal";

    /// A preconditioner that has seen nothing, in borrowed storage of [`state_len`] numbers and one slot: damping 0.1,
    /// decay 0.95, statistics and inverse every step.
    ///
    /// # Errors
    /// [`StorageError`] where the storage is too small or a layer is empty.
    pub fn new(net: &'s [LayerShape], kernel: K, storage: Storage<'s, T>) -> Result<Self, StorageError> {
        Self::with_storage(Net::Borrowed(net), kernel, storage)
    }

    fn with_storage(net: Net<'s>, kernel: K, storage: Storage<'s, T>) -> Result<Self, StorageError> {
        if let Some(layer) = net.iter().position(|shape| shape.weights() == 0) {
            return Err(StorageError::EmptyLayer { layer });
        }
        let Storage { numbers, slots } = storage.cleared_for(state_len(&net), 1)?;
        let (decay, damping) = (T::from_f64(0.95), T::from_f64(0.1));
        let schedule = Schedule::EVERY_STEP;
        Ok(Self { net, numbers, slots, kernel, schedule, decay, damping, l2: T::ZERO, step: 0 })
    }

    /// Scratch, in elements, that every verb can do with.
    pub fn scratch_len(&self) -> usize {
        scratch_len::<T, K>(&self.net)
    }

    /// Sets the periods of statistics and refreshes. The refresh is due at the first step of its period.
    ///
    /// # Errors
    /// [`SettingError`] where a period is 0.
    pub fn with_schedule(mut self, schedule: Schedule) -> Result<Self, SettingError> {
        schedule.check()?;
        self.schedule = schedule;
        Ok(self)
    }

    /// Sets the decay of the statistics' moving average.
    ///
    /// # Errors
    /// [`SettingError`] unless it lies in `[0, 1)`.
    pub fn with_decay(mut self, decay: T) -> Result<Self, SettingError> {
        SettingError::unless(decay >= T::ZERO && decay < T::ONE, "decay", decay)?;
        self.decay = decay;
        Ok(self)
    }

    /// Sets `η`, the l2 weight decay that is part of the loss: `λ + η` takes the place of `λ` everywhere. The
    /// gradients must already contain `ηθ`.
    ///
    /// # Errors
    /// [`SettingError`] unless it is finite and not negative.
    pub fn with_l2(mut self, l2: T) -> Result<Self, SettingError> {
        SettingError::unless(l2 >= T::ZERO && l2.is_finite(), "l2", l2)?;
        self.l2 = l2;
        Ok(self)
    }

    /// Sets the damping `λ`, in units of an eigenvalue of `A (x) G`. Taken up at the next refresh.
    ///
    /// # Errors
    /// [`SettingError`] unless it is finite and positive.
    pub fn set_damping(&mut self, lambda: T) -> Result<(), SettingError> {
        SettingError::unless(lambda > T::ZERO && lambda.is_finite(), "damping", lambda)?;
        self.damping = lambda;
        Ok(())
    }

    /// The damping `λ`, without `η`.
    pub fn damping(&self) -> T {
        self.damping
    }

    /// The l2 weight decay `η`.
    pub fn l2(&self) -> T {
        self.l2
    }

    /// The network's shapes.
    pub fn net(&self) -> &[LayerShape] {
        &self.net
    }

    /// Is a statistics update due at this step?
    pub fn wants_statistics(&self) -> bool {
        self.step.is_multiple_of(u64::from(self.schedule.statistics_every))
    }

    /// Has the network an inverse?
    pub fn is_ready(&self) -> bool {
        self.slot().is_ready()
    }

    /// The factor `A` or `G` of a layer as it stands: its weighted sum and the weight (`factor = sum / weight`), or
    /// `None` where the layer does not exist or nothing has been observed.
    pub fn factor(&self, layer: usize, side: Side) -> Option<(PackedRef<'_, T>, f64)> {
        let &shape = self.net.get(layer)?;
        let offset = if side == Side::Output { Moment::Full.len(shape.inputs()) } else { 0 };
        let sum = PackedRef::new(&self.numbers[own_range(&self.net, layer)][offset..], shape.side(side));
        Some((sum.ok()?, self.weight()?))
    }

    /// The factor `A_next` (`n x n'`) or `G_next` (`m x m'`) of a layer and the next one, as [`factor`](Self::factor) gives
    /// their own; `None` for the last layer too.
    pub fn next_factor(&self, layer: usize, side: Side) -> Option<(MatRef<'_, T>, f64)> {
        let (shape, next) = (self.net.get(layer)?, self.net.get(layer + 1)?);
        let sum = &self.numbers[next_range(&self.net, layer, side)];
        Some((MatRef::row_major(sum, shape.side(side), next.side(side)).ok()?, self.weight()?))
    }

    /// `Ψ_A` (`n x n'`) or `Ψ_G` (`m x m'`) of a layer, from the last refresh; `None` for the last layer and before the
    /// first refresh.
    pub fn psi(&self, layer: usize, side: Side) -> Option<MatRef<'_, T>> {
        let (shape, next) = (self.net.get(layer)?, self.net.get(layer + 1)?);
        let (size, next) = (shape.side(side), next.side(side));
        let numbers = &self.computed()[computed_range(&self.net, layer, side)];
        self.is_ready().then(|| MatRef::row_major(&numbers[size * size + size..], size, next).ok())?
    }

    /// Age, failures and damping of the network, which is one unit.
    pub fn report(&self) -> LayerReport {
        let slot = self.slot();
        LayerReport {
            updates: slot.updates,
            age: slot.is_ready().then(|| self.step.saturating_sub(slot.refreshed[0])),
            failures: slot.most_failures(),
            damping_in_force: slot.is_ready().then_some(slot.refreshed_damping),
        }
    }

    /// Begins one statistics update over `cases` cases, which may be added whole, in parts, or one by one.
    ///
    /// `cases` sets how much each of them weighs against the decayed past. Fewer may be added: the factors are still means,
    /// and the past weighs a little more. More are an error.
    pub fn observe(&mut self, cases: usize) -> TridiagonalObservation<'_, 's, T, K> {
        self.slots[0].added = 0;
        TridiagonalObservation::new(self, cases)
    }

    /// Renews the inverse of the whole network where this step's place in the period says so, and moves on to the next
    /// step. Without statistics nothing is renewed. A refresh that fails is counted, and leaves the last good inverse in
    /// force.
    ///
    /// # Errors
    /// [`LayerErrorKind::ThirdFailure`] or [`LayerErrorKind::Coupling`] where it failed for the third time in a row;
    /// [`LayerErrorKind::Scratch`] before anything is touched.
    pub fn refresh(&mut self, scratch: &mut [T]) -> Result<RefreshReport, LayerError> {
        let is_due = self.step.is_multiple_of(u64::from(self.schedule.refresh_every));
        self.refresh_if(is_due, scratch)
    }

    /// Renews the inverse now: the explicit cold start. Counts as this step's refresh.
    ///
    /// # Errors
    /// As for [`refresh`](Self::refresh).
    pub fn refresh_all(&mut self, scratch: &mut [T]) -> Result<RefreshReport, LayerError> {
        self.refresh_if(true, scratch)
    }

    fn refresh_if(&mut self, is_due: bool, scratch: &mut [T]) -> Result<RefreshReport, LayerError> {
        self.expect_scratch(scratch).map_err(|kind| kind.at(0))?;
        self.step += 1;
        let mut report = RefreshReport::default();
        if !is_due {
            return Ok(report);
        }
        if self.slot().updates == 0 {
            report.without_statistics = 1;
            return Ok(report);
        }
        let lambda = self.damping + self.l2;
        let (staged, scratch) = scratch.split_at_mut(computed_len(&self.net));
        let outcome = self.compute(lambda, staged, scratch, &mut report);
        let slot = &mut self.slots[0];
        match outcome {
            Ok(()) => {
                slot.refreshed = [self.step; 2];
                slot.refreshed_damping = lambda.to_f64();
                slot.failures = [0; 2];
                report.units = 1;
                self.numbers[statistics_len(&self.net)..].copy_from_slice(staged);
                Ok(report)
            }
            Err(error) => {
                slot.failures[0] = slot.failures[0].saturating_add(1);
                if slot.failures[0] >= 3 {
                    return Err(error);
                }
                Ok(RefreshReport { failures: 1, ..RefreshReport::default() })
            }
        }
    }

    fn slot(&self) -> &LayerSlot {
        &self.slots[0]
    }

    /// Of every sum: all of them have seen the same cases.
    fn weight(&self) -> Option<f64> {
        let weight = self.slot().weights[0];
        (weight > 0.0).then_some(weight)
    }

    fn computed(&self) -> &[T] {
        &self.numbers[statistics_len(&self.net)..]
    }

    /// `A` and `G` of a layer that exists.
    fn layer_state(&mut self, layer: usize) -> LayerState<'_, T> {
        let numbers = &mut self.numbers[own_range(&self.net, layer)];
        LayerState::new(self.net[layer], OWN, &self.slots[0], numbers)
    }

    fn expect_scratch(&self, scratch: &[T]) -> Result<(), LayerErrorKind> {
        let (needed, found) = (self.scratch_len(), scratch.len());
        if found >= needed {
            return Ok(());
        }
        Err(LayerErrorKind::Scratch(ScratchError { needed, found }))
    }
}

#[cfg(feature = "alloc")]
impl<T: Scalar, K: Kernel<T>> Tridiagonal<'static, T, K> {
    /// A preconditioner that owns its storage, otherwise as [`new`](Self::new).
    ///
    /// # Errors
    /// [`StorageError::EmptyLayer`], and [`StorageError::Numbers`] where no memory can hold the network.
    pub fn on_heap(net: &[LayerShape], kernel: K) -> Result<Self, StorageError> {
        let storage = Storage::owned(state_len(net), 1)?;
        Self::with_storage(Net::Owned(net.to_vec()), kernel, storage)
    }
}
