//! Where the numbers of tensors live: one slice, laid out by one table.

use super::axes::products_len;
use super::shape::{MAX_ORDER, TensorShape};
use crate::error::SettingError;
use crate::memory::{Memory, Slot, StorageError, max, unpack};
use core::fmt;
use kfac_linalg::eigh::{Method, refresh, roots};
use kfac_linalg::product::gemm_scratch_len;
use kfac_linalg::{MatRef, PackedMut, PackedRef, Scalar, ShapeError, packed_len};

/// What a map keeps per tensor, beside the second moment and one square matrix of every preconditioned axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorLayout {
    /// Second moments of single numbers: tensors of the same shape.
    pub second_moments: usize,
    /// First moments.
    pub first_moments: usize,
    /// What one refresh runs.
    pub refresh: RefreshRoutine,
}

/// What the refresh of one axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshRoutine {
    /// A decomposition and an inverse root.
    Root(Method),
    /// The sorting of an old basis with its second moment, and a subspace step or a decomposition.
    Basis(Method),
}

impl TensorLayout {
    /// Numbers kept for one tensor.
    pub const fn tensor_len(self, shape: TensorShape) -> usize {
        let moments = shape.entries().saturating_mul(self.second_moments + self.first_moments);
        axes_len(shape, shape.order()).saturating_add(moments)
    }
}

/// Numbers kept for the axes before `end`.
const fn axes_len(shape: TensorShape, end: usize) -> usize {
    let (mut total, mut axis) = (0_usize, 0);
    while axis < end {
        if shape.is_preconditioned(axis) {
            let side = shape.side(axis);
            total = total.saturating_add(packed_len(side)).saturating_add(side.saturating_mul(side));
        }
        axis += 1;
    }
    total
}

/// Numbers that [`TensorPreconditioner`](super::TensorPreconditioner) keeps for tensors under a map's [`TensorLayout`].
pub const fn state_len(net: &[TensorShape], layout: TensorLayout) -> usize {
    let (mut total, mut tensor) = (0, 0);
    while tensor < net.len() {
        total = layout.tensor_len(net[tensor]).saturating_add(total);
        tensor += 1;
    }
    total
}

/// Scratch, in elements, that every verb of [`TensorPreconditioner`](super::TensorPreconditioner) can do with. Between calls
/// it holds nothing.
pub const fn scratch_len<T: Scalar>(net: &[TensorShape], layout: TensorLayout) -> usize {
    let (mut most, mut tensor) = (0, 0);
    while tensor < net.len() {
        let shape = net[tensor];
        // The gradient, its first moment, and the tensor on its way through the axes.
        let tensors = shape.entries().saturating_mul(2 + layout.first_moments);
        most = max(most, tensors.saturating_add(products_len::<T>(shape)));
        let mut axis = 0;
        while axis < shape.order() {
            if shape.is_preconditioned(axis) {
                most = max(most, layout.refresh.scratch_len::<T>(shape, axis));
            }
            axis += 1;
        }
        tensor += 1;
    }
    most
}

impl RefreshRoutine {
    const fn scratch_len<T: Scalar>(self, shape: TensorShape, axis: usize) -> usize {
        let n = shape.side(axis);
        let square = n.saturating_mul(n);
        if square > usize::MAX / 16 {
            return usize::MAX; // The routines' own lengths, a few squares, would not fit.
        }
        match self {
            // `L`, its eigenvectors and eigenvalues.
            Self::Root(method) => {
                2 * square + n + max(method.scratch_len::<T>(n), roots::scratch_len::<T>(n))
            }
            // The new order and basis, then `L`, its product with the old basis and the quotients, or the second moment
            // while it is sorted.
            Self::Basis(method) => {
                let routine =
                    max(refresh::step_or_cold_scratch_len::<T>(n, method), gemm_scratch_len::<T>(n, n, n));
                let basis = (2 * square + n).saturating_add(routine);
                max(basis, shape.entries()).saturating_add(n + square)
            }
        }
    }
}

/// Bookkeeping of one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorSlot {
    /// Statistics that the second moments of the axes have taken.
    pub(crate) updates: u32,
    /// Times that the tensor has been preconditioned.
    pub(crate) preconditioned: u32,
    /// Weights of the second moments of the axes, the second moment of single numbers, and the first moment: those that
    /// averages of ones would have.
    pub(crate) weights: [f64; 3],
    /// Step (counted from 1) of the last successful refresh of each axis; 0 = never.
    pub(crate) refreshed: [u64; MAX_ORDER],
    /// Failed refreshes in a row, of each axis.
    pub(crate) failures: [u8; MAX_ORDER],
    /// Step of the refresh period at which each axis is due.
    pub(crate) due: [u32; MAX_ORDER],
}

impl TensorSlot {
    /// A tensor that has seen nothing.
    pub const EMPTY: Self = Self {
        updates: 0,
        preconditioned: 0,
        weights: [0.0; 3],
        refreshed: [0; MAX_ORDER],
        failures: [0; MAX_ORDER],
        due: [0; MAX_ORDER],
    };

