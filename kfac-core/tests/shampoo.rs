//! Shampoo: identities, dense loops, grafting, and what is left alone.

mod common;

use common::dense::largest;
use common::tensor::{TensorRoom, mode_product, moment, unfolded_square};
use common::{random, widened};
use kfac_core::linalg::eigh::jacobi::{self, Budget};
use kfac_core::linalg::eigh::roots::Below;
use kfac_core::linalg::eigh::{Eigensolver, Jacobi, Qr};
use kfac_core::linalg::{Fast, Kernel, MatMut, MatRef, Reproducible, Scalar};
use kfac_core::schedule::Schedule;
use kfac_core::step::decay_weights;
use kfac_core::tensor::{
    Accumulation, GradientMap, Grafting, RootOrder, Shampoo, TensorPreconditioner, TensorShape,
};

/// In units of the number type's epsilon, relative to the largest number: roots of well-conditioned moments.
const CLOSE: f64 = 400.0;

fn close<T: Scalar>(what: &str, got: &[T], want: &[f64]) {
    let allowed = CLOSE * T::EPSILON.to_f64() * largest(want);
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!(
            (got.to_f64() - want).abs() <= allowed,
            "{what}: {got:e} is not {want:e}, {allowed:e} allowed"
        );
    }
}

/// A test for every number type and kernel.
trait Body {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K);
}

fn on_every_kernel(body: &impl Body) {
    body.run::<f64, _>(Reproducible);
    body.run::<f32, _>(Reproducible);
    body.run::<f64, _>(Fast::detect());
    body.run::<f32, _>(Fast::detect());
}

/// `U` of every step.
fn steps<T: Scalar, M: GradientMap<T>, K: Kernel<T>>(
    kernel: K,
    map: M,
    shape: TensorShape,
    gradients: &[Vec<T>],
) -> Vec<Vec<T>> {
    let net = [shape];
    let mut room = TensorRoom::new(&net, map);
    let (mut preconditioner, scratch) = room.precondition(&net, map, kernel);
    let step = |v: &Vec<T>| {
        let mut u = [v.clone()];
        preconditioner.step(&mut u, scratch).unwrap();
        let [u] = u;
        u
    };
    gradients.iter().map(step).collect()
}

fn numbers<T: Scalar>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&x| T::from_f64(x)).collect()
}

fn plain<T: Scalar>() -> Shampoo<T> {
    Shampoo::new(Accumulation::Sum { epsilon: T::ZERO })
}

