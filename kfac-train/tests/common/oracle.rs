//! K-FAC step by step with explicit matrices: `(A (x) G + λ I)⁻¹` and the Fisher matrix of the whole network are
//! built and solved densely, every scale is written out. From the library come the rows `ā` and `g`, tangents and the
//! loss, which have tests of their own.

use super::dense::{Matrix, dot};
use super::{fisher_matrix, jacobian, moved};
use kfac_train::data::Batch;
use kfac_train::kfac_core::evidence::Inputs;
use kfac_train::kfac_core::schedule::Schedule;
use kfac_train::kfac_linalg::Reproducible;
use kfac_train::model::Network;
use kfac_train::optimizer::MapChoice;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The settings of a run, as plain numbers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub map: MapChoice,
    pub schedule: Schedule,
    pub decay: f64,
    pub l2: f64,
    pub lambda: f64,
    pub seed: u64,
    pub rule: Rule,
}

/// How a step is made.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    Clipped {
        rate: f64,
        momentum: f64,
        kappa: f64,
    },
    /// `every` and `omega` of the damping's adaptation; `κ` with its range.
    Adaptive {
        every: u64,
        omega: f64,
        bound: Option<(f64, [f64; 2])>,
    },
}

/// What a run has seen, so that a table of runs can be shown to reach every branch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub clipped: u32,
    pub bounded: u32,
    pub kappa_raised: u32,
    pub kappa_lowered: u32,
    pub lambda_raised: u32,
    pub lambda_lowered: u32,
    pub rejected: u32,
}

/// One row per case and position.
type Rows = Vec<Vec<f64>>;

/// What one step reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    pub loss: f64,
    pub lambda: f64,
    pub rejected: bool,
}

/// One weight block: its factors, and what the inverse in force was made of.
struct Block {
    factors: [Matrix; 2],
    in_force: [Matrix; 2],
    lambda_in_force: f64,
    /// At which step of the refresh period each side is due.
    due: [u64; 2],
}

pub struct Oracle {
    network: Network<f64, Reproducible>,
    settings: Settings,
    generator: ChaCha8Rng,
    blocks: Vec<Block>,
    steps: u64,
    updates: u32,
    previous: Vec<f64>,
    lambda: f64,
    kappa: f64,
    judged: u64,
    was_rejected: bool,
    /// The weights before the last step and its predicted change, if it was kept.
    last_step: Option<(Vec<f64>, f64)>,
    pub seen: Seen,
}

