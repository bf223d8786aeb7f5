//! `Ekfac`: its second moments against loops over the cases, their average, their reset.

mod common;

use common::dense::{Matrix, assert_close};
use common::{Room, factor, random};
use kfac_core::evidence::{OutputGradients, Rows, Sequence};
use kfac_core::linalg::eigh::{Eigensolver, Qr};
use kfac_core::linalg::{Fast, Kernel, MatMut, MatRef, Reproducible, eigh};
use kfac_core::map::{Eigenbasis, Ekfac, FactorMap, MapError};
use kfac_core::schedule::Schedule;
use kfac_core::shape::Side;
use kfac_core::{LayerErrorKind, LayerShape, Preconditioner};

const SHAPE: LayerShape = LayerShape::dense(4, 3);
const NET: [LayerShape; 1] = [SHAPE];
const LAMBDA: f64 = 0.03;

/// Rows `ā` and `g` of the positions of a case.
type Case = Vec<(Vec<f64>, Vec<f64>)>;

/// A batch of sequences, padded with numbers that must not count.
struct Batch {
    steps: usize,
    lengths: Vec<usize>,
    inputs: Vec<f64>,
    gradients: Vec<f64>,
}

impl Batch {
    fn new(lengths: &[usize], seed: u64) -> Self {
        let steps = *lengths.iter().max().unwrap();
        let rows = lengths.len() * steps;
        let (inputs, gradients) = (random(4 * rows, seed), random(3 * rows, seed + 1));
        Self { steps, lengths: lengths.to_vec(), inputs, gradients }
    }

    fn cases(&self) -> Vec<Case> {
        let row = |row: usize| {
            let a = self.inputs[4 * row..][..4].iter().copied().chain([1.0]).collect();
            (a, self.gradients[3 * row..][..3].to_vec())
        };
        let case =
            |(case, &length): (usize, &usize)| (0..length).map(|t| row(case * self.steps + t)).collect();
        self.lengths.iter().enumerate().map(case).collect()
    }

    /// In parts of so many cases.
    fn observe<M: FactorMap<f64>, K: Kernel<f64>>(
        &self,
        kfac: &mut Preconditioner<'_, f64, M, K>,
        parts: &[usize],
        scratch: &mut [f64],
    ) {
        let mut observation = kfac.observe(self.lengths.len());
        let mut first = 0;
        for &part in parts {
            let rows = part * self.steps;
            let [a, g] = [(&self.inputs, 4), (&self.gradients, 3)].map(|(x, width)| {
                MatRef::row_major(&x[first * self.steps * width..][..rows * width], rows, width).unwrap()
            });
            let a = Sequence::with_lengths(a, self.steps, &self.lengths[first..][..part]).unwrap();
            observation.add(0, &a, OutputGradients::per_case(g), scratch).unwrap();
            first += part;
        }
        assert_eq!(first, self.lengths.len());
    }
}

/// The bases of the factors as they stand.
struct Bases {
    qa: Matrix,
    qg: Matrix,
    /// `d_G d_Aᵀ`.
    products: Matrix,
}

impl Bases {
    fn of<M: FactorMap<f64>, K: Kernel<f64>>(kfac: &Preconditioner<'_, f64, M, K>) -> Self {
        let [(qa, da), (qg, dg)] = Side::BOTH.map(|side| decompose(&factor(kfac, 0, side)));
        Self { products: Matrix::from_fn(dg.len(), da.len(), |i, j| dg[i] * da[j]), qa, qg }
    }

