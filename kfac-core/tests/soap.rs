//! SOAP: Adam where the basis does not turn, equivariance where it does, and which second moment belongs to which column.

mod common;

use common::tensor::{Body, TensorRoom, close, mode_product, on_every_kernel};
use common::{bits, random, widened};
use kfac_core::linalg::eigh::{Eigensolver, Jacobi, Qr};
use kfac_core::linalg::{Kernel, Reproducible, Scalar};
use kfac_core::tensor::{BasisRefresh, GradientMap, Soap, TensorShape};

const REFRESHES: [BasisRefresh; 2] = [BasisRefresh::SubspaceStep, BasisRefresh::Decomposition];
const BETA_1: f64 = 0.75;
const BETA_2: f64 = 0.875;
const EPSILON: f64 = 0.0625;

fn soap<T: Scalar>(refresh: BasisRefresh, beta1: Option<f64>) -> Soap<T> {
    let t = T::from_f64;
    let beta1 = beta1.map(t);
    Soap { beta1, beta2: t(BETA_2), shampoo_beta: t(0.5), epsilon: t(EPSILON), refresh, solver: Qr }
}

/// `U` of every step; the first is zero.
fn steps<T: Scalar, M: GradientMap<T>, K: Kernel<T>>(
    kernel: K,
    map: M,
    shape: TensorShape,
    gradients: &[Vec<T>],
) -> Vec<Vec<T>> {
    let net = [shape];
    let mut room = TensorRoom::new(&net, map);
    let (mut preconditioner, scratch) = room.precondition(&net, map, kernel);
    let step = |(call, v): (usize, &Vec<T>)| {
        let mut u = [v.clone()];
        let report = preconditioner.step(&mut u, scratch).unwrap();
        assert_eq!(report.preconditioned.is_none(), call == 0);
        assert_eq!(report.refresh.units as usize, shape.preconditioned_axes());
        let [u] = u;
        u
    };
    gradients.iter().enumerate().map(step).collect()
}

/// Adam that skips the first gradient, its epsilon before the bias corrections.
fn adam(beta1: f64, gradients: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let len = gradients[0].len();
    let (mut m, mut s) = (vec![0.0; len], vec![0.0; len]);
    let step = |(t, g): (i32, &Vec<f64>)| {
        let number = |i: usize| {
            if t == 0 {
                return 0.0;
            }
            m[i] = beta1 * m[i] + (1.0 - beta1) * g[i];
            s[i] = BETA_2 * s[i] + (1.0 - BETA_2) * g[i] * g[i];
            let correction = (1.0 - BETA_2.powi(t)).sqrt() / (1.0 - beta1.powi(t));
            correction * m[i] / (s[i].sqrt() + EPSILON)
        };
        (0..len).map(number).collect()
    };
    (0..).zip(gradients).map(step).collect()
}

/// T38.
struct IdentityBasis;

impl Body for IdentityBasis {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        let gradients: Vec<Vec<T>> = (0..6).map(|step| random(12, 38 + step)).collect();
        let wide: Vec<Vec<f64>> = gradients.iter().map(|g| widened(g)).collect();
        for beta1 in [None, Some(BETA_1)] {
            let want = adam(beta1.unwrap_or(0.0), &wide);
            for shape in [TensorShape::new([3, 4]).limited(2), TensorShape::new([12]).limited(0)] {
                let got = steps(kernel, soap(BasisRefresh::SubspaceStep, beta1), shape, &gradients);
                for (got, want) in got.iter().zip(&want) {
                    close(&format!("{beta1:?} {shape:?}"), got, want);
                }
            }
        }
        // The first number of each.
        let first: Vec<Vec<T>> = gradients.iter().map(|g| vec![g[0]]).collect();
        let want = adam(0.0, &first.iter().map(|g| widened(g)).collect::<Vec<_>>());
        let got = steps(kernel, soap(REFRESHES[0], None), TensorShape::new([]), &first);
        got.iter().zip(&want).for_each(|(got, want)| close("a scalar", got, want));
    }
}

#[test]
fn with_the_identity_as_its_basis_it_is_adam_that_skips_the_first_gradient() {
    on_every_kernel(&IdentityBasis);
}

/// Gradients of one entry of a matrix each: every second moment is diagonal, so that the bases are columns of the identity
/// in the order of eigenvalues, which changes all the time. Whatever it is, this is Adam.
struct Reordered;

