//! The doctor's view of a layer, on spectra that are known.

mod common;

use common::{Room, random};
use kfac_core::doctor::{Diagnosis, Spectrum, diagnose_scratch_len};
use kfac_core::evidence::{Moments, OutputGradients, Rows};
use kfac_core::linalg::{Fast, Kernel, MatRef, Reproducible, Scalar};
use kfac_core::map::{Eigenbasis, Factored, MomentMap};
use kfac_core::{LayerErrorKind, LayerShape, Preconditioner};

const NET: [LayerShape; 2] = [LayerShape::dense(2, 2), LayerShape::dense(4, 3).without_bias()];

/// `H diag(d) H` with a reflection `H = I - 2 u uᵀ / uᵀu`.
fn rotated<T: Scalar>(d: &[f64]) -> Vec<T> {
    let n = d.len();
    let u: Vec<f64> = (0..n).map(|i| 1.0 + i as f64).collect();
    let norm: f64 = u.iter().map(|x| x * x).sum();
    let h = |i: usize, j: usize| f64::from(u8::from(i == j)) - 2.0 * u[i] * u[j] / norm;
    let element = |at: usize| (0..n).map(|k| h(at / n, k) * d[k] * h(k, at % n)).sum();
    (0..n * n).map(|at| T::from_f64(element(at))).collect()
}

fn diagnosis<T: Scalar, M: MomentMap<T>, K: Kernel<T>>(
    map: M,
    kernel: K,
    a: &[f64; 4],
    g: &[f64; 3],
    damping: f64,
) -> Diagnosis {
    let mut room = Room::<T>::new::<M, K>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, map, kernel);
    let (a, g) = (rotated::<T>(a), rotated::<T>(g));
    let a = MatRef::row_major(&a, 4, 4).unwrap();
    let g = MatRef::row_major(&g, 3, 3).unwrap();
    kfac.observe(5).add_moments(1, Moments { a, g, positions: T::ONE }, scratch).unwrap();
    kfac.set_damping(T::from_f64(damping)).unwrap();
    let mut scratch = vec![T::from_f64(f64::NAN); diagnose_scratch_len::<T, M>(&NET)];
    kfac.diagnose(1, &mut scratch).unwrap()
}

fn is_close(got: f64, want: f64, eps: f64) -> bool {
    (got - want).abs() <= 100.0 * eps * want.abs()
}

fn checked<T: Scalar, M: MomentMap<T>, K: Kernel<T>>(map: M, kernel: K) {
    // Products of [1, 2, 4, 8] and [0.5, 1, 3]: 0.5 1 1 2 2 3 4 4 6 8 12 24.
    let eps = T::EPSILON.to_f64();
    for (damping, below) in [(0.4, 0.0), (0.75, 1.0), (1.5, 3.0), (3.5, 6.0), (23.9, 11.0), (24.1, 12.0)] {
        let found = diagnosis::<T, M, K>(map, kernel, &[2.0, 8.0, 1.0, 4.0], &[3.0, 0.5, 1.0], damping);
        assert_eq!(found.below_damping, Some(below / 12.0), "{damping}");
        let [a, g] = [found.input.unwrap(), found.output.unwrap()];
        for (spectrum, want) in [(a, [1.0, 8.0, 225.0 / 85.0]), (g, [0.5, 3.0, 20.25 / 10.25])] {
            let Spectrum { smallest, largest, effective_rank } = spectrum;
            for (got, want) in [smallest, largest, effective_rank].into_iter().zip(want) {
                assert!(is_close(got, want, eps), "{got:e} is not {want:e}");
            }
        }
        assert!(is_close(a.condition(), 8.0, eps) && is_close(g.condition(), 6.0, eps));
        assert!((found.damping - damping).abs() <= eps * damping);
        assert_eq!((found.layer, found.report.updates, found.report.age), (1, 1, None));
    }
}

#[test]
fn spectra_and_the_share_below_the_damping_are_those_of_the_factors() {
    checked::<f64, _, _>(Factored, Reproducible);
    checked::<f32, _, _>(Factored, Fast::detect());
    checked::<f64, _, _>(Eigenbasis::full(), Fast::detect());
}

#[test]
fn a_singular_factor_has_an_infinite_condition_and_a_zero_one_no_rank() {
    let singular = diagnosis::<f64, _, _>(Factored, Reproducible, &[1.0, 0.0, 0.0, 0.0], &[0.0; 3], 0.1);
    let (a, g) = (singular.input.unwrap(), singular.output.unwrap());
    assert!(is_close(a.effective_rank, 1.0, f64::EPSILON));
    assert_eq!((g.condition(), g.effective_rank, g.largest), (f64::INFINITY, 0.0, 0.0));
    assert_eq!(singular.below_damping, Some(1.0));
    let text = singular.to_string();
    assert!(text.starts_with("layer 1, 3 x 4: 1 updates, no inverse; A from "), "{text}");
    assert!(text.contains("effective rank 1.0 of 4; G from 0.0e0 to 0.0e0, condition inf"), "{text}");
    assert!(text.ends_with("100 % of the eigenvalues below the damping 1.0e-1"), "{text}");
}

#[test]
fn what_it_cannot_see_is_refused_and_looking_changes_nothing() {
    let mut room = Room::<f64>::new::<Eigenbasis, Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Eigenbasis::full(), Reproducible);
    let mut space = vec![0.0; diagnose_scratch_len::<f64, Eigenbasis>(&NET)];
    assert_eq!(kfac.diagnose(2, &mut space).unwrap_err().kind, LayerErrorKind::NoSuchLayer { layers: 2 });
    assert_eq!(kfac.diagnose(1, &mut space).unwrap_err().kind, LayerErrorKind::NoStatistics);
    let (x, g) = (random(6 * 4, 1), random(6 * 3, 2));
    let [x, g] = [(&x, 4), (&g, 3)].map(|(x, width)| MatRef::row_major(x, 6, width).unwrap());
    kfac.observe(6).add(1, &Rows(x), OutputGradients::per_case(g), scratch).unwrap();
    let before = common::saved(&kfac);
    let needed = diagnose_scratch_len::<f64, Eigenbasis>(&NET[1..]);
    assert!(kfac.diagnose(1, &mut space[..needed]).is_ok());
    let error = kfac.diagnose(1, &mut space[..needed - 1]).unwrap_err();
    assert!(matches!(error.kind, LayerErrorKind::Scratch(_)), "{error}");
    assert_eq!(common::saved(&kfac), before);
    let _: &Preconditioner<'_, _, _, _> = &kfac;
}
