//! Shampoo: identities, dense loops, grafting, and what is left alone.

mod common;

use common::tensor::{
    Body, CLOSE, TensorRoom, close, mode_product, moment, numbers, on_every_kernel, steps, unfolded_square,
};
use common::{random, widened};
use kfac_core::linalg::eigh::jacobi::{self, Budget};
use kfac_core::linalg::eigh::roots::Below;
use kfac_core::linalg::eigh::{Eigensolver, Jacobi, Qr};
use kfac_core::linalg::{Kernel, MatMut, MatRef, Reproducible, Scalar};
use kfac_core::schedule::Schedule;
use kfac_core::tensor::{Accumulation, Grafting, RootOrder, Shampoo, TensorPreconditioner, TensorShape};

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
