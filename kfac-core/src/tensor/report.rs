//! What can be read of a preconditioner of tensors: what a step did, moments, ages.

use super::map::GradientMap;
use super::memory::{TensorSlot, moment_of};
use super::preconditioner::TensorPreconditioner;
use crate::report::{Preconditioned, RefreshReport};
use kfac_linalg::{Kernel, PackedRef, Scalar};

/// What one [`step`](TensorPreconditioner::step) did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorStep<T> {
    /// Its refreshes.
    pub refresh: RefreshReport,
    /// Its gradients; `None` where the map has only made its first bases, and every `U` is zero.
    pub preconditioned: Option<Preconditioned<T>>,
}

/// The state of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorReport {
    /// Statistics that the second moments of its axes have taken.
    pub updates: u32,
    /// Times that it has been preconditioned.
    pub preconditioned: u32,
    /// Axes that are preconditioned; the others, larger than the shape's limit, are left alone.
    pub preconditioned_axes: usize,
    /// Steps since the oldest of its axes was refreshed; `None` before the first time, and without such axes.
    pub age: Option<u64>,
    /// Failed refreshes in a row, of the axis that fails longest.
    pub failures: u8,
}

impl<T: Scalar, M: GradientMap<T>, K: Kernel<T>> TensorPreconditioner<'_, T, M, K> {
    /// The second moment `L` of an axis, and its weight: `1 - β^k` for an average, for a sum the number of statistics.
    pub fn moment(&self, tensor: usize, axis: usize) -> Option<(PackedRef<'_, T>, f64)> {
        let shape = self.net.get(tensor)?;
        let moment = moment_of(*shape, axis, &self.numbers[self.start(tensor)..])?;
        Some((moment, self.slots[tensor].weights[TensorSlot::AXES]))
    }

    /// The second moment of single numbers, where the map keeps one; see [`GradientMap::SPACE`]. In a basis, eigenvalues
    /// ascend along every axis, as of the last refresh.
    pub fn second_moment(&self, tensor: usize) -> Option<&[T]> {
        self.single_moment(tensor, 0, self.layout.second_moments)
    }

    /// The first moment, where the map keeps one, without bias correction.
    pub fn first_moment(&self, tensor: usize) -> Option<&[T]> {
        self.single_moment(tensor, self.layout.second_moments, self.layout.first_moments)
    }

    fn single_moment(&self, tensor: usize, before: usize, count: usize) -> Option<&[T]> {
        let entries = self.net.get(tensor)?.entries();
        let after = self.layout.second_moments + self.layout.first_moments - before;
        let start = self.start(tensor + 1) - after * entries;
        (count > 0).then(|| &self.numbers[start..][..entries])
    }

    /// Age, failures and axes of a tensor.
    pub fn tensor_report(&self, tensor: usize) -> Option<TensorReport> {
        let (slot, &shape) = (self.slots.get(tensor)?, self.net.get(tensor)?);
        let oldest = shape.axes().map(|axis| slot.refreshed[axis]).min();
        Some(TensorReport {
            updates: slot.updates,
            preconditioned: slot.preconditioned,
            preconditioned_axes: shape.preconditioned_axes(),
            age: oldest.filter(|&step| step > 0).map(|step| self.step.saturating_sub(step)),
            failures: slot.most_failures(),
        })
    }
}
