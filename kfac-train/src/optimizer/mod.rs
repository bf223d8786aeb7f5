//! Optimizers: K-FAC and its baselines behind one trait.

mod adam;
mod average;
mod kfac;
mod preconditioner;
mod sgd;

pub use adam::{Adam, AdamSettings};
pub use average::IterateAverage;
pub use kfac::{Kfac, KfacSettings, StepRule};
pub use preconditioner::MapChoice;
pub use sgd::{Sgd, SgdSettings};

use crate::data::Batch;
use crate::model::{Network, NetworkError};
use kfac_core::LayerError;
use kfac_core::error::{LayerErrorKind, Quantity, SettingError};
use kfac_core::memory::StorageError;
use kfac_core::step::{ClipError, ModelError};
use kfac_linalg::product::dot;
use kfac_linalg::{Kernel, Scalar};
use std::fmt;

/// Makes one update of the weights from one batch.
pub trait Optimizer<T: Scalar, K: Kernel<T>> {
    /// One update.
    ///
    /// # Errors
    /// A [`StepError`]: the weights are as before the call.
    fn step(
        &mut self,
        network: &mut Network<T, K>,
        weights: &mut [T],
        batch: &Batch<T>,
    ) -> Result<StepReport, StepError>;
}

/// What one update saw and did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Loss on the batch before the update.
    pub loss: f64,
    /// Damping `λ` before this step adapts it, for K-FAC: that of the quadratic model and of what is refreshed at this
    /// step.
    pub lambda: Option<f64>,
    /// Was the step taken back because the loss after it was not finite?
    pub rejected: bool,
}

/// An update that could not be made.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum StepError {
    /// The network refused its arguments.
    Network(NetworkError),
    /// A weight block's gradient is not finite or its square overflows, or the preconditioner refused the block.
    Layer(LayerError),
    /// The quadratic model has no minimum.
    Model(ModelError),
    /// The step cannot be clipped: the preconditioned gradient does not point along the gradient, say.
    Clip(ClipError),
    /// A setting is out of its range.
    Setting(SettingError),
    /// The preconditioner cannot be built.
    Storage(StorageError),
    /// The loss on the batch is not finite before the update: training has diverged.
    LossNotFinite,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(error) => error.fmt(f),
            Self::Layer(error) => error.fmt(f),
            Self::Model(error) => error.fmt(f),
            Self::Clip(error) => error.fmt(f),
            Self::Setting(error) => error.fmt(f),
            Self::Storage(error) => error.fmt(f),
            Self::LossNotFinite => f.write_str("the loss is not finite"),
        }
    }
}

impl std::error::Error for StepError {}

impl From<NetworkError> for StepError {
    fn from(error: NetworkError) -> Self {
        Self::Network(error)
    }
}

impl From<LayerError> for StepError {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

impl From<ModelError> for StepError {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

impl From<ClipError> for StepError {
    fn from(error: ClipError) -> Self {
        Self::Clip(error)
    }
}

impl From<SettingError> for StepError {
    fn from(error: SettingError) -> Self {
        Self::Setting(error)
    }
}

impl From<StorageError> for StepError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Loss and gradient of the batch: the part of a step that every optimizer shares.
fn loss_and_gradient<T: Scalar, K: Kernel<T>>(
    network: &mut Network<T, K>,
    weights: &[T],
    batch: &Batch<T>,
    gradient: &mut Vec<T>,
) -> Result<T, StepError> {
    let loss = loss_and_output_gradients(network, weights, batch)?;
    gradient.resize(weights.len(), T::ZERO);
    gradient_of(network, gradient)?;
    Ok(loss)
}

/// The loss of the batch, after which the tape holds the gradients at the output of every layer.
fn loss_and_output_gradients<T: Scalar, K: Kernel<T>>(
    network: &mut Network<T, K>,
    weights: &[T],
    batch: &Batch<T>,
) -> Result<T, StepError> {
    network.forward(weights, batch)?;
    let loss = network.mean_loss(&batch.targets)?;
    if !loss.is_finite() {
        return Err(StepError::LossNotFinite);
    }
    network.backward(weights, &batch.targets)?;
    Ok(loss)
}

/// The gradient at the weights of the last backward pass.
fn gradient_of<T: Scalar, K: Kernel<T>>(
    network: &mut Network<T, K>,
    gradient: &mut [T],
) -> Result<(), StepError> {
    network.gradient(gradient)?;
    Ok(expect_finite(network, gradient)?)
}

/// A loss can be finite where its gradient, or the gradient's square, overflows; no optimizer may take that into its
/// state. The layer that is named is a weight block.
fn expect_finite<T: Scalar, K: Kernel<T>>(network: &Network<T, K>, gradient: &[T]) -> Result<(), LayerError> {
    let (mut squares, quantity) = (T::ZERO, Quantity::Gradient);
    for (layer, (shape, part)) in network.blocks().enumerate() {
        let block = &gradient[part];
        squares += dot(block, block).expect("one length");
        if squares.is_finite() {
            continue;
        }
        let kind = match block.iter().position(|value| !value.is_finite()) {
            Some(at) => {
                LayerErrorKind::NotFinite { quantity, row: at / shape.inputs(), column: at % shape.inputs() }
            }
            None => {
                let largest = block.iter().fold(T::ZERO, |largest, value| largest.maximum(value.abs()));
                LayerErrorKind::Overflow { quantity, largest: largest.to_f64() }
            }
        };
        return Err(LayerError { layer, kind });
    }
    Ok(())
}
