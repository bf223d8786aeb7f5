//! One batch on which every map gives another `U` than every other, by more than a hundredth: none is a hidden default of
//! another. `Shifted` alone is `Eigenbasis` by another way.
//!
//! Each equals a dense matrix, or plain loops, that share no code with it, in the file that the table names; and these
//! mutations of its special step were tried, each of which fails the test beside it.
//!
//! | map | mutation | file: test |
//! |---|---|---|
//! | `Factored` | no `π`; its inverse; shifts swapped | `golden_precondition`, `contract`: `u_solves_the_damped_system_of_its_map` |
//! | `Eigenbasis` | a basis transposed; `λ` left out; eigenvalues of one side | `contract`: the same |
//! | `Shifted` | larger and smaller side swapped; off-diagonal dropped | `contract`: the same |
//! | `Ekfac` | squares summed over positions; not reset; `k` restarted; `d_G d_Aᵀ` for `s` | `ekfac`: all |
//! | `ChainSymmetric` | `D` for `1/D`; lag transposed; not symmetrised; lengths not averaged | `chains`: `the_symmetric_map_inverts_...`, `sequences_are_preconditioned_...` |
//! | `ChainLimit` | `Ψ` transposed; either product left out; `μ` unbounded | `chains`: `the_limit_is_the_formula_of_the_paper` |
//! | `Embedding` | normaliser left out; way out transposed; bias of tokens left out | `embedding`: `on_tokens_...`, `on_dense_inputs_...` |
//! | `Diagonal` | squared before the sum over positions; no decay; weight of `A` | `diagonal`: `no_case_is_lost_...`, `second_moments_are_means_...` |
//! | `Tridiagonal` | no `Ξ`; no `Ξᵀ`; `1 + s sᵀ`; `Ψ` without the inverse | `tridiagonal`: `u_solves_the_dense_system_...` |
//! | `Shampoo` | root of another order; no floor; scale of the average; no grafting ratio | `shampoo`, `grafting`, `golden_shampoo_soap` |
//! | `Soap` | second moment not permuted; first call not apart; rotation skipped | `soap`, `golden_shampoo_soap` |
#![cfg(feature = "alloc")]

mod common;

use common::dense::relative_difference;
use common::{Room, random};
use kfac_core::evidence::{OutputGradients, Rows, Sequence};
use kfac_core::linalg::{MatRef, Reproducible};
use kfac_core::map::{
    ChainLimit, ChainSymmetric, Diagonal, Eigenbasis, Ekfac, Embedding, FactorMap, Factored, Map, Shifted,
};
use kfac_core::tensor::{Accumulation, Shampoo, Soap, TensorPreconditioner, TensorShape};
use kfac_core::tridiagonal::LayerRows;
use kfac_core::{LayerShape, Tridiagonal};

const SHAPE: LayerShape = LayerShape::dense(4, 3);
const LAMBDA: f64 = 0.05;
const CASES: usize = 8;
const STEPS: usize = 5;

fn v() -> Vec<f64> {
    random(SHAPE.weights(), 99)
}

/// `U` of sequences of five steps, each the last one and a little more.
fn of<M: FactorMap<f64>>(map: M) -> (String, Vec<f64>) {
    let net = [SHAPE];
    let mut room = Room::new::<M, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, map, Reproducible);
    kfac.set_damping(LAMBDA).unwrap();
    for update in 0..2 {
        let walk = |width: usize, seed: u64| -> Vec<f64> {
            let mut rows: Vec<f64> = random(CASES * STEPS * width, seed + update);
            for row in (0..CASES * STEPS).filter(|row| row % STEPS > 0) {
                for at in row * width..(row + 1) * width {
                    rows[at] = 0.8 * rows[at - width] + 0.6 * rows[at];
                }
            }
            rows
        };
        let (a, g) = (walk(4, 10), walk(3, 20));
        let [a, g] = [(&a, 4), (&g, 3)].map(|(x, width)| MatRef::row_major(x, CASES * STEPS, width).unwrap());
        let inputs = Sequence::new(a, STEPS).unwrap();
        kfac.observe(CASES).add(0, &inputs, OutputGradients::per_case(g), scratch).unwrap();
        // The second update finds the bases that Ekfac learns in.
        if update == 0 {
            kfac.refresh(scratch).unwrap();
        }
    }
    let mut u = v();
    kfac.precondition_flat(&mut u, scratch).unwrap();
    (<M as Map<f64>>::NAME.to_owned(), u)
}

