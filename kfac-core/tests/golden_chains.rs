//! Golden vectors of the recurrent chains: from moments and from sequences to `U`, and the weights of a chain.

mod common;

use common::chain::{Chain, Chains, balanced, lag_moment};
use common::dense::Matrix;
use common::golden::{Body, Case, on_every_kernel};
use common::{Room, factor, widened};
use kfac_core::evidence::{OutputGradients, Sequence};
use kfac_core::linalg::{Kernel, MatRef, Scalar};
use kfac_core::map::chain::chain_weight;
use kfac_core::map::{ChainLimit, ChainMap, ChainSymmetric};
use kfac_core::shape::Side;
use kfac_core::{LayerShape, Preconditioner};

#[test]
fn golden_recurrent_chains() {
    on_every_kernel("recurrent_chains", &RecurrentChains);
}

struct RecurrentChains;

impl Body for RecurrentChains {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        match case.family.as_str() {
            "chain_weight" => weight::<T>(case),
            "chain" => {
                let [a, g] = [["a0", "a1"], ["g0", "g1"]].map(|keys| chain(case, keys));
                let evidence = Moments(Chains { a, g, lengths: lengths(case) });
                preconditioned::<T, K>(kernel, case, &evidence, &case.input::<T>("v").data);
            }
            "chain_sequences" => {
                let evidence = Sequences::of(case);
                let v = evidence.mean_gradient();
                case.expect("statistics_v", &v);
                preconditioned::<T, K>(kernel, case, &evidence, &v);
            }
            _ => case.unknown_family(),
        }
        case.assert_compared::<T>();
    }
}

/// `c = 1/D`.
fn weight<T: Scalar>(case: &Case) {
    let (x, lengths) = (case.input::<T>("x").data, case.input::<f64>("lengths").data);
    let inverse = |&length: &f64| x.iter().map(move |&x| T::ONE / chain_weight(length as usize, x));
    case.expect("c", &lengths.iter().flat_map(inverse).collect::<Vec<T>>());
}

fn chain(case: &Case, [zero, one]: [&str; 2]) -> Chain {
    Chain { zero: case.input::<f64>(zero).matrix(), one: case.input::<f64>(one).matrix() }
}

fn lengths(case: &Case) -> Vec<(usize, f64)> {
    let [lengths, shares] = ["lengths", "length_probabilities"].map(|key| case.input::<f64>(key).data);
    lengths.into_iter().map(|length| length as usize).zip(shares).collect()
}

/// Moments, or the sequences that they are those of.
trait Evidence<T: Scalar> {
    fn net(&self) -> [LayerShape; 1];
    fn observe<M: ChainMap<T>, K: Kernel<T>>(
        &self,
        kfac: &mut Preconditioner<'_, T, M, K>,
        scratch: &mut [T],
    );
}

struct Moments(Chains);

impl<T: Scalar> Evidence<T> for Moments {
    fn net(&self) -> [LayerShape; 1] {
        self.0.net()
    }

    fn observe<M: ChainMap<T>, K: Kernel<T>>(
        &self,
        kfac: &mut Preconditioner<'_, T, M, K>,
        scratch: &mut [T],
    ) {
        self.0.observe(kfac, scratch);
    }
}

struct Sequences<T> {
    steps: usize,
    lengths: Vec<usize>,
    inputs: Vec<T>,
    gradients: Vec<T>,
    /// `m`, `n`.
    shape: [usize; 2],
}

impl<T: Scalar> Sequences<T> {
    fn of(case: &Case) -> Self {
        let [a, g] = ["a_sequences", "g_sequences"].map(|key| case.input::<T>(key));
        let lengths = case.input::<f64>("sequence_lengths").data.iter().map(|&x| x as usize).collect();
        Self {
            steps: a.shape[1],
            lengths,
            shape: [g.shape[2], a.shape[2]],
            inputs: a.data,
            gradients: g.data,
        }
    }

    /// The mean over cases of `Σ g_t a_tᵀ`.
    fn mean_gradient(&self) -> Vec<T> {
        let ([m, n], cases) = (self.shape, self.lengths.len() as f64);
        let mut mean = Matrix::zeros(m, n);
        for (case, &length) in self.lengths.iter().enumerate() {
            for row in case * self.steps..case * self.steps + length {
                let [g, a] = [&self.gradients[row * m..][..m], &self.inputs[row * n..][..n]].map(widened);
                mean.add_outer(1.0 / cases, &g, &a);
            }
        }
        mean.data.into_iter().map(T::from_f64).collect()
    }
}

impl<T: Scalar> Evidence<T> for Sequences<T> {
    fn net(&self) -> [LayerShape; 1] {
        let [m, n] = self.shape;
        [LayerShape::dense(n, m).without_bias()]
    }

