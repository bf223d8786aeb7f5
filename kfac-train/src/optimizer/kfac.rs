use super::preconditioner::{AnyMap, BuildError, MapChoice, Statistics};
use super::{Optimizer, StepError, StepReport, gradient_of, loss_and_output_gradients};
use crate::data::Batch;
use crate::model::{Network, NetworkError};
use crate::random::{Stream, generator};
use kfac_core::damping::adapt::Verdict;
use kfac_core::error::SettingError;
use kfac_core::recipe::{AdaptiveStep, ClippedStep};
use kfac_core::schedule::Schedule;
use kfac_core::step::{Slopes, heavy_ball};
use kfac_linalg::product::dot;
use kfac_linalg::{Kernel, Scalar};
use rand_chacha::ChaCha8Rng;

/// K-FAC on a [`Network`]: statistics from targets drawn from the model, then one of the two recipes.
pub struct Kfac<T, K> {
    preconditioner: Box<dyn AnyMap<T, K>>,
    rule: StepRule<T>,
    l2: T,
    generator: ChaCha8Rng,
    gradient: Vec<T>,
    /// `-U`, the proposed direction.
    direction: Vec<T>,
    /// The last step.
    previous: Vec<T>,
    /// The weights before the last step.
    copy: Vec<T>,
    /// Has `copy` a step to be judged on the next batch?
    has_step: bool,
}

/// Settings of [`Kfac`].
#[derive(Clone, Copy, Debug)]
pub struct KfacSettings<T> {
    /// Map from gradient to preconditioned gradient.
    pub map: MapChoice,
    /// Periods of statistics and inverses.
    pub schedule: Schedule,
    /// Decay of the statistics.
    pub decay: T,
    /// l2 weight decay `η`, part of the loss.
    pub l2: T,
    /// How the step is made.
    pub rule: StepRule<T>,
    /// Seed of the sampled targets.
    pub seed: u64,
}

/// How a preconditioned gradient becomes a step.
#[derive(Clone, Copy, Debug)]
pub enum StepRule<T> {
    /// Fixed rate with KL clip, at a fixed damping.
    Clipped {
        /// Rate and clip.
        step: ClippedStep<T>,
        /// Share of the last step that is added to the next, in `[0, 1)`.
        momentum: T,
        /// `λ`.
        damping: T,
    },
    /// Exact quadratic model, adaptive damping.
    Adaptive(AdaptiveStep<T>),
}

impl<T: Scalar, K: Kernel<T> + 'static> Kfac<T, K> {
    /// K-FAC for `network`, at rest.
    ///
    /// # Errors
    /// [`StepError::Setting`] or [`StepError::Storage`].
    pub fn new(network: &Network<T, K>, settings: KfacSettings<T>) -> Result<Self, StepError> {
        let KfacSettings { map, schedule, decay, l2, mut rule, seed } = settings;
        let statistics = Statistics { schedule, decay, l2 };
        let mut preconditioner =
            map.build(network.shapes(), network.kernel(), statistics).map_err(|error| match error {
                BuildError::Storage(error) => StepError::Storage(error),
                BuildError::Setting(error) => StepError::Setting(error),
            })?;
        let damping = match &mut rule {
            StepRule::Clipped { damping, momentum, .. } => {
                SettingError::unless(*momentum >= T::ZERO && *momentum < T::ONE, "momentum", *momentum)?;
                *damping
            }
            StepRule::Adaptive(step) => {
                *step = step.with_l2(l2)?;
                step.lambda()
            }
        };
        preconditioner.set_damping(damping)?;
        let count = network.weight_count();
        let zeros = || vec![T::ZERO; count];
        Ok(Self {
            preconditioner,
            rule,
            l2,
            generator: generator(seed, Stream::SampledTargets),
            gradient: zeros(),
            direction: zeros(),
            previous: zeros(),
            copy: zeros(),
            has_step: false,
        })
    }

    /// The loss of this batch at the weights before the last step, where an adaptive bound wants to see what that step
    /// did on it.
    fn loss_before_last_step(
        &self,
        network: &mut Network<T, K>,
        batch: &Batch<T>,
    ) -> Result<Option<T>, StepError> {
        let StepRule::Adaptive(step) = &self.rule else { return Ok(None) };
        if !self.has_step || !step.bound.is_some_and(|bound| bound.is_adaptive()) {
            return Ok(None);
        }
        network.forward(&self.copy, batch)?;
        Ok(Some(network.mean_loss(&batch.targets)? + penalty(self.l2, &self.copy)))
    }

    /// Factors and inverses for this batch; the forward pass of the batch has been run.
    fn observe_and_refresh(
        &mut self,
        network: &mut Network<T, K>,
        weights: &[T],
        cases: usize,
    ) -> Result<(), StepError> {
        if self.preconditioner.wants_statistics() {
            // A batch that is refused leaves no trace in the targets of those that follow.
            let mut generator = self.generator.clone();
            network.backward_sampled(weights, &mut generator)?;
            self.preconditioner.observe(network, cases)?;
            self.generator = generator;
        }
        // A failed refresh keeps the last good inverse; only the third in a row of a layer comes back as an error.
        if self.preconditioner.is_ready() {
            self.preconditioner.refresh()?;
        } else {
            self.preconditioner.refresh_all()?;
        }
        Ok(())
    }
}