/// `M^(-1/p)` by Jacobi's method and the host's power.
fn inverse_root(m: &[f64], n: usize, p: f64) -> Vec<f64> {
    let (mut q, mut d) = (vec![0.0; n * n], vec![0.0; n]);
    let scratch = &mut vec![0.0; jacobi::scratch_len::<f64>(n)];
    let (m, view) = (MatRef::row_major(m, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
    jacobi::cold(Reproducible, m, view, &mut d, Budget::FULL, scratch).unwrap();
    let element = |i: usize, j: usize| -> f64 {
        (0..n).map(|l| q[i * n + l] * d[l].powf(-1.0 / p) * q[j * n + l]).sum()
    };
    (0..n * n).map(|at| element(at / n, at % n)).collect()
}

/// T36.
struct PolarFactor;

impl Body for PolarFactor {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        let [u] =
            &steps(kernel, plain(), TensorShape::new([2, 2]), &[numbers::<T>(&[1.0, 2.0, 3.0, 4.0])])[..]
        else {
            panic!()
        };
        close(
            "T36",
            u,
            &[-0.514_495_755_427_527, 0.857_492_925_712_544, 0.857_492_925_712_544, 0.514_495_755_427_527],
        );

        let n = 6;
        let mut v = random::<T>(n * n, 36);
        (0..n).for_each(|i| v[i * n + i] += T::from_f64(2.0));
        let u = steps(kernel, plain(), TensorShape::new([n, n]), std::slice::from_ref(&v)).remove(0);
        let (u, v) = (widened(&u), widened(&v));
        let product = |a: &[f64], i: usize, b: &[f64], j: usize| -> f64 {
            (0..n).map(|l| a[l * n + i] * b[l * n + j]).sum()
        };
        let identity: Vec<f64> = (0..n * n).map(|at| f64::from(u8::from(at / n == at % n))).collect();
        let [gram, h] = [&u, &v]
            .map(|x| numbers::<T>(&(0..n * n).map(|at| product(&u, at / n, x, at % n)).collect::<Vec<_>>()));
        close("UᵀU is the identity", &gram, &identity);
        let transposed: Vec<f64> = (0..n * n).map(|at| h[at % n * n + at / n].to_f64()).collect();
        close("UᵀV is symmetric", &h, &transposed);
        assert!((0..n).all(|i| h[i * n + i] > T::ZERO), "and not negative");
    }
}

#[test]
fn the_first_step_of_a_square_gradient_is_its_polar_factor() {
    on_every_kernel(&PolarFactor);
}

/// T37.
struct TwoSteps;

impl Body for TwoSteps {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        let second = |shape, gradients: [&[f64]; 2]| {
            let gradients = gradients.map(numbers::<T>);
            steps(kernel, plain::<T>(), shape, &gradients).remove(1)
        };
        close("vector", &second(TensorShape::new([2]), [&[1.0, 0.0], &[0.0, 1.0]]), &[0.0, 1.0]);
        let half = 0.5_f64.sqrt();
        let identity = [half, 0.0, 0.0, half];
        close("identity", &second(TensorShape::new([2, 2]), [&identity, &identity]), &identity);
        let row = second(TensorShape::new([1, 2]), [&[1.0, 0.0], &[0.0, 1.0]]);
        close("row", &row, &[0.0, 0.5_f64.powf(0.25)]);
        // Merged, the side of 1 is gone, and with it its root.
        let merged = second(TensorShape::new([1, 2]).merged(2), [&[1.0, 0.0], &[0.0, 1.0]]);
        close("merged row", &merged, &[0.0, 1.0]);
        assert_eq!(second(TensorShape::new([]), [&[3.0], &[-5.0]]), numbers::<T>(&[-5.0]), "a scalar");
    }
}

#[test]
fn two_steps_have_the_values_that_can_be_worked_out_by_hand() {
    on_every_kernel(&TwoSteps);
}

/// Order 3, every accumulation and root, against loops over indices; the second axis is left alone.
struct AgainstLoops;

impl Body for AgainstLoops {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        let (decay, epsilon) = (T::from_f64(0.75), T::from_f64(0.25));
        let shapes = [
            TensorShape::new([3, 2, 4]),
            TensorShape::new([3, 7, 2]).limited(5),
            TensorShape::new([5]),
            TensorShape::new([2, 3, 1, 2]),
            TensorShape::new([4, 3, 5]).merged(12),
        ];
        for (shape, accumulation) in shapes.into_iter().flat_map(|shape| {
            [
                Accumulation::Sum { epsilon },
                Accumulation::AverageFromEpsilon { decay, epsilon },
                Accumulation::Average { decay, epsilon },
                Accumulation::CorrectedAverage { decay, epsilon },
            ]
            .map(|accumulation| (shape, accumulation))
        }) {
            for root in [RootOrder::TwiceTheAxes, RootOrder::Fixed(3)] {
                against_loops(kernel, shape, Shampoo { root, ..Shampoo::new(accumulation) });
                against_loops(
                    kernel,
                    shape,
                    Shampoo { root, ..Shampoo::new(accumulation) }.with_solver(Jacobi::default()),
                );
            }
        }
    }
}