    /// Places in [`weights`](Self::weights).
    pub(super) const AXES: usize = 0;
    pub(super) const SECOND: usize = 1;
    pub(super) const FIRST: usize = 2;

    /// Has every preconditioned axis been refreshed at least once?
    pub(super) fn is_ready(&self, shape: TensorShape) -> bool {
        shape.axes().all(|axis| self.refreshed[axis] > 0)
    }

    /// Failed refreshes in a row of the axis that fails longest.
    pub(super) fn most_failures(&self) -> u8 {
        self.failures.into_iter().fold(0, u8::max)
    }
}

impl Slot for TensorSlot {
    const EMPTY: Self = Self::EMPTY;
}

/// Storage as arrays, for a `static` or the stack.
pub type TensorMemory<T, const NUMBERS: usize, const TENSORS: usize> =
    Memory<T, NUMBERS, TENSORS, TensorSlot>;

/// The arrays of one tensor, as a map sees them.
pub struct TensorState<'s, T> {
    /// Its shape.
    pub shape: TensorShape,
    /// Weight of the second moments of the axes: `1 - β^k` for an average.
    pub weight: f64,
    /// Weight of the second moment of single numbers.
    pub second_weight: f64,
    /// Times that the tensor has been preconditioned.
    pub preconditioned: u32,
    axes: &'s mut [T],
    /// The second moment of single numbers; empty where the map keeps none.
    pub second_moment: &'s mut [T],
    /// The first moment; empty where the map keeps none.
    pub first_moment: &'s mut [T],
}

/// The arrays of one axis.
pub struct AxisState<'s, T> {
    /// `n`.
    pub side: usize,
    /// The second moment `L`, packed.
    pub moment: &'s mut [T],
    /// What the map applies: `n x n`.
    pub matrix: &'s mut [T],
}

impl<'s, T: Scalar> TensorState<'s, T> {
    /// Cuts one tensor's numbers into its arrays.
    pub(super) fn new(
        shape: TensorShape,
        layout: TensorLayout,
        slot: &TensorSlot,
        numbers: &'s mut [T],
    ) -> Self {
        let (axes, rest) = numbers.split_at_mut(axes_len(shape, shape.order()));
        let (second_moment, first_moment) = rest.split_at_mut(shape.entries() * layout.second_moments);
        let [weight, second_weight, _] = slot.weights;
        let preconditioned = slot.preconditioned;
        Self { shape, weight, second_weight, preconditioned, axes, second_moment, first_moment }
    }

    /// The arrays of a preconditioned axis.
    ///
    /// # Panics
    /// May panic where [`TensorShape::is_preconditioned`] says no, as indexing does.
    pub fn axis(&mut self, axis: usize) -> AxisState<'_, T> {
        let (start, side) = (axes_len(self.shape, axis), self.shape.side(axis));
        let (moment, rest) = self.axes[start..].split_at_mut(packed_len(side));
        AxisState { side, moment, matrix: &mut rest[..side * side] }
    }

    /// The matrix of a preconditioned axis.
    ///
    /// # Errors
    /// [`ShapeError`] where the axis is not there.
    pub fn matrix(&self, axis: usize) -> Result<MatRef<'_, T>, ShapeError> {
        let (start, side) = (axes_len(self.shape, axis), self.shape.side(axis));
        let matrix = self.axes.get(start + packed_len(side)..).unwrap_or_default();
        MatRef::row_major(matrix, side, side)
    }
}

impl<T: Scalar> AxisState<'_, T> {
    /// The second moment, to be added to.
    pub(super) fn moment_mut(&mut self) -> Result<PackedMut<'_, T>, ShapeError> {
        PackedMut::new(self.moment, self.side)
    }

    /// Its trace.
    pub(super) fn trace(&self) -> Result<T, ShapeError> {
        Ok(PackedRef::new(self.moment, self.side)?.trace())
    }

    /// Writes it in both triangles of a square.
    pub(super) fn unpack(&self, full: &mut [T]) -> Result<(), ShapeError> {
        unpack(self.moment, self.side, full).map(|_| ())
    }
}

/// The second moment of a preconditioned axis in the numbers of its tensor.
pub(super) fn moment_of<T: Scalar>(
    shape: TensorShape,
    axis: usize,
    numbers: &[T],
) -> Option<PackedRef<'_, T>> {
    let moment = shape.is_preconditioned(axis).then(|| numbers.get(axes_len(shape, axis)..))??;
    PackedRef::new(moment, shape.side(axis)).ok()
}

/// Why a preconditioner of tensors cannot be made.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum TensorSetupError {
    /// Storage that does not fit.
    Storage(StorageError),
    /// A setting of the map outside its range.
    Setting(SettingError),
}

impl From<StorageError> for TensorSetupError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<SettingError> for TensorSetupError {
    fn from(error: SettingError) -> Self {
        Self::Setting(error)
    }
}

impl fmt::Display for TensorSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Setting(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for TensorSetupError {}
