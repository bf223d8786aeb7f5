//! Where a network's numbers live: one slice, laid out by one table.
//!
//! [`Layout`] counts the arrays that a map keeps for a layer and for each of its sides. The sizes, the views that the maps
//! work on, and the saved state all read this table, so they cannot disagree. All lengths are `const fn` of the
//! shapes: a `static` can hold the state of a network.
//!
//! ```
//! use kfac_core::linalg::Reproducible;
//! use kfac_core::map::{Factored, Map};
//! use kfac_core::memory::{Memory, scratch_len, state_len};
//! use kfac_core::{LayerShape, Preconditioner};
//! use std::sync::Mutex; // on a device, whatever guards its statics
//!
//! const NET: [LayerShape; 2] = [LayerShape::dense(4, 8), LayerShape::dense(8, 2)];
//! const NUMBERS: usize = state_len(&NET, <Factored as Map<f32>>::LAYOUT);
//! const SCRATCH: usize = scratch_len::<f32, Reproducible, Factored>(&NET);
//! static MEMORY: Mutex<Memory<f32, NUMBERS, { NET.len() }>> = Mutex::new(Memory::new());
//! static SCRATCH_SPACE: Mutex<[f32; SCRATCH]> = Mutex::new([0.0; SCRATCH]);
//!
//! struct Learner<'s> {
//!     kfac: Preconditioner<'s, f32, Factored, Reproducible>,
//!     scratch: &'s mut [f32],
//! }
//!
//! let (mut memory, mut scratch) = (MEMORY.lock()?, SCRATCH_SPACE.lock()?);
//! let kfac = Preconditioner::new(&NET, Factored, Reproducible, memory.borrow())?;
//! let learner = Learner { kfac, scratch: &mut *scratch };
//! assert_eq!(learner.kfac.scratch_len(), learner.scratch.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod plan;

pub use plan::{LayerPlan, Plan};

use crate::map::{Map, PerCase, Routine, RowsMap, RowsRoute, Workspace};
use crate::shape::{LayerShape, Side};
use crate::statistics::lag;
use core::fmt;
use kfac_linalg::{
    Kernel, MatMut, MatRef, PackedMut, PackedRef, Scalar, ShapeError, cholesky, eigh, packed_len, product,
    shifted,
};

/// What a map keeps per layer, as counts of each kind of array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// At the side of the input factor.
    pub input: SideLayout,
    /// At the side of the gradient factor.
    pub output: SideLayout,
    /// Matrices of the shape of the weights: `m n`.
    pub per_weight: usize,
    /// Numbers beside all of these, whatever the shape.
    pub per_layer: usize,
}

/// What a map keeps for one side of a layer, of size `n` or `m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideLayout {
    /// The statistic that is gathered there.
    pub moment: Moment,
    /// Symmetric matrices beside it, packed: `n(n+1)/2` numbers.
    pub packed: usize,
    /// Full square matrices: `n²`.
    pub square: usize,
    /// Vectors: `n`.
    pub diagonal: usize,
}

/// How much of a second moment is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// All of it, packed.
    Full,
    /// Its diagonal.
    Diagonal,
    /// Nothing.
    None,
}

impl Moment {
    /// Numbers kept of a moment of size `size`.
    pub const fn len(self, size: usize) -> usize {
        match self {
            Self::Full => packed_len(size),
            Self::Diagonal => size,
            Self::None => 0,
        }
    }
}

impl SideLayout {
    /// The whole second moment, and nothing beside it.
    pub const MOMENT: Self = Self { moment: Moment::Full, packed: 0, square: 0, diagonal: 0 };

    /// Numbers kept for a side of size `size`.
    pub const fn len(self, size: usize) -> usize {
        let square = size.saturating_mul(size).saturating_mul(self.square);
        let packed = packed_len(size).saturating_mul(self.packed);
        let moments = self.moment.len(size).saturating_add(packed);
        moments.saturating_add(square).saturating_add(self.diagonal.saturating_mul(size))
    }
}

impl Layout {
    /// The same at both sides, and nothing beside it.
    pub const fn of_both_sides(side: SideLayout) -> Self {
        Self { input: side, output: side, per_weight: 0, per_layer: 0 }
    }

