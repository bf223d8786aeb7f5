//! A whole training step: MLP 784-400-200-10, batch 128, single precision.

use crate::contest::{Contender, Contest, Stage};
use crate::numbers::Precision;
use crate::rows::{Family, Ratio, Subject};
use kfac_core::LayerShape;
use kfac_core::map::RowsRoute;
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

/// K-FAC's way through a step.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    map: MapChoice,
    schedule: Schedule,
}

const fn way(name: &'static str, map: MapChoice, statistics_every: u32, refresh_every: u32) -> Way {
    Way { name, map, schedule: Schedule { statistics_every, refresh_every } }
}

const WAYS: [Way; 5] = [
    way("factored/10-100", MapChoice::Factored, 10, 100),
    way("factored/1-10", MapChoice::Factored, 1, 10),
    way("eigenbasis/10-100", MapChoice::Eigenbasis, 10, 100),
    way("ekfac/10-100", MapChoice::Ekfac, 10, 100),
    way("shifted/10-100", MapChoice::Shifted, 10, 100),
];

/// Steps after which SGD's turn is over: as many as the longest period, so that every turn is as long.
const STEPS: u32 = 100;

/// A contest with SGD for each way. The two do different things, so no results are compared.
pub fn hold(stage: &mut Stage) {
    for way in WAYS {
        let net = WIDTHS.map(|width| width.to_string()).join("-");
        let case = format!("{net}/b{BATCH}/{}", way.name);
        let subject = Subject { family: Family::Step, precision: Precision::F32, size: BATCH, case };
        if !stage.wants(&subject) {
            continue;
        }
        let ratio = Ratio::CostPerFlop { flops_ratio: kfac_flops(way) / sgd_flops() };
        let contender = |name, way| {
            Contender::without_result(name, Workload::new(way), |workload: &mut Workload| {
                black_box(workload.run());
            })
        };
        let contenders = vec![contender("K-FAC", Some(way)), contender("SGD", None)];
        stage.hold(Contest { subject, ratio, tolerance: 0.0 }, contenders);
    }
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
    fn new(way: Option<Way>) -> Self {
        let network = mlp(&WIDTHS, Fast::detect()).expect("widths are not zero");
        let weights = network.initial_weights(0, |_| Init::HeNormal).expect("it fits every block");
        let pixel = |index: usize| (index.wrapping_mul(2_654_435_761) >> 8) as f32 % 251.0 / 250.0;
        let batch = Batch {
            cases: BATCH,
            inputs: (0..BATCH * WIDTHS[0]).map(pixel).collect(),
            targets: Targets::Classes((0..BATCH as u32).map(|case| case % 10).collect()),
        };
        let optimizer: Box<dyn Optimizer<f32, Fast>> = match way {
            None => {
                let settings = SgdSettings { rate: 1e-3, momentum: 0.9, clip: f64::INFINITY };
                Box::new(Sgd::new(settings).expect("settings are in range"))
            }
            Some(Way { map, schedule, .. }) => {
                let clip = KlClip::new(1e-4).expect("positive");
                let step = ClippedStep { rate: 1e-3, clip };
                let settings = KfacSettings {
                    map,
                    schedule,
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

    /// Whole refresh periods of steps, so that every part of a step counts with its true share.
    ///
    /// # Panics
    /// Where a step fails, which would make its time meaningless.
    fn run(&mut self) -> f64 {
        let mut loss = 0.0;
        for _ in 0..STEPS {
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

/// Forward, the gradients at the outputs, a step's share of statistics and refreshes, and `U`, each by the way that is taken.
fn kfac_flops(way: Way) -> f64 {
    let batch = BATCH as f64;
    let forward: f64 = shapes().map(|(m, n)| 2.0 * batch * m * n).sum();
    let backward: f64 = shapes().skip(1).map(|(m, n)| 2.0 * batch * m * n).sum();
    let apply: f64 = shapes().map(|(m, n)| apply_flops(way.map, m, n)).sum();
    let learnt: f64 = shapes().map(|(m, n)| statistics_flops(way.map, m, n)).sum();
    let refreshed: f64 = shapes().map(|(m, n)| refresh_flops(way.map, m, n)).sum();
    forward
        + backward
        + apply
        + (backward + learnt) / f64::from(way.schedule.statistics_every)
        + refreshed / f64::from(way.schedule.refresh_every)
}

/// From the gradients at the output of a layer to `U`.
fn apply_flops(map: MapChoice, m: f64, n: f64) -> f64 {
    let (b, shape) = (BATCH as f64, LayerShape::dense(n as usize - 1, m as usize));
    let (gradient, products) = (2.0 * b * m * n, 2.0 * m * n * (m + n));
    let rows = |route: RowsRoute| route.is_cheaper(shape, BATCH);
    match map {
        // Rows with both inverses, U, and the lower triangles of two products of rows in bands of 32.
        MapChoice::Factored if rows(RowsRoute::Inverses) => {
            2.0 * b * (m * m + n * n) + gradient + b * (b + 32.0) * (m + n)
        }
        MapChoice::Factored => gradient + products,
        // Rows into the bases, V in them, and the way out.
        MapChoice::Eigenbasis | MapChoice::Ekfac | MapChoice::Shifted if rows(RowsRoute::Bases) => {
            2.0 * b * (m * m + n * n) + gradient + products
        }
        MapChoice::Eigenbasis | MapChoice::Ekfac | MapChoice::Shifted => gradient + 2.0 * products,
    }
}

/// Two symmetric products, and for `Ekfac` the rows in the bases and the product of their squares.
fn statistics_flops(map: MapChoice, m: f64, n: f64) -> f64 {
    let b = BATCH as f64;
    let moments = b * (m * m + n * n);
    match map {
        MapChoice::Ekfac => moments + 2.0 * moments + 2.0 * b * m * n,
        _ => moments,
    }
}

/// Inverses; eigenvectors, which take 1.7 sweeps an eigenvalue on such matrices, of `n/2` rotations of `n` pairs at six flops; or
/// for the larger side the tridiagonal form.
fn refresh_flops(map: MapChoice, m: f64, n: f64) -> f64 {
    let (smaller, larger) = (m.min(n).powi(3), m.max(n).powi(3));
    let (reduced, decomposed) = (8.0 / 3.0, 8.0 / 3.0 + 5.1);
    match map {
        MapChoice::Factored => smaller + larger,
        MapChoice::Eigenbasis | MapChoice::Ekfac => decomposed * (smaller + larger),
        MapChoice::Shifted => decomposed * smaller + reduced * larger,
    }
}

#[cfg(test)]
mod tests {
    use super::{WAYS, kfac_flops, sgd_flops};

    /// Layers 400 x 785, 200 x 401, 10 x 201; a product of the batch with each takes `2 b m n` flops.
    const PRODUCTS: [u64; 3] = [80_384_000, 20_531_200, 514_560];
    /// Of the batch with the squares of both sides.
    const SQUARES: [u64; 3] = [198_713_600, 51_405_056, 10_368_256];
    /// Of the gradient with the squares of both sides.
    const APPLIES: [u64; 3] = [744_180_000, 96_400_400, 848_220];

    fn sum(flops: [u64; 3]) -> u64 {
        flops.iter().sum()
    }

    #[test]
    fn the_flops_are_those_of_a_count_by_hand() {
        let passes = 2 * sum(PRODUCTS) - PRODUCTS[0];
        let sgd = passes + sum(PRODUCTS);
        assert_eq!(sgd_flops(), sgd as f64);
        // The symmetric products of an update with one more pass, the inverses of a refresh.
        let statistics = PRODUCTS[1] + PRODUCTS[2] + sum(SQUARES) / 2;
        let inverses = 628_339_427;
        // Two layers go by the rows, with triangles of b x b; the last one by its gradient.
        let triangles = 128 * (128 + 32) * (1185 + 601);
        let apply = SQUARES[0] + SQUARES[1] + triangles + APPLIES[2] + sum(PRODUCTS);
        let [factored, often, eigenbasis, ekfac, shifted] = WAYS.map(|way| (100.0 * kfac_flops(way)).round());
        assert_eq!(factored, (100 * (passes + apply) + 10 * statistics + inverses) as f64);
        assert_eq!(often, (100 * (passes + apply + statistics) + 10 * inverses) as f64);
        // In and out of the bases: in by the rows where that is cheaper.
        let apply = SQUARES[0] + SQUARES[1] + 2 * APPLIES[2] + APPLIES[0] + APPLIES[1] + sum(PRODUCTS);
        let bases = 100 * (passes + apply) + 10 * statistics;
        assert_eq!(eigenbasis, (bases as f64 + (8.0 / 3.0 + 5.1) * inverses as f64).round());
        let squares = 10 * (sum(SQUARES) + sum(PRODUCTS));
        assert_eq!(ekfac, eigenbasis + squares as f64);
        let [smaller, larger] = [400_u64.pow(3) + 200_u64.pow(3) + 10_u64.pow(3), 556_338_427];
        let refresh = (8.0 / 3.0 + 5.1) * smaller as f64 + 8.0 / 3.0 * larger as f64;
        assert_eq!(shifted, (bases as f64 + refresh).round());
    }
}
