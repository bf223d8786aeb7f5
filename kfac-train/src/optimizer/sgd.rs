use super::{Optimizer, StepError, StepReport, loss_and_gradient};
use crate::data::Batch;
use crate::model::Network;
use kfac_core::error::SettingError;
use kfac_linalg::product::dot;
use kfac_linalg::{Kernel, Scalar};

/// Stochastic gradient descent with Nesterov momentum and clipping of the gradient's norm.
///
/// `b <- μ b + g`, `θ <- θ - rate (g + μ b)`, where `g` is the gradient scaled down to norm `clip` if it is longer.
///
/// # Source
/// Sutskever, Martens, Dahl and Hinton 2013, in the form that stores the look-ahead weights; Pascanu, Mikolov and
/// Bengio 2013 for the clip.
#[derive(Clone, Debug)]
pub struct Sgd<T> {
    settings: SgdSettings,
    momentum: Vec<T>,
    gradient: Vec<T>,
}

/// Settings of [`Sgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdSettings {
    /// Learning rate: positive and finite.
    pub rate: f64,
    /// `μ` in `[0, 1)`; 0 for plain descent.
    pub momentum: f64,
    /// Largest norm of a gradient, positive; infinite for none.
    pub clip: f64,
}

impl<T: Scalar> Sgd<T> {
    /// At rest.
    ///
    /// # Errors
    /// [`SettingError`] where a setting is out of its range.
    pub fn new(settings: SgdSettings) -> Result<Self, SettingError> {
        let SgdSettings { rate, momentum, clip } = settings;
        SettingError::unless(rate > 0.0 && rate.is_finite(), "learning rate", rate)?;
        SettingError::unless((0.0..1.0).contains(&momentum), "momentum", momentum)?;
        SettingError::unless(clip > 0.0, "clip", clip)?;
        Ok(Self { settings, momentum: Vec::new(), gradient: Vec::new() })
    }
}

impl<T: Scalar, K: Kernel<T>> Optimizer<T, K> for Sgd<T> {
    fn step(
        &mut self,
        network: &mut Network<T, K>,
        weights: &mut [T],
        batch: &Batch<T>,
    ) -> Result<StepReport, StepError> {
        let loss = loss_and_gradient(network, weights, batch, &mut self.gradient)?;
        self.momentum.resize(weights.len(), T::ZERO);
        let norm = dot(&self.gradient, &self.gradient).expect("one length").to_f64().sqrt();
        let shrink = T::from_f64(if norm > self.settings.clip { self.settings.clip / norm } else { 1.0 });
        let (rate, momentum) = (T::from_f64(self.settings.rate), T::from_f64(self.settings.momentum));
        let pairs = self.momentum.iter_mut().zip(&self.gradient);
        for (weight, (buffer, &gradient)) in weights.iter_mut().zip(pairs) {
            let gradient = shrink * gradient;
            *buffer = momentum * *buffer + gradient;
            *weight -= rate * (gradient + momentum * *buffer);
        }
        Ok(StepReport { loss: loss.to_f64(), lambda: None, rejected: false })
    }
}
