//! Golden vectors of the recursion for `G`: its factors, and those of the exact Fisher, from a network and a batch.

mod common;

use common::golden::{Body, Case, list, on_every_kernel};
use common::net::{DenseNet, Loss, LossTerms, Model, layers};
use common::recursion::{distance, kflr_factors, kfra_factors};
use kfac_core::linalg::{Kernel, Scalar};

#[test]
fn golden_output_factors_by_recursion_and_of_the_exact_fisher() {
    on_every_kernel("kfra", &Recursion);
}

struct Recursion;

impl Body for Recursion {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        if case.family != "kfra" {
            case.unknown_family();
        }
        let loss = Loss::<T>::of(case);
        let net = DenseNet::new(layers(&case.inputs["layers"]), LossTerms::PerPosition, &case.input("x"));
        let outputs: Vec<T> = (0..net.cases()).flat_map(|case| net.outputs(case).to_vec()).collect();
        case.expect("outputs", &outputs);

        let (kfra, kflr) = (kfra_factors(kernel, &net, loss), kflr_factors(kernel, &net, loss));
        let mut largest = 0.0_f64;
        for (layer, want) in list(&case.expected["layers"]).iter().enumerate() {
            let ([a, g_kfra], [a_of_rows, g_kflr]) = (&kfra[layer], &kflr[layer]);
            case.compare_matrix("a", &want["a"], a);
            case.compare_matrix("a", &want["a"], a_of_rows);
            case.compare_matrix("g_kfra", &want["g_kfra"], g_kfra);
            case.compare_matrix("g_kflr", &want["g_kflr"], g_kflr);
            let (apart, between) = (distance(g_kfra, g_kflr), "kfra_minus_kflr_relative_frobenius");
            largest = largest.max(apart);
            // How far apart they are is known to 1e-10, which only double precision resolves.
            if T::BYTES == f64::BYTES {
                case.compare(between, &want[between], &[apart]);
            }
        }
        if T::BYTES == f64::BYTES {
            let equal = Some(largest <= 1e-10);
            assert_eq!(equal, case.expected["kfra_equals_kflr"].as_bool(), "{}: {largest:e}", case.label);
        }
        case.assert_compared::<T>();
    }
}
