//! One training run: updates, evaluation now and then, and what became of it.

use crate::data::{Batch, Source};
use crate::model::Network;
use crate::optimizer::{IterateAverage, Optimizer};
pub use crate::stopwatch::Clock;
use crate::stopwatch::Stopwatch;
use kfac_core::error::SettingError;
use kfac_linalg::{Kernel, Scalar};

/// How long a run goes on and how it is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Cases of a batch, at least 1.
    pub batch: usize,
    /// Most updates.
    pub updates: u64,
    /// Updates from one evaluation to the next, at least 1; the last update is always evaluated.
    pub evaluate_every: u64,
    /// Decay of the averaged iterates that are evaluated in place of the weights; `None` evaluates the weights.
    pub averaging: Option<f64>,
}

/// Whether a run should go on after an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continue {
    /// Go on.
    Yes,
    /// Stop here: the target is reached, or the run is hopeless.
    No,
}

/// What an evaluation saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Updates made.
    pub updates: u64,
    /// The metric.
    pub value: f64,
    /// Seconds of training up to here by [`Clock::HERE`], evaluation excluded.
    pub seconds: f64,
}

/// The course of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Evaluations in order, the first before any update.
    pub points: Vec<Point>,
    /// The sentence of the error that ended the run.
    pub failure: Option<String>,
}

impl History {
    /// Takes down an evaluation; one that is not finite ends the run.
    fn record(&mut self, point: Point) -> Continue {
        self.points.push(point);
        if point.value.is_finite() {
            return Continue::Yes;
        }
        self.failure = Some("the metric is not finite".to_owned());
        Continue::No
    }

    /// The first evaluation of trained weights at or below `target`.
    pub fn reached(&self, target: f64) -> Option<Point> {
        self.points.iter().copied().find(|point| point.updates > 0 && point.value <= target)
    }

    /// The lowest value of trained weights.
    pub fn lowest(&self) -> Option<f64> {
        let trained = self.points.iter().filter(|point| point.updates > 0 && point.value.is_finite());
        trained.map(|point| point.value).min_by(f64::total_cmp)
    }

    /// The last evaluation's value; NaN where there was none.
    pub fn final_value(&self) -> f64 {
        self.points.last().map_or(f64::NAN, |point| point.value)
    }

    /// Mean milliseconds of an update.
    pub fn milliseconds_per_update(&self) -> f64 {
        self.points.last().map_or(f64::NAN, |last| 1e3 * last.seconds / last.updates as f64)
    }
}

/// Measures a network at given weights: low is good.
pub type Metric<'m, T, K> = dyn FnMut(&mut Network<T, K>, &[T]) -> f64 + 'm;

/// A network with its weights, about to be trained.
pub struct Run<'a, T, K> {
    /// The network.
    pub network: &'a mut Network<T, K>,
    /// Its weights.
    pub weights: &'a mut [T],
    /// Where batches come from.
    pub source: &'a mut dyn Source<T>,
    /// What changes the weights.
    pub optimizer: &'a mut dyn Optimizer<T, K>,
}

impl<T: Scalar, K: Kernel<T>> Run<'_, T, K> {
    /// Trains by `plan`; `evaluate` measures the network at given weights, `judge` says whether to go on.
    ///
    /// An update that fails, or a metric that is not finite, ends the run; both are results.
    ///
    /// # Errors
    /// [`SettingError`] where the plan is out of its range; then nothing is run.
    pub fn train(
        &mut self,
        plan: Plan,
        evaluate: &mut Metric<'_, T, K>,
        judge: &mut dyn FnMut(Point) -> Continue,
    ) -> Result<History, SettingError> {
        SettingError::unless(plan.batch > 0, "batch", plan.batch as f64)?;
        SettingError::unless(plan.evaluate_every > 0, "evaluate_every", plan.evaluate_every as f64)?;
        let mut history = History::default();
        let mut average = plan.averaging.map(IterateAverage::new).transpose()?;
        let mut batch = Batch::default();
        let first = Point { updates: 0, value: evaluate(self.network, self.weights), seconds: 0.0 };
        if history.record(first) == Continue::No {
            return Ok(history);
        }
        let mut watch = Stopwatch::start();
        for update in 1..=plan.updates {
            self.source.next_batch(plan.batch, &mut batch);
            if let Err(error) = self.optimizer.step(self.network, self.weights, &batch) {
                history.failure = Some(error.to_string());
                return Ok(history);
            }
            if let Some(average) = &mut average {
                average.add(self.weights);
            }
            if !update.is_multiple_of(plan.evaluate_every) && update != plan.updates {
                continue;
            }
            let seconds = watch.pause();
            let value = match &mut average {
                Some(average) => evaluate(self.network, average.mean()),
                None => evaluate(self.network, self.weights),
            };
            let point = Point { updates: update, value, seconds };
            if history.record(point) == Continue::No || judge(point) == Continue::No {
                return Ok(history);
            }
            watch.resume();
        }
        Ok(history)
    }
}