fn against_loops<T: Scalar, K: Kernel<T>, S: Eigensolver>(kernel: K, shape: TensorShape, map: Shampoo<T, S>) {
    let net = [shape];
    let mut room = TensorRoom::new(&net, map);
    let (mut preconditioner, scratch) = room.precondition(&net, map, kernel);
    let sides = shape.sides().to_vec();
    let axes: Vec<usize> = (0..sides.len()).filter(|&axis| shape.is_preconditioned(axis)).collect();
    let identity = |n: usize, x: f64| -> Vec<f64> {
        (0..n * n).map(|at| if at / n == at % n { x } else { 0.0 }).collect()
    };
    let (epsilon, beta) = (0.25, 0.75_f64);
    let begins_at = match map.accumulation {
        Accumulation::Sum { .. } | Accumulation::AverageFromEpsilon { .. } => epsilon,
        _ => 0.0,
    };
    let mut moments: Vec<Vec<f64>> = sides.iter().map(|&n| identity(n, begins_at)).collect();
    for step in 1..=3 {
        let v = random::<T>(shape.entries(), 100 + step as u64);
        let mut want = widened(&v);
        let k = axes.len() as f64;
        for &axis in &axes {
            let n = sides[axis];
            let square = unfolded_square(&sides, axis, &widened(&v));
            let [keep, add] = match map.accumulation {
                Accumulation::Sum { .. } => [1.0, 1.0],
                _ => [beta, 1.0 - beta],
            };
            moments[axis].iter_mut().zip(square).for_each(|(l, x)| *l = keep * *l + add * x);
            let [scale, shift] = match map.accumulation {
                Accumulation::Average { .. } => [1.0, epsilon],
                Accumulation::CorrectedAverage { .. } => [1.0 / (1.0 - beta.powi(step)), epsilon],
                _ => [1.0, 0.0],
            };
            let m: Vec<f64> =
                moments[axis].iter().zip(identity(n, shift)).map(|(l, shift)| scale * l + shift).collect();
            let p = match map.root {
                RootOrder::TwiceTheAxes => 2.0 * k,
                RootOrder::Fixed(p) => f64::from(p),
            };
            want = mode_product(&sides, axis, &inverse_root(&m, n, p), &want);
        }
        let mut u = [v.clone()];
        let report = preconditioner.step(&mut u, scratch).unwrap();
        let what = format!("{:?}, {:?} on {shape:?}, step {step}", map.accumulation, map.root);
        close(&what, &u[0], &want);
        for &axis in &axes {
            close(&what, &moment(&preconditioner, 0, axis), &moments[axis]);
        }
        assert_eq!(report.refresh.units as usize, axes.len());
        let inner: f64 = widened(&u[0]).iter().zip(widened(&v)).map(|(u, v)| u * v).sum();
        let squares: f64 = widened(&v).iter().map(|v| v * v).sum();
        let preconditioned = report.preconditioned.unwrap();
        close(&what, &[preconditioned.inner, preconditioned.gradient_squares.unwrap()], &[inner, squares]);
    }
    assert_eq!(preconditioner.tensor_report(0).unwrap().preconditioned_axes, axes.len());
    assert!(preconditioner.moment(0, sides.len()).is_none() && preconditioner.moment(1, 0).is_none());
}

#[test]
fn every_accumulation_and_root_equals_loops_over_the_indices_of_the_tensor() {
    on_every_kernel(&AgainstLoops);
}

/// Row-major, `(i, j)` of merged axes is row `i side_j + j`.
#[test]
fn merged_axes_keep_the_row_major_meaning_of_the_numbers() {
    let (merged, v) = (TensorShape::new([4, 3, 5]).merged(12), random::<f64>(60, 5));
    let net = [merged];
    let mut room = TensorRoom::new(&net, plain());
    let (mut preconditioner, scratch) = room.precondition(&net, plain(), Reproducible);
    preconditioner.observe(&[&v], scratch).unwrap();
    let l = moment(&preconditioner, 0, 0);
    for (i, j, p, q) in [(0, 0, 0, 0), (3, 2, 1, 0), (2, 1, 2, 2), (1, 2, 3, 1)] {
        let want: f64 = (0..5).map(|k| v[(i * 3 + j) * 5 + k] * v[(p * 3 + q) * 5 + k]).sum();
        let got = l[(i * 3 + j) * 12 + p * 3 + q];
        assert!((got - want).abs() <= 8.0 * f64::EPSILON * 5.0, "{got} is not {want}");
    }
}