    /// What is kept at `side`.
    pub const fn side(self, side: Side) -> SideLayout {
        match side {
            Side::Input => self.input,
            Side::Output => self.output,
        }
    }

    /// Numbers kept for one layer.
    pub const fn layer_len(self, shape: LayerShape) -> usize {
        let sides = self.input.len(shape.inputs()).saturating_add(self.output.len(shape.outputs()));
        let per_weight = self.per_weight.saturating_mul(shape.weights());
        sides.saturating_add(per_weight).saturating_add(self.per_layer)
    }
}

/// Numbers that [`Preconditioner`](crate::Preconditioner) keeps for a network under a map's [`Layout`].
pub const fn state_len(net: &[LayerShape], layout: Layout) -> usize {
    let mut total = 0;
    let mut layer = 0;
    while layer < net.len() {
        total = layout.layer_len(net[layer]).saturating_add(total);
        layer += 1;
    }
    total
}

/// Scratch, in elements, that every verb of [`Preconditioner`](crate::Preconditioner) can do with for this network,
/// kernel and map. Between calls the scratch holds nothing: overlay it with the activations.
pub const fn scratch_len<T: Scalar, K: Kernel<T>, M: Map<T>>(net: &[LayerShape]) -> usize {
    let mut most = 0;
    let mut layer = 0;
    while layer < net.len() {
        let shape = net[layer];
        most = max(most, observe_scratch_len::<T, K, M>(shape));
        most = max(most, workspace_len::<T>(M::REFRESH, shape));
        most = max(most, apply_scratch_len::<T, M>(shape));
        layer += 1;
    }
    most
}

/// Scratch, in elements, that [`precondition_rows`](crate::Preconditioner::precondition_rows) can do with for any layer of
/// this network and up to `batch` cases.
pub const fn rows_scratch_len<T: Scalar, K: Kernel<T>, M: RowsMap<T>>(
    net: &[LayerShape],
    batch: usize,
) -> usize {
    let mut most = 0;
    let mut layer = 0;
    while layer < net.len() {
        most = max(most, layer_rows_scratch_len::<T, K, M>(net[layer], batch));
        layer += 1;
    }
    most
}

/// For one layer: `U`, and then either way to it. Any batch may have to go by way of `V`.
pub(crate) const fn layer_rows_scratch_len<T: Scalar, K: Kernel<T>, M: RowsMap<T>>(
    shape: LayerShape,
    batch: usize,
) -> usize {
    let apply = shape.weights().saturating_add(workspace_len::<T>(M::APPLY, shape));
    let by_gradient = max(cases_len::<T, K>(shape), apply);
    // Smaller batches take less, and larger ones do not go this way.
    let by_rows = batch_rows_len::<T>(M::ROWS, shape, M::ROWS.largest_batch(shape, batch));
    shape.weights().saturating_add(max(by_gradient, by_rows))
}

/// Rows of both sides, as they come and multiplied, and what the products and their sums take.
const fn batch_rows_len<T: Scalar>(route: RowsRoute, shape: LayerShape, batch: usize) -> usize {
    let (m, n) = (shape.outputs(), shape.inputs());
    let gemm = max(product::gemm_scratch_len::<T>(batch, m, m), product::gemm_scratch_len::<T>(batch, n, n));
    let gemm = max(gemm, product::gemm_scratch_len::<T>(m, n, batch));
    let rows = m.saturating_add(n).saturating_mul(2).saturating_mul(batch);
    let others = match route {
        RowsRoute::Inverses => {
            let sums = product::gemm_scratch_len::<T>(batch, batch, shape.largest_side());
            let squares = batch.saturating_mul(batch).saturating_mul(2);
            let inverse = shape.largest_side().saturating_mul(shape.largest_side());
            max(gemm, sums).saturating_add(squares).saturating_add(inverse)
        }
        RowsRoute::Bases => max(gemm, products_len::<T>(shape)).saturating_add(shape.weights()),
        RowsRoute::Tridiagonal => {
            let (largest, smallest) = (shape.largest_side(), shape.smallest_side());
            let solve = shifted::solve_rotated_scratch_len::<T>(largest, smallest);
            max(max(gemm, products_len::<T>(shape)), solve).saturating_add(shape.weights())
        }
    };
    rows.saturating_add(others)
}