    /// `E[(Q_Gᵀ (Σ g āᵀ) Q_A)²]`.
    fn second_moment(&self, cases: &[Case]) -> Matrix {
        let (m, n) = (self.qg.rows, self.qa.rows);
        let mut moment = Matrix::zeros(m, n);
        for case in cases {
            let mut gradient = Matrix::zeros(m, n);
            for (a, g) in case {
                gradient.add_outer(1.0, g, a);
            }
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let terms = (0..m).flat_map(|p| (0..n).map(move |q| (p, q)));
                let rotated: f64 =
                    terms.map(|(p, q)| self.qg.at(p, i) * gradient.at(p, q) * self.qa.at(q, j)).sum();
                *moment.at_mut(i, j) += rotated * rotated / cases.len() as f64;
            }
        }
        moment
    }

    /// `(Σ_ij (s_ij + λ) vec(q_i q_jᵀ) vec(q_i q_jᵀ)ᵀ)⁻¹ vec(V)`, as a dense system.
    fn precondition(&self, s: &Matrix, v: &[f64]) -> Vec<f64> {
        let (m, n) = (self.qg.rows, self.qa.rows);
        let mut block = Matrix::zeros(m * n, m * n);
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let vector: Vec<f64> =
                (0..n).flat_map(|q| (0..m).map(move |p| self.qg.at(p, i) * self.qa.at(q, j))).collect();
            block.add_outer(s.at(i, j) + LAMBDA, &vector, &vector);
        }
        let v = Matrix::new(m, n, v.to_vec());
        Matrix::from_column_stacked(m, &block.solve(&v.column_stacked())).data
    }
}

fn decompose(factor: &Matrix) -> (Matrix, Vec<f64>) {
    let n = factor.rows;
    let (mut q, mut d) = (vec![0.0; n * n], vec![0.0; n]);
    let scratch = &mut vec![0.0; Qr::METHOD.scratch_len::<f64>(n)];
    let a = MatRef::row_major(&factor.data, n, n).unwrap();
    eigh::qr::cold(Reproducible, a, MatMut::row_major(&mut q, n, n).unwrap(), &mut d, scratch).unwrap();
    (Matrix::new(n, n, q), d)
}

fn mix(epsilon: f64, old: &Matrix, new: &Matrix) -> Matrix {
    Matrix::from_fn(old.rows, old.cols, |i, j| epsilon * old.at(i, j) + (1.0 - epsilon) * new.at(i, j))
}

fn precondition<M: FactorMap<f64>, K: Kernel<f64>>(
    kfac: &mut Preconditioner<'_, f64, M, K>,
    scratch: &mut [f64],
) -> Vec<f64> {
    let mut u = random(15, 90);
    kfac.precondition_flat(&mut u, scratch).unwrap();
    u
}

/// Sevens sequences of unequal length, one of them longer than a panel of rows, and 150 cases of one position: whole, in
/// halves, one by one. The value of the basis is the old one of the average.
fn averages<K: Kernel<f64>>(kernel: K) {
    let sequences = [5, 1, 3, 40, 2, 4, 5];
    for (lengths, parts) in
        [(&sequences[..], [&[7][..], &[2, 5], &[1; 7]]), (&[1; 150], [&[150], &[20, 130], &[1; 150]])]
    {
        for parts in parts {
            let mut room = Room::new::<Ekfac, K>(&NET);
            let (kfac, scratch) = room.precondition(&NET, Ekfac::full(), kernel);
            let mut kfac = kfac.with_decay(0.6).unwrap();
            kfac.set_damping(LAMBDA).unwrap();
            let [first, second, third] = [10, 20, 30].map(|seed| Batch::new(lengths, seed));
            first.observe(&mut kfac, parts, scratch);
            kfac.refresh(scratch).unwrap();
            let bases = Bases::of(&kfac);
            let v = random(15, 90);
            let what = format!("{} cases in {} parts", lengths.len(), parts.len());
            let check = |kfac: &mut Preconditioner<'_, f64, Ekfac, K>, s: &Matrix, scratch: &mut [f64]| {
                assert_close(&what, &precondition(kfac, scratch), &bases.precondition(s, &v), 1e-11);
            };
            check(&mut kfac, &bases.products, scratch);
            // The second and third updates: ε = min(1 - 1/k, 0.6).
            second.observe(&mut kfac, parts, scratch);
            let s = mix(0.5, &bases.products, &bases.second_moment(&second.cases()));
            check(&mut kfac, &s, scratch);
            third.observe(&mut kfac, parts, scratch);
            check(&mut kfac, &mix(0.6, &s, &bases.second_moment(&third.cases())), scratch);
        }
    }
}

#[test]
fn second_moments_are_means_over_cases_and_go_on_from_the_value_of_the_basis() {
    averages(Reproducible);
    averages(Fast::detect());
}

