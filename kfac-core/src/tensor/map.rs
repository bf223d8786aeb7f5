//! What a gradient-fed map is.

use super::accumulation::{Accumulation, SecondMoment};
use super::memory::{TensorLayout, TensorState};
use crate::error::SettingError;
use crate::map::{MapError, Refreshed};
use kfac_linalg::{Kernel, Scalar};

/// Turns a gradient into a preconditioned gradient, from what it keeps of gradients alone.
pub trait GradientMap<T: Scalar>: Copy {
    /// Name in saved states and reports.
    const NAME: &'static str;
    /// Where the refresh stands in a step.
    const ORDER: StepOrder;
    /// Where the second moment of single numbers lives.
    const SPACE: MomentSpace;

    /// Arrays kept per tensor, and scratch.
    fn layout(&self) -> TensorLayout;

    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// Name and value of the first one.
    fn check(&self) -> Result<(), SettingError>;

    /// How the second moments of the axes follow the gradients.
    fn accumulation(&self) -> Accumulation<T>;

    /// How the second moment of single numbers follows the gradients.
    fn second_moment(&self) -> SecondMoment<T>;

    /// `β` of the first moment, which takes the gradient's place where there is one.
    fn first_moment(&self) -> Option<T>;

    /// Must a tensor that has been preconditioned so often have its roots or bases?
    fn needs_refresh(&self, preconditioned: u32) -> bool {
        let _ = preconditioned;
        true
    }

    /// Most flops that the refresh of an axis can take, times the cube of its side, for the schedule.
    fn refresh_flops(&self) -> u64;

    /// Turns a gradient into the [space](Self::SPACE) of the second moment.
    ///
    /// # Errors
    /// A [`MapError`] for shapes and scratch.
    fn in_moment_space<K: Kernel<T>>(
        &self,
        kernel: K,
        tensor: &TensorState<'_, T>,
        gradient: &mut [T],
        scratch: &mut [T],
    ) -> Result<(), MapError> {
        let _ = (kernel, tensor, gradient, scratch);
        Ok(())
    }

    /// Recomputes the matrix of an axis from its second moment. On failure the tensor is left as it was.
    ///
    /// # Errors
    /// A [`MapError`] that carries the number.
    fn refresh<K: Kernel<T>>(
        &self,
        kernel: K,
        tensor: &mut TensorState<'_, T>,
        axis: usize,
        scratch: &mut [T],
    ) -> Result<Refreshed, MapError>;

    /// `V` to `U` in place; `v` is the gradient, or its corrected first moment.
    ///
    /// # Errors
    /// A [`MapError`] for shapes, scratch, and numbers that leave the range of `T`.
    fn apply<K: Kernel<T>>(
        &self,
        kernel: K,
        tensor: &TensorState<'_, T>,
        v: &mut [T],
        scratch: &mut [T],
    ) -> Result<(), MapError>;
}

/// Where the refresh stands in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOrder {
    /// Observe, refresh, precondition: the gradient is in the roots that it is multiplied by.
    RefreshFirst,
    /// Observe, precondition, refresh: a new basis serves from the next step on. The first call only initialises.
    RefreshLast,
}

/// Where the second moment of single numbers lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentSpace {
    /// With the gradients, from the first one on.
    Original,
    /// In the bases of the axes, from the second gradient on: the first one makes the bases.
    Basis,
}