/// What adding the second moments takes, one side after the other, and then what the map learns of single cases.
pub(crate) const fn observe_scratch_len<T: Scalar, K: Kernel<T>, M: Map<T>>(shape: LayerShape) -> usize {
    let inputs = moment_scratch_len::<T, K>(M::LAYOUT.input.moment, shape.inputs());
    let outputs = moment_scratch_len::<T, K>(M::LAYOUT.output.moment, shape.outputs());
    let moments = max(inputs, outputs);
    match M::PER_CASE {
        PerCase::Nothing => moments,
        PerCase::Squares => max(moments, cases_len::<T, K>(shape)),
        PerCase::RotatedSquares => max(moments, rotated_cases_len::<T, K>(shape)),
        PerCase::Lags => max(moments, lags_len::<T, K, M>(shape)),
    }
}

/// The lag moments, one side after the other, and then the counts of lengths.
const fn lags_len<T: Scalar, K: Kernel<T>, M: Map<T>>(shape: LayerShape) -> usize {
    let panels = max(lag::panel_len::<T, K>(shape.inputs()), lag::panel_len::<T, K>(shape.outputs()));
    max(panels, M::LAYOUT.per_layer)
}

/// What the check of rows of `width` numbers and the sum of their moments take.
const fn moment_scratch_len<T: Scalar, K: Kernel<T>>(moment: Moment, width: usize) -> usize {
    match moment {
        Moment::Full => panel_len::<T, K>(width),
        Moment::Diagonal | Moment::None => width,
    }
}

/// Rows of both sides, one gradient, and the products of them.
const fn cases_len<T: Scalar, K: Kernel<T>>(shape: LayerShape) -> usize {
    let (m, n, rows) = (shape.outputs(), shape.inputs(), K::PANEL_ROWS);
    let panels = m.saturating_add(n).saturating_mul(rows);
    panels.saturating_add(shape.weights()).saturating_add(product::gemm_scratch_len::<T>(m, n, rows))
}

/// Rows of both sides, as they come and in the eigenbases, one gradient, and the products of them.
const fn rotated_cases_len<T: Scalar, K: Kernel<T>>(shape: LayerShape) -> usize {
    let (m, n, rows) = (shape.outputs(), shape.inputs(), K::PANEL_ROWS);
    let products =
        max(product::gemm_scratch_len::<T>(rows, n, n), product::gemm_scratch_len::<T>(rows, m, m));
    let products = max(products, product::gemm_scratch_len::<T>(m, n, rows));
    let panels = m.saturating_add(n).saturating_mul(2 * rows);
    panels.saturating_add(shape.weights()).saturating_add(products)
}

/// One panel of rows of `width` numbers, and what adding its second moment takes.
pub(crate) const fn panel_len<T: Scalar, K: Kernel<T>>(width: usize) -> usize {
    let rows = width.saturating_mul(K::PANEL_ROWS);
    rows.saturating_add(product::syrk_scratch_len::<T>(width, K::PANEL_ROWS))
}

/// The matrix that is preconditioned, one row to compare it with, and what the map takes.
pub(crate) const fn apply_scratch_len<T: Scalar, M: Map<T>>(shape: LayerShape) -> usize {
    let rows = shape.weights().saturating_add(shape.inputs());
    rows.saturating_add(workspace_len::<T>(M::APPLY, shape))
}