#[test]
fn second_moments_are_reset_when_both_sides_have_been_renewed_and_not_before() {
    let mut room = Room::<f64>::new::<Ekfac, Reproducible>(&NET);
    let (kfac, scratch) = room.precondition(&NET, Ekfac::full(), Reproducible);
    let mut kfac = kfac.with_schedule(Schedule { statistics_every: 1, refresh_every: 2 }).unwrap();
    kfac.set_damping(LAMBDA).unwrap();
    let (batch, v) = (Batch::new(&[3, 2, 4, 1, 4], 10), random(15, 90));
    batch.observe(&mut kfac, &[5], scratch);
    kfac.refresh_all(scratch).unwrap();
    let bases = Bases::of(&kfac);
    batch.observe(&mut kfac, &[5], scratch);
    let s = mix(0.5, &bases.products, &bases.second_moment(&batch.cases()));
    let is = |kfac: &mut Preconditioner<'_, f64, Ekfac, Reproducible>, s: &Matrix, scratch: &mut [f64]| {
        let (u, want) = (precondition(kfac, scratch), bases.precondition(s, &v));
        common::dense::relative_difference(&u, &want) < 1e-11
    };
    // The factors are what they were, and with them the bases: only a reset can be seen.
    let mut reset = Vec::new();
    for _ in 0..4 {
        assert!(is(&mut kfac, &s, scratch) != is(&mut kfac, &bases.products, scratch));
        kfac.refresh(scratch).unwrap();
        reset.push(is(&mut kfac, &bases.products, scratch));
    }
    assert_eq!(reset, [false, true, true, true]);
}

/// With second moments of its own it is another map than `Eigenbasis`.
#[test]
fn a_second_update_sets_it_apart_from_the_eigenbasis_by_more_than_a_hundredth() {
    fn u<M: FactorMap<f64>>(map: M) -> Vec<f64> {
        let mut room = Room::new::<M, Reproducible>(&NET);
        let (mut kfac, scratch) = room.precondition(&NET, map, Reproducible);
        kfac.set_damping(LAMBDA).unwrap();
        let batch = Batch::new(&[3, 2, 4, 1, 4], 10);
        batch.observe(&mut kfac, &[5], scratch);
        kfac.refresh(scratch).unwrap();
        batch.observe(&mut kfac, &[5], scratch);
        precondition(&mut kfac, scratch)
    }
    let (ekfac, kfac) = (u(Ekfac::full()), u(Eigenbasis::full()));
    assert!(common::dense::relative_difference(&ekfac, &kfac) > 0.01);
}

/// The block that a map stands for, from what it does to every unit matrix: the inverse of that, less the damping.
fn block<M: FactorMap<f64>>(map: M, batch: &Batch) -> Matrix {
    let mut room = Room::new::<M, Reproducible>(&NET);
    let (kfac, scratch) = room.precondition(&NET, map, Reproducible);
    let mut kfac = kfac.with_decay(0.0).unwrap();
    kfac.set_damping(LAMBDA).unwrap();
    for _ in 0..2 {
        batch.observe(&mut kfac, &[batch.lengths.len()], scratch);
        if !kfac.is_ready() {
            kfac.refresh(scratch).unwrap();
        }
    }
    let unit = |index: usize| Matrix::from_fn(15, 1, |i, _| f64::from(u8::from(i == index))).data;
    let mut inverse = Matrix::zeros(15, 15);
    for index in 0..15 {
        let mut u = Matrix::from_column_stacked(3, &unit(index)).data;
        kfac.precondition_flat(&mut u, scratch).unwrap();
        inverse.add_outer(1.0, &Matrix::new(3, 5, u).column_stacked(), &unit(index));
    }
    let mut block = Matrix::zeros(15, 15);
    (0..15).for_each(|index| block.add_outer(1.0, &inverse.solve(&unit(index)), &unit(index)));
    block.shifted(-LAMBDA)
}