/// The direction that is made of gradients alone, of the second step.
fn of_gradients(name: &str, map: impl kfac_core::tensor::GradientMap<f64>) -> (String, Vec<f64>) {
    let mut tensors = TensorPreconditioner::on_heap(&[TensorShape::new([3, 5])], map, Reproducible).unwrap();
    let mut scratch = vec![0.0; tensors.scratch_len()];
    let mut first: Vec<f64> = random(15, 98);
    tensors.step(&mut [&mut first[..]], &mut scratch).unwrap();
    let mut u = v();
    tensors.step(&mut [&mut u[..]], &mut scratch).unwrap();
    (name.to_owned(), u)
}

fn assert_differ(all: &[(String, Vec<f64>)]) {
    for (index, (name, u)) in all.iter().enumerate() {
        for (other, w) in &all[..index] {
            let difference = relative_difference(u, w);
            assert!(difference > 0.01, "{name} and {other} differ by {difference:e}");
        }
    }
}

#[test]
fn no_two_maps_give_the_same_but_shifted_and_eigenbasis() {
    let eigenbasis = of(Eigenbasis::full());
    let (_, shifted) = of(Shifted::full());
    assert!(relative_difference(&shifted, &eigenbasis.1) < 1e-10);
    assert_differ(&[
        eigenbasis,
        of(Factored),
        of(Ekfac::full()),
        of(ChainSymmetric::full()),
        of(ChainLimit::full()),
        of(Embedding::full()),
        of(Diagonal),
        of_gradients("shampoo", Shampoo::new(Accumulation::Sum { epsilon: 1e-6 })),
        of_gradients("soap", Soap::published()),
    ]);
}

const CHAIN: [LayerShape; 2] = [LayerShape::dense(4, 3), LayerShape::dense(3, 2)];

/// Rows `a` and `g` of a layer of [`CHAIN`].
struct Batch {
    layer: usize,
    inputs: Vec<f64>,
    gradients: Vec<f64>,
}

impl Batch {
    fn of(layer: usize) -> Self {
        let rows = |width: usize, seed: usize| random(CASES * width, (seed + layer) as u64);
        Self { layer, inputs: rows(CHAIN[layer].features(), 1), gradients: rows(CHAIN[layer].outputs(), 5) }
    }

    fn rows(&self) -> LayerRows<'_, f64> {
        let (shape, view) = (CHAIN[self.layer], |x, width| MatRef::row_major(x, CASES, width).unwrap());
        let gradients = OutputGradients::per_case(view(&self.gradients, shape.outputs()));
        LayerRows { inputs: Rows(view(&self.inputs, shape.features())), gradients }
    }
}

fn gradients_of_the_chain() -> Vec<f64> {
    random(CHAIN.iter().map(|shape| shape.weights()).sum(), 9)
}

/// Each layer of the chain by itself.
fn of_the_chain<M: FactorMap<f64>>(map: M) -> (String, Vec<f64>) {
    let mut room = Room::new::<M, Reproducible>(&CHAIN);
    let (mut kfac, scratch) = room.precondition(&CHAIN, map, Reproducible);
    kfac.set_damping(LAMBDA).unwrap();
    let mut observation = kfac.observe(CASES);
    for layer in 0..CHAIN.len() {
        let batch = Batch::of(layer);
        let LayerRows { inputs, gradients } = batch.rows();
        observation.add(layer, &inputs, gradients, scratch).unwrap();
    }
    kfac.refresh(scratch).unwrap();
    let mut u = gradients_of_the_chain();
    kfac.precondition_flat(&mut u, scratch).unwrap();
    (<M as Map<f64>>::NAME.to_owned(), u)
}

#[test]
fn tridiagonal_differs_from_the_maps_of_single_layers() {
    let mut network = Tridiagonal::on_heap(&CHAIN, Reproducible).unwrap();
    let mut scratch = vec![0.0; network.scratch_len()];
    network.set_damping(LAMBDA).unwrap();
    let batches = [0, 1].map(Batch::of);
    network.observe(CASES).add(&batches.each_ref().map(Batch::rows), &mut scratch).unwrap();
    network.refresh(&mut scratch).unwrap();
    let mut coupled = gradients_of_the_chain();
    network.precondition_flat(&mut coupled, &mut scratch).unwrap();
    assert_differ(&[
        ("tridiagonal".to_owned(), coupled),
        of_the_chain(Factored),
        of_the_chain(Eigenbasis::full()),
        of_the_chain(Diagonal),
    ]);
}
