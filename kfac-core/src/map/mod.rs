//! Maps: what turns a gradient `V` into a preconditioned gradient `U`.
//!
//! A map is a type, so a program links the one that it names. The maps differ, none is a hidden default of another:
//!
//! | map | U |
//! |---|---|
//! | [`Factored`] | `(G + √λ/π I)⁻¹ V (A + π√λ I)⁻¹` |
//! | [`Eigenbasis`] | `Q_G [(Q_Gᵀ V Q_A) / (d_G d_Aᵀ + λ)] Q_Aᵀ`, exact damping |
//! | [`Shifted`] | the same, without eigenvectors of the larger factor |
//! | [`Ekfac`] | the same with the second moment of `Q_Gᵀ ∇w Q_A` over the cases in place of `d_G d_Aᵀ` |
//! | [`Embedding`] | `Q_G [(Q_Gᵀ V) / (d_G aᵀ + λ)]` with `a = diag(A)`, for inputs that are tokens |
//! | [`Diagonal`] | `V / (s + λ)` with `s` the second moment of `∇w` over the cases, for scales and shifts |
//! | [`ChainSymmetric`] | `L_G [(L_Gᵀ V L_A) ∘ T/D(ψ_G ψ_Aᵀ)] L_Aᵀ`, a weight used at every step of a sequence |
//! | [`ChainLimit`] | the same for long sequences, exact in their limit: see [`chain`] |
//!
//! These work on one layer at a time. [`Tridiagonal`](crate::Tridiagonal), `u = Ξᵀ Λ Ξ v`, couples neighbours, and is no map
//! but a preconditioner of its own.
//!
//! Maps that are fed gradients alone, Shampoo and SOAP, are in [`tensor`](crate::tensor).

mod basis;
mod case_gradients;
pub mod chain;
mod diagonal;
mod eigenbasis;
mod ekfac;
mod embedding;
pub(crate) mod factored;
mod renewal;
mod rows;
mod shifted;

pub(crate) use basis::{in_eigenbases, is_zero, largest};
pub use chain::{ChainLimit, ChainMap, ChainSymmetric};
pub use diagonal::Diagonal;
pub use eigenbasis::Eigenbasis;
pub use ekfac::Ekfac;
pub use embedding::Embedding;
pub use factored::Factored;
pub use renewal::{Renewal, Skipping};
pub(crate) use rows::form_gradient;
pub use rows::{BatchRows, RowProducts, RowsMap, RowsRoute};
pub use shifted::Shifted;

use crate::damping::split::DampingError;
use crate::evidence::{Evidence, Inputs};
use crate::memory::{LayerState, Layout};
use crate::shape::{LayerShape, Side};
use crate::tensor::AxisError;
use core::fmt;
use kfac_linalg::cholesky::CholeskyError;
use kfac_linalg::eigh::{EighError, Method};
use kfac_linalg::product::ProductError;
use kfac_linalg::shifted::ShiftedError;
use kfac_linalg::{Kernel, Scalar, ScratchError, ShapeError};

/// Turns a gradient into a preconditioned gradient, from what it keeps per layer.
pub trait Map<T: Scalar>: Copy {
    /// Name in saved states and reports.
    const NAME: &'static str;
    /// Arrays kept per layer.
    const LAYOUT: Layout;
    /// What one refresh works on.
    const UNIT: RefreshUnit;
    /// Scratch of [`Map::refresh`].
    const REFRESH: Workspace;
    /// Scratch of [`Map::apply`].
    const APPLY: Workspace;
    /// What it learns of single cases, beside the factors.
    const PER_CASE: PerCase = PerCase::Nothing;

    /// Most flops that one refresh can take, for the schedule.
    fn cost(&self) -> Cost;