/// Methods that stand for the grafted ones: weights after every step, by plain loops.
fn peer(grafting: Grafting<f64>, beta1: f64, gradients: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let len = gradients[0].len();
    let (mut m, mut s) = (vec![0.0; len], vec![0.0; len]);
    let step = |(t, g): (i32, &Vec<f64>)| {
        (0..len)
            .map(|i| {
                m[i] = beta1 * m[i] + (1.0 - beta1) * g[i];
                let first = m[i] / (1.0 - beta1.powi(t));
                match grafting {
                    Grafting::None | Grafting::Sgd => first,
                    Grafting::AdaGrad { epsilon } => {
                        s[i] += g[i] * g[i];
                        first / (s[i].sqrt() + epsilon)
                    }
                    Grafting::RmsProp { decay, epsilon } => {
                        s[i] = decay * s[i] + (1.0 - decay) * g[i] * g[i];
                        first / (s[i].sqrt() + epsilon)
                    }
                    Grafting::Adam { decay, epsilon } => {
                        s[i] = decay * s[i] + (1.0 - decay) * g[i] * g[i];
                        first / ((s[i] / (1.0 - decay.powi(t))).sqrt() + epsilon)
                    }
                }
            })
            .collect()
    };
    (1..).zip(gradients).map(step).collect()
}

fn graftings() -> [Grafting<f64>; 4] {
    let (decay, epsilon) = (0.875, 0.125);
    [
        Grafting::Sgd,
        Grafting::AdaGrad { epsilon },
        Grafting::RmsProp { decay, epsilon },
        Grafting::Adam { decay, epsilon },
    ]
}

fn narrowed<T: Scalar>(grafting: Grafting<f64>) -> Grafting<T> {
    let t = T::from_f64;
    match grafting {
        Grafting::None => Grafting::None,
        Grafting::Sgd => Grafting::Sgd,
        Grafting::AdaGrad { epsilon } => Grafting::AdaGrad { epsilon: t(epsilon) },
        Grafting::RmsProp { decay, epsilon } => Grafting::RmsProp { decay: t(decay), epsilon: t(epsilon) },
        Grafting::Adam { decay, epsilon } => Grafting::Adam { decay: t(decay), epsilon: t(epsilon) },
    }
}

/// T38.
struct NeverStarted;

impl Body for NeverStarted {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        let gradients: Vec<Vec<T>> = (0..6).map(|step| random(12, 380 + step)).collect();
        let wide: Vec<Vec<f64>> = gradients.iter().map(|g| widened(g)).collect();
        for (grafting, beta1) in graftings().into_iter().flat_map(|g| [(g, None), (g, Some(0.75))]) {
            let map = Shampoo {
                grafting: narrowed(grafting),
                beta1: beta1.map(T::from_f64),
                ..Shampoo::new(Accumulation::Sum { epsilon: T::ONE })
            };
            let waiting = Shampoo { warm_up: u32::MAX, ..map };
            let started = Shampoo { warm_up: 4, ..map };
            let shape = TensorShape::new([3, 4]);
            let want = peer(grafting, beta1.unwrap_or(0.0), &wide);
            let what = format!("{grafting:?}, {beta1:?}");
            let [never, alone, late] = [(waiting, shape), (map, shape.limited(0)), (started, shape)]
                .map(|(map, shape)| steps(kernel, map, shape, &gradients));
            for (step, want) in want.iter().enumerate() {
                close(&what, &never[step], want);
                close(&what, &alone[step], want);
                let differs =
                    late[step].iter().zip(want).any(|(u, d)| (u.to_f64() - d).abs() > 1e-3 * largest(want));
                assert_eq!(differs, step >= 4, "{what}: step {step} of a warm-up of 4");
            }
        }
    }
}

#[test]
fn with_preconditioning_never_started_a_grafted_shampoo_is_the_method_it_is_grafted_from() {
    on_every_kernel(&NeverStarted);
}

