//! Golden vectors of the gradient-fed maps: Shampoo's roots in every convention of the file, SOAP's weights after every
//! call.

mod common;

use common::golden::{Array, Body, Case, list, on_every_kernel};
use common::tensor::{TensorRoom, indices, moment, place};
use kfac_core::linalg::eigh::Qr;
use kfac_core::linalg::{Kernel, Scalar};
use kfac_core::step::decay_weights;
use kfac_core::tensor::{
    Accumulation, BasisRefresh, GradientMap, Grafting, Shampoo, Soap, TensorPreconditioner, TensorShape,
};
use serde_json::Value;

#[test]
fn golden_shampoo_and_soap() {
    on_every_kernel("shampoo_soap", &ShampooAndSoap);
}

struct ShampooAndSoap;

impl Body for ShampooAndSoap {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        match case.family.as_str() {
            "shampoo" => shampoo::<T, K>(kernel, case),
            "soap" => soap::<T, K>(kernel, case),
            _ => case.unknown_family(),
        }
        case.assert_compared::<T>();
    }
}

fn gradients<T: Scalar>(case: &Case) -> Vec<Vec<T>> {
    list(&case.inputs["gradients"]).iter().map(|g| Array::read(g).unwrap().data).collect()
}

fn shampoo<T: Scalar, K: Kernel<T>>(kernel: K, case: &Case) {
    let sides: Vec<usize> = case.input::<f64>("shape").data.iter().map(|&side| side as usize).collect();
    let net = [TensorShape::from_sides(&sides).unwrap()];
    let map = Shampoo { grafting: grafting(case), ..Shampoo::new(accumulation(case)) };
    let mut room = TensorRoom::new(&net, map);
    let (mut preconditioner, scratch) = room.precondition(&net, map, kernel);
    for (step, v) in gradients(case).into_iter().enumerate() {
        let mut u = [v];
        preconditioner.step(&mut u, scratch).unwrap();
        case.compare("u_per_step", &case.expected["u_per_step"][step], &u[0]);
    }
    compare_moments(case, "accumulators_after_last_step", &preconditioner);
}

fn accumulation<T: Scalar>(case: &Case) -> Accumulation<T> {
    let epsilon = T::from_f64(case.number("epsilon"));
    let decay = case.inputs["beta"].as_f64().map(T::from_f64);
    let corrected = case.inputs["bias_correction"].as_bool();
    match (decay, case.inputs["epsilon_placement"].as_str(), corrected) {
        (None, Some("initial"), Some(false)) => Accumulation::Sum { epsilon },
        (Some(decay), Some("initial"), Some(false)) => Accumulation::AverageFromEpsilon { decay, epsilon },
        (Some(decay), Some("at_root"), Some(false)) => Accumulation::Average { decay, epsilon },
        (Some(decay), Some("at_root"), Some(true)) => Accumulation::CorrectedAverage { decay, epsilon },
        other => panic!("{}: no accumulation {other:?}", case.label),
    }
}

fn grafting<T: Scalar>(case: &Case) -> Grafting<T> {
    let graft = &case.inputs["graft"];
    let number = |key: &str| T::from_f64(graft[key].as_f64().unwrap());
    match graft["kind"].as_str() {
        None if graft.is_null() => Grafting::None,
        Some("sgd") => Grafting::Sgd,
        Some("adam_second_moment") => Grafting::Adam { decay: number("beta2"), epsilon: number("epsilon") },
        other => panic!("{}: no grafting {other:?}", case.label),
    }
}

fn compare_moments<T: Scalar, M: GradientMap<T>, K: Kernel<T>>(
    case: &Case,
    quantity: &str,
    preconditioner: &TensorPreconditioner<'_, T, M, K>,
) {
    for (axis, want) in list(&case.expected[quantity]).iter().enumerate() {
        case.compare(quantity, want, &moment(preconditioner, 0, axis));
    }
}

fn soap<T: Scalar, K: Kernel<T>>(kernel: K, case: &Case) {
    let w = case.input::<T>("w");
    let number = |key: &str| T::from_f64(case.number(key));
    let map = Soap {
        beta1: Some(number("beta1")),
        beta2: number("beta2"),
        shampoo_beta: number("shampoo_beta"),
        epsilon: number("epsilon"),
        refresh: BasisRefresh::SubspaceStep,
        solver: Qr,
    };
    let shape = TensorShape::from_sides(&w.shape).unwrap();
    let is_identity = case.inputs["identity_basis"].as_bool().unwrap();
    let net = [if is_identity { shape.limited(0) } else { shape }];
    let mut room = TensorRoom::new(&net, map);
    let (mut soap, scratch) = room.precondition(&net, map, kernel);
    let mut w = w.data;
    let (rate, decay) = (number("lr"), number("weight_decay"));
    let frequency = case.count("precondition_frequency");
    let gradients = gradients::<T>(case);
    for (call, g) in gradients.iter().enumerate() {
        let mut u = [g.clone()];
        soap.observe(&u, scratch).unwrap();
        if call > 0 {
            soap.precondition(&mut u, scratch).unwrap();
            w.iter_mut().zip(&u[0]).for_each(|(w, &u)| *w -= rate * u);
            decay_weights(&mut w, rate, decay);
        }
        // All axes at once: the schedule of this library would deal them over the steps.
        if call % frequency == 0 {
            soap.refresh_all(scratch).unwrap();
        }
        case.compare("w_after_call", &case.expected["w_after_call"][call], &w);
    }
    case.expect("momentum_original_space", soap.first_moment(0).unwrap());
    let second = soap.second_moment(0).unwrap();
    if is_identity {
        case.expect("second_moment_in_basis", second);
        // Nothing is kept of axes that are left alone; what would be does not depend on the basis.
        let net = [shape];
        let mut room = TensorRoom::new(&net, map);
        let (mut soap, scratch) = room.precondition(&net, map, kernel);
        gradients.iter().for_each(|g| soap.observe(&[g], scratch).unwrap());
        compare_moments(case, "accumulators", &soap);
    } else {
        case.expect("second_moment_in_basis", &reversed(&case.expected["second_moment_in_basis"], second));
        compare_moments(case, "accumulators", &soap);
    }
}

/// Eigenvalues descend in the file: every axis backwards.
fn reversed<T: Scalar>(like: &Value, numbers: &[T]) -> Vec<T> {
    let sides = Array::<f64>::read(like).unwrap().shape;
    let backwards = |at: usize| {
        let index: Vec<usize> =
            indices(&sides, at).iter().zip(&sides).map(|(&index, &side)| side - 1 - index).collect();
        numbers[place(&sides, &index)]
    };
    (0..numbers.len()).map(backwards).collect()
}