    /// Recomputes from the statistics what `apply` reads: for the whole layer, or for `side` alone, as
    /// [`Map::UNIT`] says. On failure the layer is left as it was.
    ///
    /// # Errors
    /// A [`MapError`] that carries the number.
    fn refresh<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        side: Side,
        lambda: T,
        scratch: &mut [T],
    ) -> Result<Refreshed, MapError>;

    /// Called when both sides have been refreshed since the last such call, and not both of them kept what they had.
    fn complete(&self, layer: &mut LayerState<'_, T>) {
        let _ = layer;
    }

    /// `V` to `U` in place; `v`: `m n` numbers, row-major. `lambda` is the current damping; a map that has it baked
    /// into its inverse uses that of the last refresh instead, as [`Map::DAMPING`] says.
    ///
    /// # Errors
    /// A [`MapError`] for shapes, scratch, and numbers that leave the range of `T`.
    fn apply<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        lambda: T,
        v: &mut [T],
        scratch: &mut [T],
    ) -> Result<(), MapError>;

    /// Which damping `apply` uses.
    const DAMPING: DampingInForce;
}

/// A map that is fed layer inputs and output gradients, from which it keeps what [`Map::LAYOUT`] says of the factors `A` and
/// `G`, and of single cases what [`Map::PER_CASE`] says.
pub trait FactorMap<T: Scalar>: Map<T> {
    /// Adds what it learns of single cases, as [`Map::PER_CASE`] says: `per_case` times that of each. The evidence has been
    /// checked, and where [`PerCase::needs_bases`] says so, both bases are there.
    ///
    /// # Errors
    /// A [`ProductError`] where the scratch is too short.
    fn learn<K: Kernel<T>, I: Inputs<T> + ?Sized>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        evidence: &Evidence<'_, T, I>,
        per_case: T,
        scratch: &mut [T],
    ) -> Result<(), ProductError> {
        let _ = (kernel, layer, evidence, per_case, scratch);
        Ok(())
    }
}

/// A map to which `A` and `G` say everything, so that finished moments will do.
pub trait MomentMap<T: Scalar>: FactorMap<T> {}

/// A map that keeps the eigenbases of both factors, and the curvature along each of their directions.
pub trait SpectralMap<T: Scalar>: Map<T> {
    /// The Fisher matrix along direction (`row`, `column`) of the eigenbases, without damping.
    fn curvature(layer: &LayerState<'_, T>, place: [usize; 2]) -> T;
}

/// What a map learns of single cases, beside the factors, and where that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerCase {
    /// Nothing.
    Nothing,
    /// The squares of each case's gradient: a sum with the weight of that of `G`, in the first matrix of
    /// [`Layout::per_weight`].
    Squares,
    /// The squares of each case's gradient, rotated into the eigenbases: a sum with the weight of that of `G`, in the first
    /// matrix of [`Layout::per_weight`].
    RotatedSquares,
    /// Products of neighbouring positions `x_t x_{t-1}ᵀ`: a sum with the weight of the moment of its side, in the first
    /// square of [`SideLayout::square`](crate::memory::SideLayout::square). With them the
    /// [lengths](crate::statistics::lengths), in [`Layout::per_layer`], if there is any.
    Lags,
}

impl PerCase {
    /// Is it a sum of squares, one a weight?
    pub const fn is_squares(self) -> bool {
        matches!(self, Self::Squares | Self::RotatedSquares)
    }

    /// Can it be learnt only once the eigenbases are there?
    pub const fn needs_bases(self) -> bool {
        matches!(self, Self::RotatedSquares)
    }
}

/// Which damping a map applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DampingInForce {
    /// That of the last refresh, which is part of the inverse.
    LastRefresh,
    /// The current one.
    Current,
}

/// What one refresh works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshUnit {
    /// Both sides of a layer together (they share `π` and `λ`).
    Layer,
    /// One side of a layer.
    Side,
}

impl RefreshUnit {
    /// The sides at which a layer has something due.
    pub const fn sides(self) -> &'static [Side] {
        match self {
            Self::Layer => &[Side::Input],
            Self::Side => &Side::BOTH,
        }
    }

    /// The sides that a refresh at `side` renews.
    pub(crate) fn renews(self, side: Side) -> &'static [Side] {
        match (self, side) {
            (Self::Layer, _) => &Side::BOTH,
            (Self::Side, Side::Input) => &[Side::Input],
            (Self::Side, Side::Output) => &[Side::Output],
        }
    }
}