// Inlined where the map is known, so that a program links the lengths of no routine that its map does not call.
#[inline(always)]
const fn workspace_len<T: Scalar>(workspace: Workspace, shape: LayerShape) -> usize {
    let (m, n, smallest) = (shape.outputs(), shape.inputs(), shape.smallest_side());
    let has_squares = workspace.both_squares > 0 || workspace.largest_squares > 0;
    let largest = match workspace.routine {
        // The other side may be as long as a vocabulary: no square of it occurs.
        Routine::None if !has_squares => 0,
        Routine::LeftProducts | Routine::OutputBasis(_) if !has_squares => m,
        _ => shape.largest_side(),
    };
    let square = largest.saturating_mul(largest);
    if square > usize::MAX / 4 {
        return usize::MAX; // The routines' own lengths, a few squares, would not fit.
    }
    let routine = match workspace.routine {
        Routine::None => 0,
        Routine::Products => products_len::<T>(shape),
        Routine::LeftProducts => product::gemm_scratch_len::<T>(m, n, m),
        Routine::Inverse => max(cholesky::inverse_scratch_len::<T>(m), cholesky::inverse_scratch_len::<T>(n)),
        Routine::Eigh(method) => max(method.scratch_len::<T>(m), method.scratch_len::<T>(n)),
        Routine::OutputBasis(method) => (2 * square + m).saturating_add(method.scratch_len::<T>(m)),
        Routine::EighAndProducts(method) => {
            let products =
                max(product::gemm_scratch_len::<T>(m, m, m), product::gemm_scratch_len::<T>(n, n, n));
            max(products, max(method.scratch_len::<T>(m), method.scratch_len::<T>(n)))
        }
        Routine::Reduction(method) => {
            max(method.scratch_len::<T>(smallest), eigh::qr::tridiagonal_scratch_len::<T>(largest))
        }
        Routine::Shifted => max(products_len::<T>(shape), shifted::solve_scratch_len::<T>(largest, smallest)),
    };
    let both = m.saturating_mul(m).saturating_add(n.saturating_mul(n));
    let squares = both.saturating_mul(workspace.both_squares);
    let squares = squares.saturating_add(square.saturating_mul(workspace.largest_squares));
    let weights = shape.weights().saturating_mul(workspace.per_weight);
    let vectors = m.saturating_add(n).saturating_mul(workspace.vectors);
    squares.saturating_add(weights).saturating_add(vectors).saturating_add(routine)
}

/// At every shape that occurs: nothing says that a larger matrix takes more.
const fn products_len<T: Scalar>(shape: LayerShape) -> usize {
    let (m, n) = (shape.outputs(), shape.inputs());
    max(product::gemm_scratch_len::<T>(m, n, m), product::gemm_scratch_len::<T>(m, n, n))
}

pub(crate) const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Bookkeeping of one layer: how much evidence its statistics hold, and the age of what was computed from them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerSlot {
    /// Statistics updates that this layer has taken, `k` of the ramp.
    pub(crate) updates: u32,
    /// Weight of the sums: factor = sum / weight, for the input and the output side.
    pub(crate) weights: [f64; 2],
    /// Cases that the running observation has added. The first of them decays the sums.
    pub(crate) added: usize,
    /// Step (counted from 1) of the last successful refresh of each side; 0 = never.
    pub(crate) refreshed: [u64; 2],
    /// Step at which both sides had last been refreshed since the time before.
    pub(crate) completed: u64,
    /// Has one of them brought something new since then?
    pub(crate) renewed: bool,
    /// Damping at the last successful refresh.
    pub(crate) refreshed_damping: f64,
    /// Failed refreshes in a row, of the units that are due at each side.
    pub(crate) failures: [u8; 2],
    /// Step of the refresh period at which each side is due.
    pub(crate) due: [u32; 2],
}

impl LayerSlot {
    /// A layer that has seen nothing.
    pub const EMPTY: Self = Self {
        updates: 0,
        weights: [0.0; 2],
        added: 0,
        refreshed: [0; 2],
        completed: 0,
        renewed: false,
        refreshed_damping: 0.0,
        failures: [0; 2],
        due: [0; 2],
    };

    /// Has every side been refreshed at least once?
    pub(crate) fn is_ready(&self) -> bool {
        self.refreshed.iter().all(|&step| step > 0)
    }

    /// Failed refreshes in a row of the unit that fails longest.
    pub(crate) fn most_failures(&self) -> u8 {
        self.failures[0].max(self.failures[1])
    }
}

/// A slice that is borrowed, or (behind `alloc`) owned.
///
/// Firmware lends `static` arrays; a training program that keeps its preconditioner in a struct owns the memory.
pub enum Buffer<'s, T> {
    /// Lent by the caller.
    Borrowed(&'s mut [T]),
    /// On the heap.
    #[cfg(feature = "alloc")]
    Owned(alloc::vec::Vec<T>),
}

