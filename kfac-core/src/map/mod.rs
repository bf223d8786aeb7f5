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

mod basis;
mod eigenbasis;
mod ekfac;
mod factored;
mod shifted;

pub(crate) use basis::in_eigenbases;
pub use eigenbasis::Eigenbasis;
pub use ekfac::Ekfac;
pub use factored::Factored;
pub use shifted::Shifted;

use crate::damping::split::DampingError;
use crate::evidence::{Evidence, Inputs};
use crate::memory::{LayerState, Layout};
use crate::shape::{LayerShape, Side};
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

    /// Called when both sides have been renewed since the last such call.
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

/// A map that is fed layer inputs and output gradients, from which it keeps the factors `A` and `G`.
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

/// What a map learns of single cases, beside the factors: kept in the first matrix of [`Layout::per_weight`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerCase {
    /// Nothing.
    Nothing,
    /// The squares of each case's gradient, rotated into the eigenbases: a sum with the weight of that of `G`.
    RotatedSquares,
}

impl PerCase {
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

/// Routines of `kfac-linalg` that need scratch of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routine {
    /// None.
    None,
    /// Products of an `m x n` matrix with square ones, `m x m` from the left and `n x n` from the right.
    Products,
    /// The inverse of a positive definite matrix, of either side.
    Inverse,
    /// A decomposition into eigenvectors and eigenvalues, of either side.
    Eigh(Method),
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

const fn cube(size: usize) -> u64 {
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
    /// Finite factors gave an inverse that is not.
    NotFinite {
        /// Which factor.
        side: Side,
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