impl Oracle {
    pub fn new(network: Network<f64, Reproducible>, settings: Settings) -> Self {
        // Stream 7 of ChaCha8 under the seed as key: frozen, as trajectories rest on it.
        let mut key = [0; 32];
        key[..8].copy_from_slice(&settings.seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(7);
        let due = due(&network, settings);
        let blocks = network.shapes().iter().zip(due).map(|(shape, due)| {
            let zeros = || [shape.inputs(), shape.outputs()].map(|n| Matrix::zeros(n, n));
            Block { factors: zeros(), in_force: zeros(), lambda_in_force: f64::NAN, due }
        });
        let kappa = match settings.rule {
            Rule::Clipped { kappa, .. } => kappa,
            Rule::Adaptive { bound, .. } => bound.map_or(f64::INFINITY, |(kappa, _)| kappa),
        };
        Self {
            blocks: blocks.collect(),
            settings,
            generator,
            steps: 0,
            updates: 0,
            previous: vec![0.0; network.weight_count()],
            lambda: settings.lambda,
            kappa,
            judged: 0,
            was_rejected: false,
            last_step: None,
            seen: Seen::default(),
            network,
        }
    }

    /// One step from `weights`.
    pub fn step(&mut self, weights: &mut Vec<f64>, batch: &Batch<f64>) -> Report {
        let loss = self.loss(weights, batch);
        let total = self.total_loss(weights, batch);
        if let (Rule::Adaptive { bound: Some(_), .. }, Some((before, predicted))) =
            (self.settings.rule, self.last_step.take())
        {
            let before = self.total_loss(&before, batch);
            self.adapt_bound(predicted, before, total);
        }

        self.network.forward(weights, batch).unwrap();
        self.network.backward(weights, &batch.targets).unwrap();
        let mut gradient: Vec<f64> = Vec::new();
        for (a, g) in self.rows() {
            // V = (1/N) Σ g āᵀ over cases and positions.
            let mut v = Matrix::zeros(g[0].len(), a[0].len());
            for (a, g) in a.iter().zip(&g) {
                v.add_outer(1.0 / batch.cases as f64, g, a);
            }
            gradient.extend(v.data);
        }
        let gradient = moved(&gradient, self.settings.l2, weights);

        self.observe_and_refresh(weights, batch.cases);
        let u = self.precondition(&gradient);
        let report = Report { loss, lambda: self.lambda, rejected: false };
        match self.settings.rule {
            Rule::Clipped { rate, momentum, kappa } => {
                let nu = (kappa / (rate * rate * dot(&u, &gradient))).sqrt().min(1.0);
                self.seen.clipped += u32::from(nu < 1.0);
                self.previous =
                    self.previous.iter().zip(&u).map(|(d, u)| momentum * d - rate * nu * u).collect();
                *weights = moved(weights, 1.0, &self.previous);
                report
            }
            Rule::Adaptive { .. } => {
                let delta: Vec<f64> = u.iter().map(|u| -u).collect();
                let rejected = self.adaptive_step(weights, batch, (&gradient, &delta), total);
                Report { rejected, ..report }
            }
        }
    }

    fn adaptive_step(
        &mut self,
        weights: &mut Vec<f64>,
        batch: &Batch<f64>,
        (gradient, delta): (&[f64], &[f64]),
        before: f64,
    ) -> bool {
        self.network.forward(weights, batch).unwrap();
        let jacobian = jacobian(&mut self.network, weights);
        let fisher = fisher_matrix(&self.network, &jacobian, batch.cases);
        let damped = fisher.shifted(self.lambda + self.settings.l2);
        let previous = self.previous.clone();
        let m11 = damped.product(delta, delta);
        let m12 = damped.product(delta, &previous);
        let m22 = damped.product(&previous, &previous);
        let (b1, b2) = (-dot(gradient, delta), -dot(gradient, &previous));
        let determinant = m11 * m22 - m12 * m12;
        let (alpha, mu) = if m22 == 0.0 {
            (b1 / m11, 0.0)
        } else {
            ((b1 * m22 - b2 * m12) / determinant, (m11 * b2 - m12 * b1) / determinant)
        };
        let step: Vec<f64> = delta.iter().zip(&previous).map(|(d, p)| alpha * d + mu * p).collect();
        let divergence = 0.5 * fisher.product(&step, &step);
        let scale = (self.kappa / divergence).sqrt().min(1.0);
        self.seen.bounded += u32::from(scale < 1.0);
        let step: Vec<f64> = step.iter().map(|d| scale * d).collect();
        let predicted = 0.5 * damped.product(&step, &step) + dot(gradient, &step);

        let new = moved(weights, 1.0, &step);
        let after = self.total_loss(&new, batch);
        let rejected = !after.is_finite();
        self.adapt_lambda(predicted, before, after);
        if rejected {
            self.seen.rejected += 1;
            self.previous.fill(0.0);
        } else {
            self.last_step = Some((weights.clone(), predicted));
            self.previous = step;
            *weights = new;
        }
        rejected
    }

    fn adapt_lambda(&mut self, predicted: f64, before: f64, after: f64) {
        let Rule::Adaptive { every, omega, .. } = self.settings.rule else { unreachable!() };
        self.judged += 1;
        self.was_rejected |= !after.is_finite();
        if !self.judged.is_multiple_of(every) {
            return;
        }
        let rho = if self.was_rejected { f64::NEG_INFINITY } else { (after - before) / predicted };
        self.was_rejected = false;
        let factor = (0..every).fold(1.0, |factor, _| factor * omega);
        if rho > 0.75 {
            self.lambda *= factor;
            self.seen.lambda_lowered += 1;
        } else if rho < 0.25 {
            self.lambda /= factor;
            self.seen.lambda_raised += 1;
        }
    }

    fn adapt_bound(&mut self, predicted: f64, before: f64, after: f64) {
        let Rule::Adaptive { bound: Some((_, [floor, cap])), .. } = self.settings.rule else {
            unreachable!()
        };
        let rho = (after - before) / predicted;
        if rho > 0.5 {
            self.kappa = (self.kappa * 1.1).min(cap);
            self.seen.kappa_raised += 1;
        } else if rho < 0.0 {
            self.kappa = (self.kappa / 1.1).max(floor);
            self.seen.kappa_lowered += 1;
        }
    }

    fn loss(&mut self, weights: &[f64], batch: &Batch<f64>) -> f64 {
        self.network.forward(weights, batch).unwrap();
        self.network.mean_loss(&batch.targets).unwrap()
    }

    /// With the l2 term.
    fn total_loss(&mut self, weights: &[f64], batch: &Batch<f64>) -> f64 {
        self.loss(weights, batch) + 0.5 * self.settings.l2 * dot(weights, weights)
    }

    /// `ā` and `g` of every block.
    fn rows(&self) -> Vec<(Rows, Rows)> {
        let rows = self.network.evidence().unwrap().map(|(inputs, gradients)| {
            let g = gradients.rows();
            let a = |row| {
                let mut a = vec![1.0; inputs.features() + 1];
                let position = (row / inputs.positions(), row % inputs.positions());
                inputs.write_row(position.0, position.1, &mut a[..inputs.features()]);
                a
            };
            let g_row = |row| g.row(row).unwrap().to_vec();
            ((0..g.rows()).map(a).collect(), (0..g.rows()).map(g_row).collect())
        });
        rows.collect()
    }

    fn observe_and_refresh(&mut self, weights: &[f64], cases: usize) {
        let Settings { schedule, decay, l2, map, .. } = self.settings;
        if self.steps.is_multiple_of(u64::from(schedule.statistics_every)) {
            self.network.backward_sampled(weights, &mut self.generator).unwrap();
            self.updates += 1;
            let epsilon = (1.0 - 1.0 / f64::from(self.updates)).min(decay);
            let rows = self.rows();
            for (block, (a, g)) in self.blocks.iter_mut().zip(rows) {
                // A: mean over cases and positions; G: mean over cases of the sum over positions.
                for (factor, rows, scale) in [(0, &a, 1.0 / a.len() as f64), (1, &g, 1.0 / cases as f64)] {
                    let mut moment = Matrix::zeros(rows[0].len(), rows[0].len());
                    rows.iter().for_each(|row| moment.add_outer(scale, row, row));
                    block.factors[factor] = block.factors[factor].mixed(epsilon, &moment);
                }
            }
        }
        let place = self.steps % u64::from(schedule.refresh_every);
        for block in &mut self.blocks {
            for side in 0..2 {
                if self.steps == 0 || block.due[side] == place {
                    block.in_force[side] = block.factors[side].clone();
                    block.lambda_in_force = self.lambda + l2;
                }
            }
            if map != MapChoice::Factored {
                block.lambda_in_force = self.lambda + l2;
            }
        }
        self.steps += 1;
    }

    /// `vec(U) = (Â (x) Ĝ [+ λ I])⁻¹ vec(V)` under column stacking.
    fn precondition(&self, gradient: &[f64]) -> Vec<f64> {
        let mut all = Vec::new();
        let mut rest = gradient;
        for block in &self.blocks {
            let [a, g] = &block.in_force;
            let (n, m) = (a.rows, g.rows);
            let (v, tail) = rest.split_at(m * n);
            rest = tail;
            let lambda = block.lambda_in_force;
            let matrix = match self.settings.map {
                MapChoice::Eigenbasis | MapChoice::Shifted => a.kron(g).shifted(lambda),
                MapChoice::Ekfac => unimplemented!("kfac-core has loops over the cases beside it"),
                MapChoice::Factored => {
                    let pi = ((a.trace() / n as f64) / (g.trace() / m as f64)).sqrt();
                    a.shifted(pi * lambda.sqrt()).kron(&g.shifted(lambda.sqrt() / pi))
                }
            };
            let stacked: Vec<f64> = (0..m * n).map(|at| v[(at % m) * n + at / m]).collect();
            let u = matrix.solve(&stacked);
            all.extend((0..m * n).map(|at| u[(at % n) * m + at / n]));
        }
        all
    }
}

/// Flops per `n³` of eigenvectors, and of the tridiagonal form alone.
const DECOMPOSITION: usize = 18;
const REDUCTION: usize = 3;

/// When each side of each block is renewed: the most expensive unit first, dealt back and forth over the period. A
/// unit is a block for `Factored`, a side for the others; its cost is the cube of its size.
fn due(network: &Network<f64, Reproducible>, settings: Settings) -> Vec<[u64; 2]> {
    let cube = |n: usize| n.pow(3);
    let mut units: Vec<(usize, Vec<(usize, usize)>)> = Vec::new();
    for (index, shape) in network.shapes().iter().enumerate() {
        let [mut a, mut g] = [shape.inputs(), shape.outputs()].map(cube);
        if settings.map == MapChoice::Shifted {
            // The smaller side is decomposed, the larger one only reduced.
            let smaller = if a < g { &mut a } else { &mut g };
            *smaller = *smaller * DECOMPOSITION / REDUCTION;
        }
        match settings.map {
            MapChoice::Factored => units.push((a + g, vec![(index, 0), (index, 1)])),
            MapChoice::Eigenbasis | MapChoice::Shifted | MapChoice::Ekfac => {
                units.extend([(a, vec![(index, 0)]), (g, vec![(index, 1)])])
            }
        }
    }
    units.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
    let period = settings.schedule.refresh_every as usize;
    let mut due = vec![[0; 2]; network.shapes().len()];
    for (rank, (_, sides)) in units.iter().enumerate() {
        let place = rank % period;
        let at = if (rank / period).is_multiple_of(2) { place } else { period - 1 - place };
        sides.iter().for_each(|&(block, side)| due[block][side] = at as u64);
    }
    due
}