/// Scratch of one operation on an `m x n` layer, as counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Times `m² + n²`.
    pub both_squares: usize,
    /// Times `max(m, n)²`.
    pub largest_squares: usize,
    /// Times `m + n`.
    pub vectors: usize,
    /// Times `m n`.
    pub per_weight: usize,
    /// The routine whose scratch comes on top.
    pub routine: Routine,
}

impl Workspace {
    /// No scratch.
    pub const NONE: Self =
        Self { both_squares: 0, largest_squares: 0, vectors: 0, per_weight: 0, routine: Routine::None };
}

/// Routines of `kfac-linalg` that need scratch of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routine {
    /// None.
    None,
    /// Products of an `m x n` matrix with square ones, `m x m` from the left and `n x n` from the right.
    Products,
    /// Products of an `m x n` matrix with `m x m` ones from the left: nothing of the size of `n²`.
    LeftProducts,
    /// The inverse of a positive definite matrix, of either side.
    Inverse,
    /// A decomposition into eigenvectors and eigenvalues, of either side.
    Eigh(Method),
    /// That of the output side alone, with two squares and a vector of its size.
    OutputBasis(Method),
    /// The same, and products of square matrices, of either side.
    EighAndProducts(Method),
    /// That of the smaller side, and the reduction of the larger one to tridiagonal form.
    Reduction(Method),
    /// [`Products`](Self::Products), and the shifted systems of the larger side for every row of the smaller.
    Shifted,
}

/// Flops of one refresh unit as multiples of `size³` per side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// What one unit works on.
    pub unit: RefreshUnit,
    /// Flops per `size³`.
    pub cubic: Cubic,
}

/// Flops per `size³` of either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cubic {
    /// The same for both.
    Both(u64),
    /// As the sides are called.
    Sides {
        /// Of the input factor.
        input: u64,
        /// Of the gradient factor.
        output: u64,
    },
    /// As they compare, see [`LayerShape::smaller_side`].
    Sizes {
        /// Of the smaller side.
        smaller: u64,
        /// Of the larger one.
        larger: u64,
    },
}

impl Cost {
    /// Flops of the unit of `shape` at `side`.
    pub const fn flops(self, shape: LayerShape, side: Side) -> u64 {
        match self.unit {
            RefreshUnit::Layer => {
                self.side_flops(shape, Side::Input).saturating_add(self.side_flops(shape, Side::Output))
            }
            RefreshUnit::Side => self.side_flops(shape, side),
        }
    }

    const fn side_flops(self, shape: LayerShape, side: Side) -> u64 {
        let is_smaller = side.index() == shape.smaller_side().index();
        let per_cube = match (self.cubic, side) {
            (Cubic::Both(flops), _) => flops,
            (Cubic::Sides { input, .. }, Side::Input) => input,
            (Cubic::Sides { output, .. }, Side::Output) => output,
            (Cubic::Sizes { smaller, .. }, _) if is_smaller => smaller,
            (Cubic::Sizes { larger, .. }, _) => larger,
        };
        cube(shape.side(side)).saturating_mul(per_cube)
    }
}

pub(crate) const fn cube(size: usize) -> u64 {
    let size = size as u64;
    size.saturating_mul(size).saturating_mul(size)
}

/// What a refresh did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// Floating-point operations, leading order.
    pub flops: u64,
    /// Sweeps of the eigenvalue method.
    pub sweeps: u32,
    /// Did a factor vanish, or all but vanish, so that damping alone is left: `U = V / λ`?
    pub zero_trace: bool,
    /// Was the old basis found good enough, and kept?
    pub is_kept: bool,
}

