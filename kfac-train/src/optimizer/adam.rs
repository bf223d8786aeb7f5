use super::{Optimizer, StepError, StepReport, loss_and_gradient};
use crate::data::Batch;
use crate::model::Network;
use kfac_core::error::SettingError;
use kfac_linalg::{Kernel, Scalar};

/// Adam with decoupled weight decay.
///
/// # Source
/// Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter 2019 for the decay.
#[derive(Clone, Debug)]
pub struct Adam<T> {
    settings: AdamSettings,
    first: Vec<T>,
    second: Vec<T>,
    /// `β^t` of both moments.
    powers: [f64; 2],
    gradient: Vec<T>,
}

/// Settings of [`Adam`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSettings {
    /// Learning rate: positive and finite.
    pub rate: f64,
    /// Decays of the two moments, in `[0, 1)`.
    pub betas: [f64; 2],
    /// Added to the root of the second moment: positive and finite.
    pub epsilon: f64,
    /// Decoupled weight decay, multiplied by the learning rate: finite and not negative.
    pub weight_decay: f64,
}

impl AdamSettings {
    /// The usual constants, no weight decay.
    pub fn at_rate(rate: f64) -> Self {
        Self { rate, betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.0 }
    }
}

impl<T: Scalar> Adam<T> {
    /// Before the first step.
    ///
    /// # Errors
    /// [`SettingError`] where a setting is out of its range.
    pub fn new(settings: AdamSettings) -> Result<Self, SettingError> {
        let AdamSettings { rate, betas, epsilon, weight_decay } = settings;
        SettingError::unless(rate > 0.0 && rate.is_finite(), "learning rate", rate)?;
        for beta in betas {
            SettingError::unless((0.0..1.0).contains(&beta), "beta", beta)?;
        }
        SettingError::unless(epsilon > 0.0 && epsilon.is_finite(), "epsilon", epsilon)?;
        SettingError::unless(weight_decay >= 0.0 && weight_decay.is_finite(), "weight decay", weight_decay)?;
        Ok(Self { settings, first: Vec::new(), second: Vec::new(), powers: [1.0; 2], gradient: Vec::new() })
    }
}

impl<T: Scalar, K: Kernel<T>> Optimizer<T, K> for Adam<T> {
    fn step(
        &mut self,
        network: &mut Network<T, K>,
        weights: &mut [T],
        batch: &Batch<T>,
    ) -> Result<StepReport, StepError> {
        let loss = loss_and_gradient(network, weights, batch, &mut self.gradient)?;
        self.first.resize(weights.len(), T::ZERO);
        self.second.resize(weights.len(), T::ZERO);
        let AdamSettings { rate, betas: [beta1, beta2], epsilon, weight_decay } = self.settings;
        // Products, not `powi`, whose last bits differ between targets.
        self.powers = [self.powers[0] * beta1, self.powers[1] * beta2];
        let corrections = self.powers.map(|power| 1.0 - power);
        let rate_now = T::from_f64(rate / corrections[0]);
        let root_correction = T::from_f64(corrections[1].sqrt());
        let keep = T::from_f64(1.0 - rate * weight_decay);
        let [beta1, beta2, epsilon] = [beta1, beta2, epsilon].map(T::from_f64);
        let moments = self.first.iter_mut().zip(&mut self.second).zip(&self.gradient);
        for (weight, ((first, second), &gradient)) in weights.iter_mut().zip(moments) {
            *first = beta1 * *first + (T::ONE - beta1) * gradient;
            *second = beta2 * *second + (T::ONE - beta2) * gradient * gradient;
            *weight = keep * *weight - rate_now * *first / (second.sqrt() / root_correction + epsilon);
        }
        Ok(StepReport { loss: loss.to_f64(), lambda: None, rejected: false })
    }
}
