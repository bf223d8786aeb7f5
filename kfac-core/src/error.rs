//! Errors of a layer's verbs: a value that names the layer and carries the number.

use crate::map::MapError;
use core::fmt;
use kfac_linalg::product::ProductError;
use kfac_linalg::{Scalar, ScratchError, ShapeError};

/// What went wrong, and in which layer.
///
/// State and gradients are as if the call had not been made, but for two: [`LayerErrorKind::ThirdFailure`] comes after
/// the other refreshes of its step, and where `U` leaves the range of the numbers ([`Quantity::Preconditioned`],
/// [`LayerErrorKind::Apply`]), the gradients before it are already preconditioned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerError {
    /// Index of the layer in the network.
    pub layer: usize,
    /// What went wrong.
    pub kind: LayerErrorKind,
}

/// What went wrong in a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum LayerErrorKind {
    /// The network has fewer layers.
    NoSuchLayer {
        /// How many it has.
        layers: usize,
    },
    /// An argument has another shape than the layer.
    Shape {
        /// Which argument.
        quantity: Quantity,
        /// The shapes, rows then columns.
        error: ShapeError,
    },
    /// No case, or none that is not masked.
    EmptyBatch,
    /// A number is NaN or infinite.
    NotFinite {
        /// In which argument.
        quantity: Quantity,
        /// Row of the argument; for inputs and output gradients `case * positions + position`.
        row: usize,
        /// Column of the argument.
        column: usize,
    },
    /// The output gradients are those of no loss: their [factor](crate::evidence::OutputGradients::factor), from a
    /// batch of 0 or a weight that is not positive and finite, leaves nothing to learn from.
    GradientScale {
        /// That factor.
        factor: f64,
    },
    /// Every number is finite, but their squares do not add up to a finite number.
    Overflow {
        /// In which argument.
        quantity: Quantity,
        /// Its largest magnitude.
        largest: f64,
    },
    /// The scratch is shorter than [`scratch_len`](crate::memory::scratch_len).
    Scratch(ScratchError),
    /// The layer has never been observed.
    NoStatistics,
    /// The layer has statistics, but its inverse has never been computed.
    NotReady,
    /// More cases than the observation was announced to have.
    TooManyCases {
        /// What `observe` was told.
        announced: usize,
        /// Cases so far, with the refused ones.
        found: usize,
    },
    /// The layer's inverse could not be computed three times in a row. The last good one stays in force.
    ThirdFailure(MapError),
    /// The layer's inverse could not be applied.
    Apply(MapError),
    /// An internal step met shapes that do not fit: a defect of this library, reported instead of a panic.
    Internal(ShapeError),
}

/// The argument that an error speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quantity {
    /// Layer inputs `a`.
    Inputs,
    /// Output gradients `g`.
    OutputGradients,
    /// A moment matrix handed in as `A`.
    InputMoment,
    /// A moment matrix handed in as `G`.
    OutputMoment,
    /// The weight gradient `V`.
    Gradient,
    /// The preconditioned gradient `U`.
    Preconditioned,
}

/// A setting outside its range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SettingError {
    /// Its name.
    pub setting: &'static str,
    /// The value that was refused.
    pub value: f64,
}

impl SettingError {
    /// Refuses `value` unless it is `valid`.
    ///
    /// # Errors
    /// Setting and value.
    pub fn unless<T: Scalar>(valid: bool, setting: &'static str, value: T) -> Result<(), Self> {
        if valid { Ok(()) } else { Err(Self { setting, value: value.to_f64() }) }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is out of its range at {:e}", self.setting, self.value)
    }
}

impl core::error::Error for SettingError {}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inputs => "inputs",
            Self::OutputGradients => "output gradients",
            Self::InputMoment => "input moment",
            Self::OutputMoment => "output moment",
            Self::Gradient => "gradient",
            Self::Preconditioned => "preconditioned gradient",
        })
    }
}

impl LayerErrorKind {
    /// The same kind with its layer.
    pub(crate) fn at(self, layer: usize) -> LayerError {
        LayerError { layer, kind: self }
    }
}

impl From<ShapeError> for LayerErrorKind {
    fn from(error: ShapeError) -> Self {
        Self::Internal(error)
    }
}

impl From<ScratchError> for LayerErrorKind {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}

impl From<ProductError> for LayerErrorKind {
    fn from(error: ProductError) -> Self {
        match error {
            ProductError::Scratch(error) => Self::Scratch(error),
            ProductError::Shape(error) => Self::Internal(error),
            _ => Self::Internal(ShapeError::new([0; 2], [0; 2])),
        }
    }
}

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {}: {}", self.layer, self.kind)
    }
}

impl fmt::Display for LayerErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchLayer { layers } => write!(f, "the network has only {layers} layers"),
            Self::Shape { quantity, error: ShapeError { expected, found, .. } } => write!(
                f,
                "wrong shape of the {quantity}: {} x {} instead of {} x {}",
                found[0], found[1], expected[0], expected[1]
            ),
            Self::EmptyBatch => f.write_str("the batch has no case"),
            Self::NotFinite { quantity, row, column } => {
                write!(f, "a number of the {quantity} is not finite: row {row}, column {column}")
            }
            Self::GradientScale { factor } => {
                write!(f, "the output gradients would be multiplied by {factor:e}, which no loss asks for")
            }
            Self::Overflow { quantity, largest } => {
                write!(f, "the squares of the {quantity} overflow, the largest magnitude is {largest:e}")
            }
            Self::Scratch(error) => error.fmt(f),
            Self::NoStatistics => f.write_str("it has no statistics yet: observe it, then refresh"),
            Self::NotReady => {
                f.write_str("it has statistics but no inverse yet: call refresh_all, or wait for its turn")
            }
            Self::TooManyCases { announced, found } => {
                write!(f, "{found} cases were added to an observation of {announced}")
            }
            Self::ThirdFailure(error) => write!(f, "the third refresh in a row failed: {error}"),
            Self::Apply(error) => write!(f, "the gradient cannot be preconditioned: {error}"),
            Self::Internal(error) => write!(f, "internal shapes do not fit: {error}"),
        }
    }
}

impl core::error::Error for LayerError {}