impl<T> Buffer<'_, T> {
    /// Forgets everything beyond the first `len` elements; `None` where there are fewer.
    fn cut(self, len: usize) -> Option<Self> {
        match self {
            Self::Borrowed(slice) => slice.get_mut(..len).map(Self::Borrowed),
            #[cfg(feature = "alloc")]
            Self::Owned(mut owned) => (owned.len() >= len).then(|| {
                owned.truncate(len);
                Self::Owned(owned)
            }),
        }
    }
}

impl<T> core::ops::Deref for Buffer<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Borrowed(slice) => slice,
            #[cfg(feature = "alloc")]
            Self::Owned(owned) => owned,
        }
    }
}

impl<T> core::ops::DerefMut for Buffer<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Borrowed(slice) => slice,
            #[cfg(feature = "alloc")]
            Self::Owned(owned) => owned,
        }
    }
}

/// Bookkeeping beside the numbers: [`LayerSlot`] of a layer, [`TensorSlot`](crate::tensor::TensorSlot) of a tensor.
pub trait Slot: Copy {
    /// Of one that has seen nothing.
    const EMPTY: Self;
}

impl Slot for LayerSlot {
    const EMPTY: Self = Self::EMPTY;
}

/// Storage of a preconditioner.
pub struct Storage<'s, T, S = LayerSlot> {
    /// At least [`state_len`] numbers.
    pub numbers: Buffer<'s, T>,
    /// At least one slot per layer; one in all for [`Tridiagonal`](crate::Tridiagonal).
    pub slots: Buffer<'s, S>,
}

impl<T: Scalar, S: Slot> Storage<'_, T, S> {
    /// Cut to so many numbers and slots, and cleared.
    pub(crate) fn cleared_for(self, numbers: usize, slots: usize) -> Result<Self, StorageError> {
        let (needed, found) = (numbers, self.numbers.len());
        let mut numbers = self.numbers.cut(needed).ok_or(StorageError::Numbers { needed, found })?;
        let (needed, found) = (slots, self.slots.len());
        let mut slots = self.slots.cut(needed).ok_or(StorageError::Slots { needed, found })?;
        numbers.fill(T::ZERO);
        slots.fill(S::EMPTY);
        Ok(Self { numbers, slots })
    }
}

#[cfg(feature = "alloc")]
impl<T: Scalar> Storage<'static, T> {
    /// Storage on the heap for `net` under `layout`.
    ///
    /// # Errors
    /// [`StorageError::Numbers`] where no memory can hold the network.
    pub fn on_heap(net: &[LayerShape], layout: Layout) -> Result<Self, StorageError> {
        Self::owned(state_len(net, layout), net.len())
    }
}

#[cfg(feature = "alloc")]
impl<T: Scalar, S: Slot> Storage<'static, T, S> {
    /// So many numbers and slots on the heap.
    pub(crate) fn owned(needed: usize, slots: usize) -> Result<Self, StorageError> {
        let mut numbers = alloc::vec::Vec::new();
        numbers.try_reserve_exact(needed).map_err(|_| StorageError::Numbers { needed, found: 0 })?;
        numbers.resize(needed, T::ZERO);
        Ok(Self { numbers: Buffer::Owned(numbers), slots: Buffer::Owned(alloc::vec![S::EMPTY; slots]) })
    }
}

/// The shapes of a network: borrowed, or (behind `alloc`) owned.
pub(crate) enum Net<'s, S = LayerShape> {
    Borrowed(&'s [S]),
    #[cfg(feature = "alloc")]
    Owned(alloc::vec::Vec<S>),
}

impl<S> core::ops::Deref for Net<'_, S> {
    type Target = [S];

    fn deref(&self) -> &[S] {
        match self {
            Self::Borrowed(slice) => slice,
            #[cfg(feature = "alloc")]
            Self::Owned(owned) => owned,
        }
    }
}

/// Storage as arrays, for a `static` or the stack.
pub struct Memory<T, const NUMBERS: usize, const LAYERS: usize, S = LayerSlot> {
    numbers: [T; NUMBERS],
    slots: [S; LAYERS],
}