    fn observe<M: ChainMap<T>, K: Kernel<T>>(
        &self,
        kfac: &mut Preconditioner<'_, T, M, K>,
        scratch: &mut [T],
    ) {
        let ([m, n], rows) = (self.shape, self.lengths.len() * self.steps);
        let a = MatRef::row_major(&self.inputs, rows, n).unwrap();
        let g = MatRef::row_major(&self.gradients, rows, m).unwrap();
        let a = Sequence::with_lengths(a, self.steps, &self.lengths).unwrap();
        kfac.observe(self.lengths.len()).add(0, &a, OutputGradients::per_case(g), scratch).unwrap();
    }
}

fn preconditioned<T: Scalar, K: Kernel<T>>(kernel: K, case: &Case, evidence: &impl Evidence<T>, v: &[T]) {
    let independent = {
        let net = evidence.net();
        let mut room = Room::new::<ChainSymmetric, K>(&net);
        let (mut kfac, scratch) = room.precondition(&net, ChainSymmetric::full(), kernel);
        evidence.observe(&mut kfac, scratch);
        let chains = statistics(case, &kfac);
        let moments = [
            ("statistics_a0", &chains.a.zero),
            ("statistics_a1", &chains.a.one),
            ("statistics_g0", &chains.g.zero),
            ("statistics_g1", &chains.g.one),
        ];
        moments.into_iter().for_each(|(key, found)| case.compare_matrix(key, &case.expected[key], found));
        let still = |chain: &Chain| Chain { one: chain.one.scaled(0.0), ..chain.clone() };
        Moments(Chains { a: still(&chains.a), g: still(&chains.g), ..chains })
    };
    let symmetric = ChainSymmetric::full().without_bound().without_floor();
    let limit = ChainLimit::full().without_bound();
    for (name, (u, chains, eigenvalues)) in [
        ("independent", map_applied(kernel, symmetric, case, &independent, v)),
        ("option1", map_applied(kernel, symmetric, case, evidence, v)),
        ("option2", map_applied(kernel, limit, case, evidence, v)),
    ] {
        case.expect(&format!("u_{name}"), &u);
        // What has only an absolute tolerance has none in single precision.
        if T::BYTES == f64::BYTES {
            let key = "relative_error_vs_dense_chain";
            if name != "independent" {
                let letter = if name == "option1" { "psi" } else { "mu" };
                for (factor, eigenvalues) in ["a", "g"].into_iter().zip(&eigenvalues) {
                    case.expect(&format!("{letter}_{factor}_ascending"), eigenvalues);
                }
                let error = relative_frobenius(&widened(&u), &chains.solve(&widened(v)));
                case.compare(key, &case.expected[key][name], &[error]);
            }
        }
    }
}

/// `U`, the damped chains, and the eigenvalues of both sides.
fn map_applied<T: Scalar, M: ChainMap<T>, K: Kernel<T>>(
    kernel: K,
    map: M,
    case: &Case,
    evidence: &impl Evidence<T>,
    v: &[T],
) -> (Vec<T>, Chains, [Vec<T>; 2]) {
    let net = evidence.net();
    let mut room = Room::new::<M, K>(&net);
    let (mut kfac, scratch) = room.precondition(&net, map, kernel);
    evidence.observe(&mut kfac, scratch);
    // No damping is the smallest number: it changes nothing that it is added to.
    let lambda = T::from_f64(case.number("lambda")).maximum(T::MIN_POSITIVE);
    kfac.set_damping(lambda).unwrap();
    kfac.refresh(scratch).unwrap();
    let chains = statistics(case, &kfac);
    let length = chains.mean_length();
    let [input, output] = balanced(&chains.a.zero, &chains.g.zero.scaled(length), lambda.to_f64());
    let damped = Chains { a: chains.a.shifted(input), g: chains.g.shifted(output / length), ..chains };
    case.compare_matrix("damped_a0", &case.expected["damped_a0"], &damped.a.zero);
    case.compare_matrix("damped_g0", &case.expected["damped_g0"], &damped.g.zero);
    let eigenvalues = Side::BOTH.map(|side| kfac.chain_eigenvalues(0, side).unwrap().to_vec());
    let mut u = v.to_vec();
    kfac.precondition_flat(&mut u, scratch).unwrap();
    (u, damped, eigenvalues)
}

/// What was gathered, in the scale of the file: means over cases and time at both sides.
fn statistics<T: Scalar, M: ChainMap<T>, K: Kernel<T>>(
    case: &Case,
    kfac: &Preconditioner<'_, T, M, K>,
) -> Chains {
    let [positions, cases] = Side::BOTH.map(|side| kfac.factor(0, side).unwrap().1);
    let [a, g] = [(Side::Input, 1.0), (Side::Output, cases / positions)].map(|(side, scale)| {
        Chain { zero: factor(kfac, 0, side), one: lag_moment(kfac, 0, side) }.scaled(scale)
    });
    Chains { a, g, lengths: lengths(case) }
}

fn relative_frobenius(found: &[f64], want: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(want).map(|(x, y)| x - y)) / norm(&mut want.iter().copied())
}
