//! "10-20 times fewer updates on recurrent networks": the adding problem.

use super::contender::{Budget, Contender, Family, KfacDefaults, Method};
use super::contest::{Contest, Goal};
use super::task::{Net, Task};
use super::verdict::Bar;
use super::{ClaimError, ClaimRecord, Progress, Settings};
use crate::data::adding::Adding;
use crate::data::{Batch, Source};
use crate::model::{Init, rnn};
use crate::optimizer::MapChoice;
use kfac_linalg::Fast;

const STEPS: usize = 30;
const HIDDEN: usize = 32;
const BATCH: usize = 128;
/// Updates between two looks at the validation cases, on both sides.
const EVALUATE_EVERY: u64 = 5;
const VALIDATION_CASES: usize = 1_000;
/// Seed of the validation set, which no run trains on.
const VALIDATION_SEED: u64 = 1_000_003;

struct AddingTask {
    validation: Batch<f32>,
}

impl Task for AddingTask {
    fn description(&self) -> String {
        format!(
            "adding problem, T = {STEPS}, inputs in [0, 1], {VALIDATION_CASES} fixed validation cases; tanh RNN, \
             {HIDDEN} units; batch {BATCH}"
        )
    }

    fn metric_name(&self) -> String {
        "validation half squared error".to_owned()
    }

    fn network(&self) -> Net {
        rnn(2, HIDDEN, STEPS, Fast::detect()).expect("sizes are not zero")
    }

    fn initial_weights(&self, network: &Net, seed: u64) -> Vec<f32> {
        let weights = network.initial_weights(seed, |block| match block {
            0 => Init::OrthogonalRecurrent { inputs: 2 },
            _ => Init::ScaledNormal,
        });
        weights.expect("the first block is the recurrent one, of two inputs")
    }

    fn source(&self, seed: u64) -> Box<dyn Source<f32> + '_> {
        Box::new(Adding::new(STEPS, seed).expect("enough steps"))
    }

    fn batch(&self) -> usize {
        BATCH
    }

    fn metric(&self, network: &mut Net, weights: &[f32]) -> f64 {
        let loss = network
            .forward(weights, &self.validation)
            .and_then(|()| network.mean_loss(&self.validation.targets));
        loss.map_or(f64::NAN, f64::from)
    }
}

pub(super) fn run(settings: &Settings, progress: &dyn Progress) -> Result<ClaimRecord, ClaimError> {
    let task = AddingTask { validation: Adding::fixed(STEPS, VALIDATION_CASES, VALIDATION_SEED)?.whole() };
    let kfac = |every| Contender {
        method: Method::Kfac(KfacDefaults {
            map: MapChoice::Factored,
            family: Family::Recurrent,
            every: [every; 2],
            l2: 0.0,
        }),
        averaging: None,
    };
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for (target, recorded) in [(0.01, [0.04, 0.95, 1.0]), (0.002, [0.02, 0.99, 1.0])] {
        let contest = Contest {
            task: &task,
            kfac: vec![kfac(1), kfac(10)],
            kfac_budget: Budget { updates: 300, evaluate_every: EVALUATE_EVERY },
            sgd_averaging: None,
            sgd_budget: Budget { updates: 2_500, evaluate_every: EVALUATE_EVERY },
            recorded,
            goal: Goal::Target(target),
            bar: Bar { holds: 10.0, in_part: 4.0 },
        };
        let (more, figure) = contest.run(settings, progress);
        rows.extend(more);
        figures.push(figure);
    }
    Ok(ClaimRecord {
        name: "recurrent".to_owned(),
        title: "Recurrent networks".to_owned(),
        claim: "As it is often repeated: K-FAC needs 10 to 20 times fewer updates than SGD on recurrent tasks.".to_owned(),
        source: "Repeated without a source: the factor is from the abstract of Grosse and Martens 2016 (KFC), which says it \
                 of convolutional nets; Martens, Ba and Johnson 2018 give none for recurrent ones."
            .to_owned(),
        rows,
        figures,
        notes: vec![
            "K-FAC's weights are treated as independent in time; the chain approximations are not used.".to_owned(),
            "SGD is tuned for the best median over the seeds, for each target separately.".to_owned(),
            "The bar is 10, the low end of the claim; in part from 4, about what an update of K-FAC costs in updates of SGD \
             (14.7 / 3.8 by the documentation of the TensorFlow package), below which fewer updates save no time."
                .to_owned(),
        ],
    })
}