impl<T: Scalar, const NUMBERS: usize, const LAYERS: usize, S: Slot> Memory<T, NUMBERS, LAYERS, S> {
    /// Zeros, which live in `.bss`.
    #[allow(clippy::new_without_default)] // `new` is const, `default` could not be
    pub const fn new() -> Self {
        Self { numbers: [T::ZERO; NUMBERS], slots: [S::EMPTY; LAYERS] }
    }

    /// Lends the arrays to a preconditioner.
    pub fn borrow(&mut self) -> Storage<'_, T, S> {
        Storage { numbers: Buffer::Borrowed(&mut self.numbers), slots: Buffer::Borrowed(&mut self.slots) }
    }
}

/// Storage that does not fit the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageError {
    /// Fewer numbers than [`state_len`] asks for.
    Numbers {
        /// What the network takes.
        needed: usize,
        /// What was lent.
        found: usize,
    },
    /// Fewer slots than the network takes: one per layer, or one in all for [`Tridiagonal`](crate::Tridiagonal).
    Slots {
        /// What the network takes.
        needed: usize,
        /// What was lent.
        found: usize,
    },
    /// A layer has no inputs or no outputs.
    EmptyLayer {
        /// Its index.
        layer: usize,
    },
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers { needed, found } => {
                write!(f, "the network needs storage for {needed} numbers, {found} were lent")
            }
            Self::Slots { needed, found } => {
                write!(f, "the network needs {needed} slots, {found} were lent")
            }
            Self::EmptyLayer { layer } => write!(f, "layer {layer} has no inputs or no outputs"),
        }
    }
}

impl core::error::Error for StorageError {}

/// The arrays of one layer, as a map sees them.
pub struct LayerState<'s, T> {
    /// Shape of the weight block.
    pub shape: LayerShape,
    /// Arrays of the input factor `A`.
    pub input: SideState<'s, T>,
    /// Arrays of the gradient factor `G`.
    pub output: SideState<'s, T>,
    /// `Layout::per_weight` matrices of `m n` numbers.
    pub per_weight: &'s mut [T],
    /// `Layout::per_layer` numbers.
    pub per_layer: &'s mut [T],
}

impl<'s, T: Scalar> LayerState<'s, T> {
    /// Cuts one layer's numbers, laid out by `layout`, into its arrays.
    pub(crate) fn new(shape: LayerShape, layout: Layout, slot: &LayerSlot, numbers: &'s mut [T]) -> Self {
        let (input, rest) = numbers.split_at_mut(layout.input.len(shape.inputs()));
        let (output, rest) = rest.split_at_mut(layout.output.len(shape.outputs()));
        let (per_weight, per_layer) = rest.split_at_mut(layout.per_weight * shape.weights());
        let [input_weight, output_weight] = slot.weights;
        Self {
            shape,
            input: SideState::new(shape.inputs(), layout.input, input_weight, input),
            output: SideState::new(shape.outputs(), layout.output, output_weight, output),
            per_weight,
            per_layer,
        }
    }

    /// Multiplies everything that evidence is added to by `keep`.
    pub(crate) fn decay(&mut self, per_case: PerCase, keep: T) {
        let sums = [&mut *self.input.sum, &mut *self.output.sum];
        sums.into_iter().flatten().for_each(|sum| *sum *= keep);
        match per_case {
            PerCase::Nothing => (),
            PerCase::Squares | PerCase::RotatedSquares => {
                self.per_weight.iter_mut().for_each(|sum| *sum *= keep)
            }
            PerCase::Lags => {
                let sums = [self.input.lag_mut(), self.output.lag_mut(), &mut *self.per_layer];
                sums.into_iter().flatten().for_each(|sum| *sum *= keep);
            }
        }
    }

    /// The arrays of `side`.
    pub fn side(&mut self, side: Side) -> &mut SideState<'s, T> {
        match side {
            Side::Input => &mut self.input,
            Side::Output => &mut self.output,
        }
    }
}