impl Body for Reordered {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        let sides = [3, 4];
        // Diagonal and full at first, then one entry at a time, and larger every time.
        let mut gradients = vec![vec![0.0; 12]];
        (0..3).for_each(|i| gradients[0][i * 4 + i] = 1.0 + i as f64);
        for step in 0..14 {
            let mut g = vec![0.0; 12];
            let (i, j) = (step * 2 % 3, step * 3 % 4);
            g[i * 4 + j] = 0.5 + 0.25 * step as f64;
            gradients.push(g);
        }
        let want = adam(BETA_1, &gradients);
        let gradients: Vec<Vec<T>> =
            gradients.iter().map(|g| g.iter().map(|&x| T::from_f64(x)).collect()).collect();
        for refresh in REFRESHES {
            let got = steps(kernel, soap(refresh, Some(BETA_1)), TensorShape::new(sides), &gradients);
            for (step, (got, want)) in got.iter().zip(&want).enumerate() {
                close(&format!("{refresh:?}, step {step}"), got, want);
            }
        }
    }
}

#[test]
fn the_second_moment_stays_with_its_column_when_eigenvalues_change_their_order() {
    on_every_kernel(&Reordered);
}

/// Turning an axis of every gradient turns `U` with it: the second moment is the same in both bases.
struct Turned;

impl Body for Turned {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        let sides = [3, 2, 3];
        let turn = [2.0, -1.0, 2.0, 2.0, 2.0, -1.0, -1.0, 2.0, 2.0].map(|x: f64| x / 3.0);
        let turned = |v: &[T]| mode_product(&sides, 2, &turn, &mode_product(&sides, 0, &turn, &widened(v)));
        let gradients: Vec<Vec<T>> = (0..5).map(|step| random(18, 780 + step)).collect();
        let rotated: Vec<Vec<T>> =
            gradients.iter().map(|v| turned(v).into_iter().map(T::from_f64).collect()).collect();
        for refresh in REFRESHES {
            let map = soap(refresh, Some(BETA_1));
            let [u, got] = [&gradients, &rotated].map(|v| steps(kernel, map, TensorShape::new(sides), v));
            for (step, (u, got)) in u.iter().zip(&got).enumerate() {
                close(&format!("{refresh:?}, step {step}"), got, &turned(u));
            }
        }
    }
}

#[test]
fn turned_gradients_give_turned_steps() {
    on_every_kernel(&Turned);
}

/// The verbs in the order of `step`, by hand.
#[test]
fn a_step_is_observe_precondition_refresh_and_the_first_only_makes_the_bases() {
    fn check<S: Eigensolver>(map: Soap<f64, S>) {
        let net = [TensorShape::new([3, 4]), TensorShape::new([5])];
        let (mut room, mut by_hand) = (TensorRoom::new(&net, map), TensorRoom::new(&net, map));
        let (mut whole, scratch) = room.precondition(&net, map, Reproducible);
        let (mut parts, hand_scratch) = by_hand.precondition(&net, map, Reproducible);
        for step in 0..4 {
            let gradients = [random(12, 880 + step), random(5, 980 + step)];
            let (mut u, mut v) = (gradients.clone(), gradients);
            whole.step(&mut u, scratch).unwrap();
            parts.observe(&v, hand_scratch).unwrap();
            if step == 0 {
                assert!(u.iter().flatten().all(|&u| u == 0.0));
                assert!(whole.first_moment(0).unwrap().iter().all(|&m| m == 0.0));
                assert!(whole.second_moment(1).unwrap().iter().all(|&s| s == 0.0));
                parts.refresh_all(hand_scratch).unwrap();
            } else {
                parts.precondition(&mut v, hand_scratch).unwrap();
                parts.refresh(hand_scratch).unwrap();
                assert_eq!(u.map(|u| bits(&u)), v.map(|v| bits(&v)), "step {step}");
            }
            assert_eq!(common::tensor::saved(&whole), common::tensor::saved(&parts));
        }
    }
    let Soap { beta1, beta2, shampoo_beta, epsilon, refresh, .. } = Soap::published();
    check(Soap::published());
    check(Soap { beta1, beta2, shampoo_beta, epsilon, refresh, solver: Jacobi::default() });
}

/// `ε` between the roots of the second moment and the bias correction, all axes of one number.
#[test]
fn the_first_update_of_one_number_can_be_worked_out_by_hand() {
    for sides in [vec![], vec![1], vec![1, 1]] {
        let shape = TensorShape::from_sides(&sides).unwrap();
        let u = steps(Reproducible, soap::<f64>(REFRESHES[0], Some(BETA_1)), shape, &[vec![7.0], vec![-2.0]]);
        // m' = -2, √s = 2 √(1/8), √(1 - β2) = √(1/8).
        let eighth = 0.125_f64.sqrt();
        close("one number", &u[1], &[eighth * -2.0 / (2.0 * eighth + EPSILON)]);
    }
}