impl<T: Scalar, K: Kernel<T> + 'static> Optimizer<T, K> for Kfac<T, K> {
    fn step(
        &mut self,
        network: &mut Network<T, K>,
        weights: &mut [T],
        batch: &Batch<T>,
    ) -> Result<StepReport, StepError> {
        if weights.len() != self.copy.len() {
            let (expected, found) = (self.copy.len(), weights.len());
            return Err(NetworkError::Weights { expected, found }.into());
        }
        let before_last_step = self.loss_before_last_step(network, batch)?;
        let loss = loss_and_output_gradients(network, weights, batch)?;
        let needs_gradient = matches!(self.rule, StepRule::Adaptive(_));
        let preconditioned = if !needs_gradient && self.preconditioner.keep_rows(network)? {
            self.observe_and_refresh(network, weights, batch.cases)?;
            self.preconditioner.precondition_rows(network, &mut self.direction)?
        } else {
            gradient_of(network, &mut self.gradient)?;
            self.observe_and_refresh(network, weights, batch.cases)?;
            if self.l2 > T::ZERO {
                for (gradient, &weight) in self.gradient.iter_mut().zip(&*weights) {
                    *gradient += self.l2 * weight;
                }
            }
            self.direction.copy_from_slice(&self.gradient);
            self.preconditioner.precondition(&mut self.direction)?
        };

        let mut report = StepReport { loss: loss.to_f64(), lambda: None, rejected: false };
        match &mut self.rule {
            StepRule::Clipped { step, momentum, damping } => {
                let rate = step.rate(&preconditioned)?;
                heavy_ball(&mut self.previous, &self.direction, rate, *momentum).expect("one length");
                for (weight, &delta) in weights.iter_mut().zip(&self.previous) {
                    *weight += delta;
                }
                report.lambda = Some(damping.to_f64());
            }
            StepRule::Adaptive(step) => {
                report.lambda = Some(step.lambda().to_f64());
                self.direction.iter_mut().for_each(|u| *u = -*u);
                let mut slopes = Slopes::default();
                slopes.add(&self.gradient, &self.direction, &self.previous).expect("one length");
                let fisher = network.fisher_products(weights, &self.direction, &self.previous)?;
                let before = loss + penalty(self.l2, weights);
                if let Some(before_last_step) = before_last_step {
                    step.next_batch(before_last_step, before);
                    self.has_step = false;
                }
                let proposal = step.propose(slopes, fisher)?;
                self.copy.copy_from_slice(weights);
                let deltas = self.previous.iter_mut().zip(&self.direction);
                for (weight, (previous, &direction)) in weights.iter_mut().zip(deltas) {
                    *previous = proposal.alpha * direction + proposal.mu * *previous;
                    *weight += *previous;
                }
                network.forward(weights, batch)?;
                let after = network.mean_loss(&batch.targets)? + penalty(self.l2, weights);
                if step.judge(before, after) == Verdict::Rejected {
                    weights.copy_from_slice(&self.copy);
                    self.previous.fill(T::ZERO);
                    report.rejected = true;
                }
                self.has_step = !report.rejected;
                self.preconditioner.set_damping(step.lambda())?;
            }
        }
        Ok(report)
    }
}

/// `½ η |θ|²`.
fn penalty<T: Scalar>(l2: T, weights: &[T]) -> T {
    if l2 == T::ZERO {
        return T::ZERO;
    }
    T::from_f64(0.5) * l2 * dot(weights, weights).expect("one length")
}