/// The arrays of one side of a layer.
pub struct SideState<'s, T> {
    /// `n` on the input side, `m` on the output side.
    pub size: usize,
    /// Weight of the statistics' sum.
    pub weight: f64,
    /// How much of the second moment `sum` holds.
    pub moment: Moment,
    /// The weighted sum of the statistics.
    pub sum: &'s mut [T],
    /// `SideLayout::packed` matrices.
    pub packed: &'s mut [T],
    /// `SideLayout::square` matrices.
    pub square: &'s mut [T],
    /// `SideLayout::diagonal` vectors.
    pub diagonal: &'s mut [T],
}

impl<'s, T: Scalar> SideState<'s, T> {
    fn new(size: usize, layout: SideLayout, weight: f64, numbers: &'s mut [T]) -> Self {
        let SideLayout { moment, packed, square, .. } = layout;
        let (sum, rest) = numbers.split_at_mut(moment.len(size));
        let (packed, rest) = rest.split_at_mut(packed * packed_len(size));
        let (square, diagonal) = rest.split_at_mut(square * size * size);
        Self { size, weight, moment, sum, packed, square, diagonal }
    }

    /// The weighted sum of `x_t x_{t-1}ᵀ`, of a map that keeps it: the first square.
    pub(crate) fn lag(&self) -> &[T] {
        &self.square[..self.square.len().min(self.size * self.size)]
    }

    /// The same, to be added to.
    pub(crate) fn lag_mut(&mut self) -> &mut [T] {
        let len = self.square.len().min(self.size * self.size);
        &mut self.square[..len]
    }

    /// The factor's trace.
    ///
    /// # Errors
    /// [`ShapeError`] where the whole moment is not kept.
    pub fn trace(&self) -> Result<T, ShapeError> {
        Ok(PackedRef::new(self.sum, self.size)?.trace() * self.normaliser())
    }

    /// The largest trace that the sum can have had: rounding may leave small negative numbers on its diagonal.
    pub(crate) fn magnitude(&self) -> T {
        let add = |total: T, value: T| total + value.abs();
        match (self.moment, PackedRef::new(self.sum, self.size)) {
            (Moment::Full, Ok(sum)) => (0..self.size).fold(T::ZERO, |total, i| add(total, sum.at(i, i))),
            _ => self.sum.iter().fold(T::ZERO, |total, &value| add(total, value)),
        }
    }

    /// `1 / weight`: the factor is the sum times this.
    pub fn normaliser(&self) -> T {
        normaliser(self.weight)
    }

    /// The statistics' sum, to be added to.
    pub fn sum_mut(&mut self) -> Result<PackedMut<'_, T>, ShapeError> {
        PackedMut::new(self.sum, self.size)
    }

    /// Writes the factor, `sum / weight`, to a full square in both triangles.
    pub fn write_factor(&self, out: &mut [T]) -> Result<(), ShapeError> {
        write_factor(self.sum, self.weight, self.size, out).map(|_| ())
    }
}

/// `1 / weight`: a factor is its sum times this.
pub(crate) fn normaliser<T: Scalar>(weight: f64) -> T {
    T::from_f64(1.0 / weight)
}

/// `sum / weight` as a full square in both triangles.
pub(crate) fn write_factor<'a, T: Scalar>(
    sum: &[T],
    weight: f64,
    size: usize,
    out: &'a mut [T],
) -> Result<MatRef<'a, T>, ShapeError> {
    let normaliser = normaliser(weight);
    unpack(sum, size, out)?;
    out[..size * size].iter_mut().for_each(|value| *value *= normaliser);
    MatRef::row_major(out, size, size)
}