/// T38 for AdamW: the decay is a step of its own.
#[test]
fn adam_with_decoupled_decay_is_adamw() {
    let gradients: Vec<Vec<f64>> = (0..5).map(|step| random(6, 480 + step)).collect();
    let (decay, epsilon) = (0.875, 0.125);
    let map = Shampoo {
        grafting: Grafting::Adam { decay, epsilon },
        beta1: Some(0.75),
        ..Shampoo::new(Accumulation::Sum { epsilon: 1.0 })
    };
    let (rate, weight_decay) = (0.25, 0.5);
    let (mut w, mut want) = (vec![1.0, -2.0, 3.0, 0.5, 0.0, 7.0], vec![1.0, -2.0, 3.0, 0.5, 0.0, 7.0]);
    let directions = peer(map.grafting, 0.75, &gradients);
    for (u, d) in
        steps(Reproducible, map, TensorShape::new([6]).limited(0), &gradients).iter().zip(&directions)
    {
        w.iter_mut().zip(u).for_each(|(w, u)| *w -= rate * u);
        decay_weights(&mut w, rate, weight_decay);
        want.iter_mut().zip(d).for_each(|(w, d)| *w = (*w - rate * d) * (1.0 - rate * weight_decay));
        close("AdamW", &w, &want);
    }
}

/// The direction of Shampoo, the size of the other.
struct Grafted;

impl Body for Grafted {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        let shape = TensorShape::new([3, 2, 2]);
        let gradients: Vec<Vec<T>> = (0..4).map(|step| random(12, 580 + step)).collect();
        let wide: Vec<Vec<f64>> = gradients.iter().map(|g| widened(g)).collect();
        let plain = Shampoo::new(Accumulation::Sum { epsilon: T::from_f64(0.25) });
        let size = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let own = steps(kernel, plain, shape, &gradients);
        for grafting in graftings() {
            let map = Shampoo { grafting: narrowed(grafting), ..plain };
            let grafted = steps(kernel, map, shape, &gradients);
            for ((u, own), d) in grafted.iter().zip(&own).zip(peer(grafting, 0.0, &wide)) {
                let own = widened(own);
                let want: Vec<f64> = own.iter().map(|u| u * size(&d) / size(&own)).collect();
                close(&format!("{grafting:?}"), u, &want);
            }
        }
    }
}

#[test]
fn a_grafted_step_has_the_direction_of_shampoo_and_the_size_of_the_other() {
    on_every_kernel(&Grafted);
}

/// Gradients whose squares vanish or nearly overflow have a size all the same.
#[test]
fn grafting_has_no_range_of_its_own() {
    let sum = Shampoo::new(Accumulation::Sum { epsilon: 1.0_f32 });
    let map = Shampoo { grafting: Grafting::Sgd, below: Below::Drop, ..sum };
    for scale in [1e-30_f32, 1e-42, 1e18] {
        let v = [3.0, -4.0].map(|x: f32| x * scale).to_vec();
        // Of a vector the root has one eigenvalue along V, so that U has its direction.
        let u = steps(Reproducible, map, TensorShape::new([2]), std::slice::from_ref(&v)).remove(0);
        let allowed = 8.0 * f32::EPSILON * 5.0 * scale + f32::from_bits(2);
        let as_large = u.iter().zip(&v).all(|(u, v)| (u - v).abs() <= allowed);
        assert!(as_large, "{u:?} is not {v:?}");
    }
}

/// Without an epsilon, a gradient of rank one: what has never been seen is left out, or raised to the noise.
struct RankDeficient;

