//! A whole training step: MLP 784-400-200-10, batch 128, single precision.

use crate::contest::{Contender, Contest, Stage};
use crate::numbers::Precision;
use crate::rows::{Family, Ratio, Subject};
use kfac_core::recipe::ClippedStep;
use kfac_core::schedule::Schedule;
use kfac_core::step::KlClip;
use kfac_linalg::Fast;
use kfac_train::data::{Batch, Targets};
use kfac_train::model::{Init, Network, mlp};
use kfac_train::optimizer::{Kfac, KfacSettings, MapChoice, Optimizer, Sgd, SgdSettings, StepRule};
use std::hint::black_box;

const WIDTHS: [usize; 4] = [784, 400, 200, 10];
const BATCH: usize = 128;
const SCHEDULE: Schedule = Schedule { statistics_every: 10, refresh_every: 100 };

/// Who takes the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Optimizers {
    /// SGD with Nesterov momentum.
    Sgd,
    /// K-FAC `Factored`, statistics every 10 steps, inverses every 100, KL clip.
    Kfac,
}

/// The one contest of this family. The two do different things, so no results are compared.
pub fn hold(stage: &mut Stage) {
    let case = format!("{}/b{BATCH}", WIDTHS.map(|width| width.to_string()).join("-"));
    let subject = Subject { family: Family::Step, precision: Precision::F32, size: BATCH, case };
    if !stage.wants(&subject) {
        return;
    }
    let ratio = Ratio::CostPerFlop { flops_ratio: kfac_flops() / sgd_flops() };
    let contender = |name, optimizer| {
        Contender::without_result(name, Workload::new(optimizer), |workload: &mut Workload| {
            black_box(workload.run_period());
        })
    };
    let contenders =
        vec![contender("kfac-factored-10-100", Optimizers::Kfac), contender("SGD", Optimizers::Sgd)];
    stage.hold(Contest { subject, ratio, tolerance: 0.0 }, contenders);
}

/// A network about to take steps on one batch.
struct Workload {
    network: Network<f32, Fast>,
    weights: Vec<f32>,
    batch: Batch<f32>,
    optimizer: Box<dyn Optimizer<f32, Fast>>,
}

impl Workload {
    /// Initial weights, and a batch of made-up cases.
    fn new(optimizer: Optimizers) -> Self {
        let network = mlp(&WIDTHS, Fast::detect()).expect("widths are not zero");
        let weights = network.initial_weights(0, |_| Init::HeNormal).expect("it fits every block");
        let pixel = |index: usize| (index.wrapping_mul(2_654_435_761) >> 8) as f32 % 251.0 / 250.0;
        let batch = Batch {
            cases: BATCH,
            inputs: (0..BATCH * WIDTHS[0]).map(pixel).collect(),
            targets: Targets::Classes((0..BATCH as u32).map(|case| case % 10).collect()),
        };
        let optimizer: Box<dyn Optimizer<f32, Fast>> = match optimizer {
            Optimizers::Sgd => {
                let settings = SgdSettings { rate: 1e-3, momentum: 0.9, clip: f64::INFINITY };
                Box::new(Sgd::new(settings).expect("settings are in range"))
            }
            Optimizers::Kfac => {
                let clip = KlClip::new(1e-4).expect("positive");
                let step = ClippedStep { rate: 1e-3, clip };
                let settings = KfacSettings {
                    map: MapChoice::Factored,
                    schedule: SCHEDULE,
                    decay: 0.95,
                    l2: 0.0,
                    rule: StepRule::Clipped { step, momentum: 0.9, damping: 0.03 },
                    seed: 0,
                };
                Box::new(Kfac::new(&network, settings).expect("settings are in range"))
            }
        };
        Self { network, weights, batch, optimizer }
    }

    /// One refresh period of steps, so that every part of a step counts with its true share.
    ///
    /// # Panics
    /// Where a step fails, which would make its time meaningless.
    fn run_period(&mut self) -> f64 {
        let mut loss = 0.0;
        for _ in 0..SCHEDULE.refresh_every {
            let report = self.optimizer.step(&mut self.network, &mut self.weights, &self.batch);
            loss = report.expect("the step succeeds").loss;
        }
        loss
    }
}

/// `(m, n)` of each layer, bias included.
fn shapes() -> impl Iterator<Item = (f64, f64)> {
    WIDTHS.windows(2).map(|pair| (pair[1] as f64, pair[0] as f64 + 1.0))
}

/// Forward, gradient at the inputs (not for the first layer), gradient at the weights: `2 b m n` each.
fn sgd_flops() -> f64 {
    let all: f64 = shapes().map(|(m, n)| 2.0 * BATCH as f64 * m * n).sum();
    let first: f64 = shapes().take(1).map(|(m, n)| 2.0 * BATCH as f64 * m * n).sum();
    3.0 * all - first
}

/// SGD's, the apply `2 m n (m + n)`, and a step's share of the statistics (one more backward pass to the inputs,
/// `b (m² + n²)` for the two symmetric products) and of the inverses (`m³ + n³`).
fn kfac_flops() -> f64 {
    let batch = BATCH as f64;
    let apply: f64 = shapes().map(|(m, n)| 2.0 * m * n * (m + n)).sum();
    let backward: f64 = shapes().skip(1).map(|(m, n)| 2.0 * batch * m * n).sum();
    let moments: f64 = shapes().map(|(m, n)| batch * (m * m + n * n)).sum();
    let inverses: f64 = shapes().map(|(m, n)| m * m * m + n * n * n).sum();
    sgd_flops()
        + apply
        + (backward + moments) / f64::from(SCHEDULE.statistics_every)
        + inverses / f64::from(SCHEDULE.refresh_every)
}

#[cfg(test)]
mod tests {
    use super::{kfac_flops, sgd_flops};

    #[test]
    fn the_flops_are_those_of_a_count_by_hand() {
        // Layers 400 x 785, 200 x 401, 10 x 201. One product of the batch with each takes 2 b m n flops:
        let products = [80_384_000_u64, 20_531_200, 514_560];
        let sgd = 3 * (products[0] + products[1] + products[2]) - products[0];
        assert_eq!(sgd_flops(), sgd as f64);
        // The apply of a step, the symmetric products of an update, the inverses of a refresh.
        let (apply, moments, inverses) = (841_428_620, 130_243_456, 628_339_427);
        let statistics = products[1] + products[2] + moments;
        let period = 100 * (sgd + apply) + 10 * statistics + inverses;
        assert_eq!((100.0 * kfac_flops()).round(), period as f64);
        assert_eq!(period, 108_674_621_587);
    }
}