#[test]
fn the_trace_is_exact_and_the_error_no_larger_than_that_of_kfac() {
    for seed in 0..20 {
        let batch = Batch::new(&[2, 3, 1, 3, 2, 2], 100 + seed);
        let mut exact = Matrix::zeros(15, 15);
        for case in batch.cases() {
            let mut gradient = Matrix::zeros(3, 5);
            case.iter().for_each(|(a, g)| gradient.add_outer(1.0, g, a));
            let vector = gradient.column_stacked();
            exact.add_outer(1.0 / 6.0, &vector, &vector);
        }
        let error = |block: &Matrix| {
            block.data.iter().zip(&exact.data).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt()
        };
        let (ekfac, kfac) = (block(Ekfac::full(), &batch), block(Eigenbasis::full(), &batch));
        assert!((ekfac.trace() / exact.trace() - 1.0).abs() < 1e-10, "seed {seed}");
        assert!((kfac.trace() / exact.trace() - 1.0).abs() > 1e-3, "seed {seed}: so would any");
        assert!(error(&ekfac) <= error(&kfac), "seed {seed}");
    }
}

/// Large inputs with small gradients, then the other way round: each batch is fine, the product of the mean factors is not.
#[test]
fn a_refresh_whose_products_would_overflow_fails_by_name_and_evidence_goes_on() {
    let net = [LayerShape::dense(1, 1).without_bias()];
    let mut room = Room::<f32>::new::<Ekfac, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Ekfac::full(), Reproducible);
    let mut observe = |kfac: &mut Preconditioner<'_, f32, Ekfac, _>, a: f32, g: f32| {
        let (a, g) = ([a], [g]);
        let [a, g] = [&a, &g].map(|x| MatRef::row_major(x, 1, 1).unwrap());
        kfac.observe(1).add(0, &Rows(a), OutputGradients::per_case(g), scratch)
    };
    observe(&mut kfac, 1e13, 1e-3).unwrap();
    observe(&mut kfac, 1e-3, 1e13).unwrap();
    let mut scratch = vec![0.0; kfac.scratch_len()];
    let error = (0..3).find_map(|_| kfac.refresh(&mut scratch).err()).unwrap();
    let LayerErrorKind::ThirdFailure(MapError::Range { input, output }) = error.kind else {
        panic!("{error}")
    };
    assert!([input, output].iter().all(|x| (x / 0.5e26 - 1.0).abs() < 1e-6), "{input:e} {output:e}");
    // Small evidence is taken, and once it has outweighed what was there, so is the refresh.
    for _ in 0..400 {
        let (a, g) = ([1e-3], [1e-3]);
        let [a, g] = [&a, &g].map(|x| MatRef::row_major(x, 1, 1).unwrap());
        kfac.observe(1).add(0, &Rows(a), OutputGradients::per_case(g), &mut scratch).unwrap();
    }
    assert_eq!(kfac.refresh(&mut scratch).unwrap().failures, 0);
}

/// The larger side is due first, so a cold start in the middle of a period renews a side twice: the second moments are those of
/// the new bases all the same.
#[test]
fn a_cold_start_in_the_middle_of_a_period_leaves_the_second_moments_of_the_new_bases() {
    const TALL: [LayerShape; 1] = [LayerShape::dense(2, 6)];
    fn u<M: FactorMap<f64>>(map: M) -> Vec<f64> {
        let mut room = Room::new::<M, Reproducible>(&TALL);
        let (kfac, scratch) = room.precondition(&TALL, map, Reproducible);
        let schedule = Schedule { statistics_every: 1, refresh_every: 2 };
        let mut kfac = kfac.with_schedule(schedule).unwrap();
        for (seed, all) in [(1, false), (3, true)] {
            let (a, g) = (random(9 * 2, seed), random(9 * 6, seed + 1));
            let [a, g] = [(&a, 2), (&g, 6)].map(|(x, width)| MatRef::row_major(x, 9, width).unwrap());
            kfac.observe(9).add(0, &Rows(a), OutputGradients::per_case(g), scratch).unwrap();
            if all { kfac.refresh_all(scratch) } else { kfac.refresh(scratch) }.unwrap();
        }
        let mut v = random(18, 5);
        kfac.precondition_flat(&mut v, scratch).unwrap();
        v
    }
    assert_close("U", &u(Ekfac::full()), &u(Eigenbasis::full()), 1e-12);
}