impl Body for RankDeficient {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        let (x, y) = ([2.0, -1.0, 2.0], [0.0, 3.0, 4.0, 0.0]);
        let v: Vec<f64> = x.iter().flat_map(|x| y.map(|y| x * y)).collect();
        let want: Vec<f64> = v.iter().map(|v| v / 15.0).collect();
        for below in [Below::Raise, Below::Drop] {
            let map = Shampoo { below, ..plain::<T>() };
            let u = steps(kernel, map, TensorShape::new([3, 4]), &[numbers(&v)]).remove(0);
            // Raised, the rounding errors of the eigenvectors, eps, grow by (n eps)^(-1/4) along each of two axes.
            let noise = T::EPSILON.to_f64().sqrt() * if below == Below::Raise { 1.0 } else { 0.0 };
            let errors = u.iter().zip(&want).map(|(u, want)| (u.to_f64() - want).abs());
            let allowed = noise + CLOSE * T::EPSILON.to_f64();
            assert!({ errors }.all(|error| error <= allowed), "V / (|x| |y|), {below:?}: {u:?}");

            let net = [TensorShape::new([2])];
            let mut room = TensorRoom::new(&net, map);
            let (mut preconditioner, scratch) = room.precondition(&net, map, kernel);
            preconditioner.observe(&[numbers::<T>(&[4.0, 0.0])], scratch).unwrap();
            preconditioner.refresh(scratch).unwrap();
            let mut u = [numbers::<T>(&[8.0, 1.0])];
            preconditioner.precondition(&mut u, scratch).unwrap();
            let unseen = match below {
                Below::Raise => 1.0 / (16.0 * 2.0 * T::EPSILON.to_f64()).sqrt(),
                Below::Drop => 0.0,
            };
            close("an unseen direction", &u[0][1..], &[unseen]);
            close("a seen one", &u[0][..1], &[2.0]);
        }
    }
}

#[test]
fn without_an_epsilon_unseen_directions_are_raised_to_the_noise_or_left_out() {
    on_every_kernel(&RankDeficient);
}

/// Turning an axis of every gradient turns `U` with it.
struct Turned;

impl Body for Turned {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        let sides = [3, 2, 2];
        let turn = [
            2.0 / 3.0,
            -1.0 / 3.0,
            2.0 / 3.0,
            2.0 / 3.0,
            2.0 / 3.0,
            -1.0 / 3.0,
            -1.0 / 3.0,
            2.0 / 3.0,
            2.0 / 3.0,
        ];
        let turned = |v: &Vec<T>| mode_product(&sides, 0, &turn, &widened(v));
        let gradients: Vec<Vec<T>> = (0..3).map(|step| random(12, 680 + step)).collect();
        let rotated: Vec<Vec<T>> = gradients.iter().map(|v| numbers(&turned(v))).collect();
        let map = Shampoo {
            grafting: Grafting::Sgd,
            ..Shampoo::new(Accumulation::Sum { epsilon: T::from_f64(0.125) })
        };
        let [u, of_rotated] = [gradients, rotated].map(|v| steps(kernel, map, TensorShape::new(sides), &v));
        for (u, got) in u.iter().zip(&of_rotated) {
            close("turned", got, &turned(u));
        }
    }
}

#[test]
fn turned_gradients_give_turned_steps() {
    on_every_kernel(&Turned);
}

/// Axes of sides 5, 4, 3, 2 over three steps: 5, 4, 3, and 2 back with 3; statistics at every other step.
#[test]
fn axes_are_dealt_over_the_steps_of_a_period_the_largest_first() {
    let net = [TensorShape::new([3, 5]), TensorShape::new([2, 4])];
    let mut room = TensorRoom::new(&net, plain::<f64>());
    let (preconditioner, scratch) = room.precondition(&net, plain(), Reproducible);
    let schedule = Schedule { statistics_every: 2, refresh_every: 3 };
    let mut preconditioner: TensorPreconditioner<'_, f64, Shampoo<f64, Qr>, _> =
        preconditioner.with_schedule(schedule).unwrap();
    let gradients = [random(15, 1), random(8, 2)];
    let mut units = vec![];
    for step in 0..6 {
        assert_eq!(preconditioner.wants_statistics(), step % 2 == 0);
        preconditioner.observe(&gradients, scratch).unwrap();
        units.push(preconditioner.refresh(scratch).unwrap().units);
        assert_eq!(preconditioner.tensor_report(0).unwrap().updates, step / 2 + 1);
        assert_eq!(preconditioner.is_ready(), step >= 2);
    }
    assert_eq!(units, [1, 1, 2, 1, 1, 2]);
    // Side 3 was due at the third step of six, side 5 at the fourth.
    let ages = [0, 1].map(|tensor| preconditioner.tensor_report(tensor).unwrap().age);
    assert_eq!(ages, [Some(2), Some(1)]);
}
