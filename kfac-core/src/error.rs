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
    /// Index of the layer in the network; for [`tensor`](crate::tensor)s, of the tensor.
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
    /// Where all layers belong together, this one is not among them.
    MissingLayer,
    /// Where each layer belongs once, this one is there again.
    RepeatedLayer,
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
    /// The inputs name a [token](crate::evidence::Inputs::token) that the layer does not have.
    UnknownToken {
        /// Row of the inputs, `case * positions + position`.
        row: usize,
        /// Its token.
        token: usize,
        /// Tokens that the layer has.
        features: usize,
    },
    /// The share of cases of a length is negative, or not finite, or too large to be multiplied by lengths.
    LengthShare {
        /// The length.
        length: usize,
        /// The share.
        share: f64,
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
    /// The map learns second moments in its basis, and has not observed the gradient in one yet.
    NoMomentsInBasis,
    /// More cases than the observation was announced to have.
    TooManyCases {
        /// What `observe` was told.
        announced: usize,
        /// Cases so far, with the refused ones.
        found: usize,
    },
    /// Rows of a layer with several positions a case: their products do not add up to those of the gradient.
    SeveralPositions {
        /// Positions of a case.
        positions: usize,
    },
    /// The gradient must contain the l2 weight decay, and its rows do not: only
    /// [`precondition`](crate::Preconditioner::precondition) can be handed it.
    RowsWithWeightDecay {
        /// `η`.
        l2: f64,
    },
    /// The layer's inverse could not be computed three times in a row. The last good one stays in force.
    ThirdFailure(MapError),
    /// The layer's inverse could not be applied.
    Apply(MapError),
    /// The next layer explains more of this one's Fisher block than there is, for the third time in a row: no inputs and
    /// gradients have these moments, or damping is too small for the precision. The last good inverse stays in force.
    Coupling {
        /// The largest share that it explains, `s_A s_G` of [`tridiagonal`](crate::tridiagonal): above 1.
        share: f64,
    },
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
    /// A moment matrix handed in as that of the inputs of this layer and the next.
    NextInputMoment,
    /// A moment matrix handed in as that of the output gradients of this layer and the next.
    NextOutputMoment,
    /// A matrix handed in as the lag moment of the inputs.
    InputLagMoment,
    /// A matrix handed in as the lag moment of the output gradients.
    OutputLagMoment,
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
            Self::NextInputMoment => "input moment with the next layer",
            Self::NextOutputMoment => "output moment with the next layer",
            Self::InputLagMoment => "input lag moment",
            Self::OutputLagMoment => "output lag moment",
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

impl From<MapError> for LayerErrorKind {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Scratch(error) => Self::Scratch(error),
            MapError::Internal(error) => Self::Internal(error),
            other => Self::Apply(other),
        }
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
            Self::MissingLayer => f.write_str("it is missing, and all layers belong together"),
            Self::RepeatedLayer => f.write_str("it is there twice"),
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
            Self::UnknownToken { row, token, features } => {
                write!(f, "the token {token} in row {row} is beyond the {features} of the layer")
            }
            Self::LengthShare { length, share } => {
                write!(f, "sequences of length {length} cannot have a share of {share:e}")
            }
            Self::Overflow { quantity, largest } => {
                write!(f, "the squares of the {quantity} overflow, the largest magnitude is {largest:e}")
            }
            Self::Scratch(error) => error.fmt(f),
            Self::NoStatistics => f.write_str("it has no statistics yet: observe it, then refresh"),
            Self::NotReady => {
                f.write_str("it has statistics but no inverse yet: call refresh_all, wait for its turn, or, where its refreshes fail, raise the damping")
            }
            Self::NoMomentsInBasis => {
                f.write_str("no gradient has been observed in its basis yet: observe it once more")
            }
            Self::TooManyCases { announced, found } => {
                write!(f, "{found} cases were added to an observation of {announced}")
            }
            Self::SeveralPositions { positions } => {
                write!(f, "rows of one position a case are needed, these have {positions}")
            }
            Self::RowsWithWeightDecay { l2 } => {
                write!(f, "the rows do not contain the l2 weight decay of {l2:e}: form the gradient")
            }
            Self::ThirdFailure(error) => write!(f, "the third refresh in a row failed: {error}"),
            Self::Apply(error) => write!(f, "the gradient cannot be preconditioned: {error}"),
            Self::Coupling { share } => {
                write!(
                    f,
                    "the third refresh in a row failed: {share:e} of its block is explained by the next layer"
                )
            }
            Self::Internal(error) => write!(f, "internal shapes do not fit: {error}"),
        }
    }
}

impl core::error::Error for LayerError {}
