//! Who competes: one default K-FAC per family, and SGD over its lattice.

use super::task::{Net, Task};
use crate::optimizer::{Kfac, KfacSettings, MapChoice, Optimizer, Sgd, SgdSettings, StepError, StepRule};
use crate::trainer::{Continue, History, Plan, Point, Run};
use crate::tuning::{Axis, Values};
use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt};
use kfac_core::recipe::AdaptiveStep;
use kfac_core::schedule::Schedule;
use kfac_core::step::StepBound;
use kfac_linalg::Fast;

/// An optimizer with its settings and the averaging of its iterates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contender {
    pub(super) method: Method,
    /// Decay of the averaged iterates, where they are what is judged.
    pub(super) averaging: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    Sgd(SgdSettings),
    Kfac(KfacDefaults),
}

/// K-FAC with everything at its default but what is named here.
#[derive(Clone, Copy, Debug)]
pub(super) struct KfacDefaults {
    pub(super) map: MapChoice,
    pub(super) family: Family,
    /// `T_cov` and `T_inv`.
    pub(super) every: [u32; 2],
    pub(super) l2: f32,
}

/// The measured defaults differ by family of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Recurrent nets on fresh, noisy batches: bounded steps.
    Recurrent,
    /// Deep feed-forward nets on large batches of repeated data.
    FeedForward,
}

impl Family {
    /// `λ` at the start.
    const INITIAL_DAMPING: f32 = 0.1;

    fn adaptation(self) -> AdaptationRule<f32> {
        match self {
            Self::Recurrent => AdaptationRule::recurrent(),
            Self::FeedForward => AdaptationRule::feed_forward(),
        }
    }

    fn bound(self) -> Option<StepBound<f32>> {
        match self {
            Self::Recurrent => Some(StepBound::recurrent()),
            Self::FeedForward => None,
        }
    }
}

/// Decay of the statistics.
const DECAY: f32 = 0.95;

impl KfacDefaults {
    fn build(self, network: &Net, seed: u64) -> Result<Kfac<f32, Fast>, StepError> {
        let damping = LevenbergMarquardt::new(Family::INITIAL_DAMPING, self.family.adaptation())?;
        let mut step = AdaptiveStep::new(damping);
        step.bound = self.family.bound();
        let [statistics_every, refresh_every] = self.every;
        let schedule = Schedule { statistics_every, refresh_every };
        let rule = StepRule::Adaptive(step);
        Kfac::new(network, KfacSettings { map: self.map, schedule, decay: DECAY, l2: self.l2, rule, seed })
    }
}

impl Contender {
    /// SGD at a point of [`sgd_axes`].
    pub(super) fn sgd(settings: &[f64], averaging: Option<f64>) -> Self {
        let [rate, momentum, clip] = [settings[0], settings[1], settings[2]];
        Self { method: Method::Sgd(SgdSettings { rate, momentum, clip }), averaging }
    }

    /// Name in tables and legends.
    pub(super) fn name(&self) -> String {
        match self.method {
            Method::Sgd(_) => "SGD".to_owned(),
            Method::Kfac(KfacDefaults { map, every: [statistics, inverses], .. }) => {
                format!("K-FAC {map:?} {statistics}/{inverses}")
            }
        }
    }

    /// Every setting in force.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let mut pairs = match self.method {
            Method::Sgd(SgdSettings { rate, momentum, clip }) => vec![
                ("momentum kind", "Nesterov".to_owned()),
                ("learning rate", format!("{rate:.3e}")),
                ("momentum", momentum.to_string()),
                (
                    "clip of the gradient's norm",
                    if clip.is_finite() { clip.to_string() } else { "none".to_owned() },
                ),
            ],
            Method::Kfac(KfacDefaults { family, every: [statistics, inverses], l2, .. }) => {
                let AdaptationRule { every, omega, floor, cap } = family.adaptation();
                let bound = family.bound().map_or("none".to_owned(), in_words);
                vec![
                    ("step", "exact quadratic model".to_owned()),
                    ("Fisher", "sampled targets".to_owned()),
                    ("T_cov / T_inv", format!("{statistics} / {inverses}")),
                    ("decay", DECAY.to_string()),
                    ("λ₀", Family::INITIAL_DAMPING.to_string()),
                    (
                        "adaptation",
                        format!("every {every} steps by {omega}^{every}, λ in [{floor:e}, {cap:e}]"),
                    ),
                    ("l2", l2.to_string()),
                    ("step bound", bound),
                ]
            }
        };
        let averaging = self.averaging.map_or("none".to_owned(), |decay| format!("decay {decay}"));
        pairs.push(("averaged iterates", averaging));
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Trains `task` from `seed`.
    pub(super) fn run(
        &self,
        task: &dyn Task,
        seed: u64,
        budget: Budget,
        judge: &mut dyn FnMut(Point) -> Continue,
    ) -> History {
        let mut network = task.network();
        let mut weights = task.initial_weights(&network, seed);
        let mut source = task.source(seed);
        let failed = |error: StepError| History { failure: Some(error.to_string()), ..History::default() };
        let optimizer: Result<Box<dyn Optimizer<f32, Fast>>, StepError> = match self.method {
            Method::Sgd(settings) => {
                Sgd::new(settings).map(|sgd| Box::new(sgd) as _).map_err(StepError::from)
            }
            Method::Kfac(defaults) => defaults.build(&network, seed).map(|kfac| Box::new(kfac) as _),
        };
        let mut optimizer = match optimizer {
            Ok(optimizer) => optimizer,
            Err(error) => return failed(error),
        };
        let plan = Plan {
            batch: task.batch(),
            updates: budget.updates,
            evaluate_every: budget.evaluate_every,
            averaging: self.averaging,
        };
        let mut run = Run {
            network: &mut network,
            weights: &mut weights,
            source: &mut *source,
            optimizer: &mut *optimizer,
        };
        let history = run.train(plan, &mut |network, weights| task.metric(network, weights), judge);
        history.unwrap_or_else(|error| failed(error.into()))
    }
}

/// A step bound with all its numbers.
fn in_words(bound: StepBound<f32>) -> String {
    let (kappa, [floor, cap], [lower, upper]) = (bound.kappa(), bound.range(), bound.thresholds());
    format!("½δᵀFδ ≤ κ, κ from {kappa} in [{floor}, {cap}], up where ρ > {upper}, down where ρ < {lower}")
}

/// How long a contender may train, and how often it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) updates: u64,
    pub(super) evaluate_every: u64,
}

/// The lattice on which SGD is tuned: learning rate, momentum, clip of the gradient's norm.
pub(super) fn sgd_axes() -> Vec<Axis> {
    let list = |values: &[f64], first_is_natural, last_is_natural| Values::List {
        values: values.to_vec(),
        first_is_natural,
        last_is_natural,
    };
    vec![
        Axis { name: "learning rate", values: Values::Geometric { base: 0.01, factor: 2.0 } },
        Axis { name: "momentum", values: list(&[0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995], true, false) },
        Axis {
            name: "clip",
            values: list(&[0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, f64::INFINITY], false, true),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_bound_is_printed_with_the_numbers_in_force() {
        assert_eq!(
            in_words(StepBound::recurrent()),
            "½δᵀFδ ≤ κ, κ from 0.003 in [0.001, 0.03], up where ρ > 0.5, down where ρ < 0"
        );
        assert_eq!(
            in_words(StepBound::finite_data()),
            "½δᵀFδ ≤ κ, κ from 0.003 in [0.0003, 0.03], up where ρ > 0.25, down where ρ < -0.25"
        );
    }
}