/// A refresh or an apply that could not be done.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum MapError {
    /// A damped factor could not be inverted.
    Inverse {
        /// Which factor.
        side: Side,
        /// The pivot and its value.
        error: CholeskyError,
    },
    /// A factor's eigenbasis could not be computed.
    Eigh {
        /// Which factor.
        side: Side,
        /// What stopped it.
        error: EighError,
    },
    /// A damped factor's systems could not be solved.
    Shifted(ShiftedError),
    /// The damping could not be split.
    Damping(DampingError),
    /// The largest eigenvalue of `A (x) G + λ I` leaves the range of the numbers: what is divided by it would vanish.
    Range {
        /// The largest eigenvalue of `A`.
        input: f64,
        /// The largest eigenvalue of `G`.
        output: f64,
    },
    /// The second moment of the rotated gradients leaves the range of the numbers.
    Scales {
        /// Its largest element, as far as it can be said.
        largest: f64,
    },
    /// A pair of directions of a chain adds up to nothing, so that it cannot be divided by.
    ChainWeight {
        /// The product of the correlations of neighbouring steps, of inputs and of gradients.
        correlation: f64,
        /// What it would be divided by.
        weight: f64,
    },
    /// The sequences of a chain have no length.
    Lengths {
        /// Their positions, weighted.
        positions: f64,
    },
    /// Finite factors gave an inverse that is not.
    NotFinite {
        /// Which factor.
        side: Side,
    },
    /// The second moment of an axis of a tensor gave no root or basis.
    Axis {
        /// Which axis.
        axis: usize,
        /// What stopped it.
        error: AxisError,
    },
    /// Scratch too short.
    Scratch(ScratchError),
    /// Shapes that do not fit: a defect of the map, reported instead of a panic.
    Internal(ShapeError),
}

impl From<ShapeError> for MapError {
    fn from(error: ShapeError) -> Self {
        Self::Internal(error)
    }
}

impl From<ScratchError> for MapError {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}

impl From<DampingError> for MapError {
    fn from(error: DampingError) -> Self {
        Self::Damping(error)
    }
}

impl From<ProductError> for MapError {
    fn from(error: ProductError) -> Self {
        match error {
            ProductError::Shape(error) => Self::Internal(error),
            ProductError::Scratch(error) => Self::Scratch(error),
            _ => Self::Internal(ShapeError::new([0; 2], [0; 2])),
        }
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inverse { side, error } => write!(f, "the {} cannot be inverted: {error}", factor(*side)),
            Self::Eigh { side, error } => write!(f, "no eigenbasis of the {}: {error}", factor(*side)),
            Self::Shifted(error) => write!(f, "the damped factor has no solution: {error}"),
            Self::Damping(error) => error.fmt(f),
            Self::NotFinite { side } => write!(f, "the inverse of the {} is not finite", factor(*side)),
            Self::Range { input, output } => write!(
                f,
                "the largest eigenvalues, {input:e} of the input factor and {output:e} of the gradient factor, have no \
                 finite product"
            ),
            Self::Scales { largest } => {
                write!(f, "the second moment of the gradients in the eigenbasis is not finite: {largest:e}")
            }
            Self::Axis { axis, error } => write!(f, "axis {axis}: {error}"),
            Self::ChainWeight { correlation, weight } => {
                write!(
                    f,
                    "steps of correlation {correlation:e} have the weight {weight:e}, which has no inverse"
                )
            }
            Self::Lengths { positions } => {
                write!(f, "the sequences have {positions:e} positions, which no evidence leaves")
            }
            Self::Scratch(error) => error.fmt(f),
            Self::Internal(error) => write!(f, "internal shapes do not fit: {error}"),
        }
    }
}

fn factor(side: Side) -> &'static str {
    match side {
        Side::Input => "input factor",
        Side::Output => "gradient factor",
    }
}

impl core::error::Error for MapError {}

/// Cuts `len` numbers off the front of the scratch.
pub(crate) fn take<'a, T>(scratch: &mut &'a mut [T], len: usize) -> Result<&'a mut [T], ScratchError> {
    let found = scratch.len();
    let (head, tail) =
        core::mem::take(scratch).split_at_mut_checked(len).ok_or(ScratchError { needed: len, found })?;
    *scratch = tail;
    Ok(head)
}
