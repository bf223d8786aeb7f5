//! Grafting: the methods grafted from, by plain loops, and the size that Shampoo takes from them.

mod common;

use common::dense::largest;
use common::tensor::{Body, close, on_every_kernel, steps};
use common::{random, widened};
use kfac_core::linalg::eigh::roots::Below;
use kfac_core::linalg::{Kernel, Reproducible, Scalar};
use kfac_core::step::decay_weights;
use kfac_core::tensor::{Accumulation, Grafting, Shampoo, TensorShape};

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
