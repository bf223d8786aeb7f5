//! What a forward and a backward pass leave behind, layer by layer, in buffers that are reused from batch to batch.

use kfac_core::LayerShape;
use kfac_core::evidence::{Inputs, Patches, Rows, Sequence};
use kfac_core::shape::Window;
use kfac_linalg::{MatRef, Scalar};

/// The trace of one layer.
#[derive(Clone, Debug, Default)]
pub struct LayerTape<T> {
    /// Outputs of the last forward pass: `cases x output_len`.
    pub output: Vec<T>,
    /// Gradient of the summed loss at the outputs, from the last backward pass.
    pub output_gradient: Vec<T>,
    /// Directional derivative of the outputs, from the last forward-mode pass.
    pub output_tangent: Vec<T>,
    /// One trace per weight block.
    pub blocks: Vec<BlockTape<T>>,
    /// What the layer keeps for itself between passes.
    pub memo: Vec<T>,
}

/// The trace of one weight block: `a` and `g`, the two sides of its Kronecker factors.
#[derive(Clone, Debug, Default)]
pub struct BlockTape<T> {
    /// Inputs of the block without the bias column: rows `(case, position) x features`, or whole images.
    pub inputs: Vec<T>,
    /// Gradients of each case's summed loss at `s = W ā`: rows `(case, position) x outputs`.
    pub gradients: Vec<T>,
}

/// The inputs of a weight block as evidence for its input factor.
#[derive(Clone, Copy)]
pub enum Evidence<'t, T> {
    /// One row per case.
    Rows(Rows<'t, T>),
    /// One row per case and position.
    Sequence(Sequence<'t, T>),
    /// Images under a sliding window.
    Patches(Patches<'t, T>),
}

impl<'t, T: Scalar> Evidence<'t, T> {
    /// Rows of a block that is used at `positions` positions of each case.
    pub(crate) fn of_rows(tape: &'t BlockTape<T>, shape: LayerShape, positions: usize) -> Self {
        let rows = matrix(&tape.inputs, shape.features());
        if positions == 1 {
            return Self::Rows(Rows(rows));
        }
        Self::Sequence(Sequence::new(rows, positions).expect("a tape holds whole cases"))
    }

    /// Images under `window`.
    pub(crate) fn of_images(tape: &'t BlockTape<T>, window: Window) -> Self {
        Self::Patches(Patches::new(&tape.inputs, window).expect("a tape holds whole images"))
    }
}

impl<T: Scalar> Inputs<T> for Evidence<'_, T> {
    fn cases(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.cases(),
            Self::Sequence(sequence) => sequence.cases(),
            Self::Patches(patches) => patches.cases(),
        }
    }

    fn positions(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.positions(),
            Self::Sequence(sequence) => sequence.positions(),
            Self::Patches(patches) => patches.positions(),
        }
    }

    fn features(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.features(),
            Self::Sequence(sequence) => sequence.features(),
            Self::Patches(patches) => patches.features(),
        }
    }

    fn write_row(&self, case: usize, position: usize, out: &mut [T]) {
        match self {
            Self::Rows(rows) => rows.write_row(case, position, out),
            Self::Sequence(sequence) => sequence.write_row(case, position, out),
            Self::Patches(patches) => patches.write_row(case, position, out),
        }
    }

    fn add_row(&self, case: usize, position: usize, out: &mut [T]) {
        match self {
            Self::Rows(rows) => rows.add_row(case, position, out),
            Self::Sequence(sequence) => sequence.add_row(case, position, out),
            Self::Patches(patches) => patches.add_row(case, position, out),
        }
    }
}

/// A row-major matrix over the whole slice.
pub(crate) fn matrix<T: Scalar>(data: &[T], columns: usize) -> MatRef<'_, T> {
    MatRef::row_major(data, data.len() / columns, columns).expect("a whole number of rows")
}

/// Makes room for `len` elements; what they hold is up to the caller.
pub(crate) fn resize<T: Scalar>(buffer: &mut Vec<T>, len: usize) {
    buffer.resize(len, T::ZERO);
}