/// A packed matrix as a full square in both triangles.
pub(crate) fn unpack<'a, T: Scalar>(
    packed: &[T],
    size: usize,
    square: &'a mut [T],
) -> Result<MatRef<'a, T>, ShapeError> {
    PackedRef::new(packed, size)?.unpack(MatMut::row_major(square, size, size)?)?;
    MatRef::row_major(square, size, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{ChainLimit, ChainSymmetric, Eigenbasis, Factored, Shifted};
    use crate::statistics::lengths::BINS;
    use kfac_linalg::eigh::{Jacobi, Qr};
    use kfac_linalg::{Fast, Reproducible};

    const NET: [LayerShape; 5] = [
        LayerShape::dense(3, 40),
        LayerShape::dense(40, 3),
        LayerShape::dense(17, 16).without_bias(),
        LayerShape::dense(1, 1).without_bias(),
        LayerShape::dense(300, 2),
    ];

    /// What each routine is called with, beside what is cut off the scratch before it.
    #[test]
    fn the_scratch_serves_every_routine_at_every_shape_it_is_called_with() {
        fn check<T: Scalar, K: Kernel<T>>() {
            let gemm = product::gemm_scratch_len::<T>;
            let inverse = cholesky::inverse_scratch_len::<T>;
            let jacobi = eigh::jacobi::scratch_len::<T>;
            let qr = eigh::qr::scratch_len::<T>;
            for shape in NET {
                let (m, n, largest) = (shape.outputs(), shape.inputs(), shape.largest_side());
                let apply = m * n + n; // `V` and a row of it.
                for needed in [
                    m * m + n * n + inverse(n),
                    m * m + n * n + inverse(m),
                    apply + largest * largest + m * n + gemm(m, n, m),
                    apply + largest * largest + m * n + gemm(m, n, n),
                ] {
                    assert!(scratch_len::<T, K, Factored>(&[shape]) >= needed, "{shape:?}: {needed}");
                }
                let products =
                    [apply + m * n + gemm(m, n, m), apply + m * n + gemm(m, n, n)].into_iter().max();
                for needed in [products.unwrap(), 2 * n * n + n + jacobi(n), 2 * m * m + m + jacobi(m)] {
                    let found = scratch_len::<T, K, Eigenbasis<Jacobi>>(&[shape]);
                    assert!(found >= needed, "{shape:?}: {needed}");
                }
                for needed in [products.unwrap(), 2 * n * n + n + qr(n), 2 * m * m + m + qr(m)] {
                    assert!(scratch_len::<T, K, Eigenbasis<Qr>>(&[shape]) >= needed, "{shape:?}: {needed}");
                }
                let smallest = shape.smallest_side();
                for needed in [
                    products.unwrap(),
                    apply + m * n + shifted::solve_scratch_len::<T>(largest, smallest),
                    2 * smallest * smallest + smallest + qr(smallest),
                    2 * largest * largest + 2 * largest + eigh::qr::tridiagonal_scratch_len::<T>(largest),
                ] {
                    assert!(scratch_len::<T, K, Shifted<Qr>>(&[shape]) >= needed, "{shape:?}: {needed}");
                }
                let both = m * m + n * n;
                let chain = |square: usize| {
                    let products = product::gemm_scratch_len::<T>(square, square, square);
                    2 * square * square + m + n + square + qr(square).max(products)
                };
                for needed in [products.unwrap(), both + m * n + chain(n), both + m * n + chain(m)] {
                    let found = scratch_len::<T, K, ChainSymmetric<Qr>>(&[shape]);
                    assert!(found >= needed, "{shape:?}: {needed}");
                }
                for needed in [products.unwrap(), 2 * both + chain(n), 2 * both + chain(m)] {
                    assert!(scratch_len::<T, K, ChainLimit<Qr>>(&[shape]) >= needed, "{shape:?}: {needed}");
                }
                let observe = observe_scratch_len::<T, K, ChainSymmetric>(shape);
                for pairs in 1..=K::PANEL_ROWS {
                    let lag = |width| {
                        (K::PANEL_ROWS + 1) * width + product::gemm_scratch_len::<T>(width, width, pairs)
                    };
                    assert!(observe >= lag(m).max(lag(n)).max(BINS), "{shape:?}: {pairs} pairs");
                }
                for width in [m, n] {
                    assert!(
                        observe_scratch_len::<T, K, Factored>(shape) >= panel_len::<T, K>(width),
                        "{shape:?}"
                    );
                    // The last panel of a batch has fewer rows.
                    for rows in 1..=K::PANEL_ROWS {
                        let syrk = |rows| product::syrk_scratch_len::<T>(width, rows);
                        assert!(syrk(rows) <= syrk(K::PANEL_ROWS), "{rows} rows of {width}");
                    }
                }
            }
        }
        check::<f32, Reproducible>();
        check::<f64, Reproducible>();
        check::<f32, Fast>();
        check::<f64, Fast>();
    }
}
