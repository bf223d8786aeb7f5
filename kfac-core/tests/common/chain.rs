//! Chains, slow and obvious: the Fisher block of a recurrent weight as a sum over all pairs of steps.

use super::dense::Matrix;
use super::{Room, random, widened};
use kfac_core::damping::split::{Split, Trace, balance_damping};
use kfac_core::evidence::ChainMoments;
use kfac_core::linalg::{Fast, Kernel, MatRef, Reproducible, Scalar};
use kfac_core::map::{ChainMap, ChainSymmetric};
use kfac_core::shape::Side;
use kfac_core::{LayerShape, Preconditioner};

/// `X₀` and `X₁ = E[x_t x_{t-1}ᵀ]`, means over cases and time.
#[derive(Clone, Debug)]
pub struct Chain {
    pub zero: Matrix,
    pub one: Matrix,
}

impl Chain {
    /// `X₀ = R Rᵀ`, `X₁ = R K Rᵀ` with `K = psi I`, in part or whole turned away from symmetry.
    pub fn new(psi: &[f64], turn: f64, seed: u64) -> Self {
        let n = psi.len();
        let noise = Matrix::new(n, n, random(n * n, seed));
        let r = Matrix::from_fn(n, n, |i, j| 0.4 * noise.at(i, j) + f64::from(u8::from(i == j)));
        let k = Matrix::from_fn(n, n, |i, j| match i.abs_diff(j) {
            0 => psi[i],
            1 if i < j => turn * psi[i],
            1 => -turn * psi[j],
            _ => 0.0,
        });
        let around = |x: &Matrix| r.times_matrix(x).times_matrix(&r.transposed());
        Self { zero: around(&Matrix::zeros(n, n).shifted(1.0)), one: around(&k) }
    }

    /// `E[x_t x_{t-d}ᵀ] = (X₁ X₀⁻¹)^d X₀` for `d` from 0.
    fn powers(&self) -> impl Iterator<Item = Matrix> {
        let n = self.zero.rows;
        let rows = self.one.data.chunks(n).flat_map(|row| self.zero.solve(row)).collect();
        let step = Matrix::new(n, n, rows);
        std::iter::successors(Some(self.zero.clone()), move |x| Some(step.times_matrix(x)))
    }

    pub fn shifted(&self, shift: f64) -> Self {
        Self { zero: self.zero.shifted(shift), one: self.one.clone() }
    }

    pub fn scaled(&self, scale: f64) -> Self {
        Self { zero: self.zero.scaled(scale), one: self.one.scaled(scale) }
    }
}

/// Inputs and gradients, and lengths with their probabilities.
#[derive(Clone)]
pub struct Chains {
    pub a: Chain,
    pub g: Chain,
    pub lengths: Vec<(usize, f64)>,
}

impl Chains {
    pub fn mean_length(&self) -> f64 {
        self.lengths.iter().map(|(length, share)| *length as f64 * share).sum()
    }

    /// With the paper's `πγ` and `γ/π` on the diagonals, for `γ = √(λ/T̄)`.
    pub fn damped(&self, lambda: f64) -> Self {
        let gamma = (lambda / self.mean_length()).sqrt();
        let mean = |chain: &Chain| chain.zero.trace() / chain.zero.rows as f64;
        let pi = (mean(&self.a) / mean(&self.g)).sqrt();
        Self { a: self.a.shifted(pi * gamma), g: self.g.shifted(gamma / pi), lengths: self.lengths.clone() }
    }

    /// `E_T Σ_{s,t=1..T} E[a_s a_tᵀ] (x) E[g_s g_tᵀ]`, column-stacked.
    pub fn fisher(&self) -> Matrix {
        let size = self.a.zero.rows * self.g.zero.rows;
        let mut total = Matrix::zeros(size, size);
        let longest = self.lengths.iter().map(|(length, _)| *length).max().unwrap();
        for (d, (a, g)) in self.a.powers().zip(self.g.powers()).take(longest).enumerate() {
            let pairs = |&(length, share): &(usize, f64)| share * length.saturating_sub(d) as f64;
            let count: f64 = self.lengths.iter().map(pairs).sum();
            let block = a.kron(&g);
            // Pairs with `s` first are the transposes of those with `t` first.
            let both = if d == 0 { block } else { sum(&block, &block.transposed()) };
            total = sum(&total, &both.scaled(count));
        }
        total
    }

    /// `F⁻¹ vec(V)`.
    pub fn solve(&self, v: &[f64]) -> Vec<f64> {
        let (m, n) = (self.g.zero.rows, self.a.zero.rows);
        let v = Matrix::new(m, n, v.to_vec());
        Matrix::from_column_stacked(m, &self.fisher().solve(&v.column_stacked())).data
    }

    pub fn net(&self) -> [LayerShape; 1] {
        [LayerShape::dense(self.a.zero.rows, self.g.zero.rows).without_bias()]
    }

    /// Hands the moments in, in the scale of this crate: `G` is `T̄` times as large.
    pub fn observe<T: Scalar, M: ChainMap<T>, K: Kernel<T>>(
        &self,
        kfac: &mut Preconditioner<'_, T, M, K>,
        scratch: &mut [T],
    ) {
        let g = self.g.scaled(self.mean_length());
        let [a, a_lag, g, g_lag] = [&self.a.zero, &self.a.one, &g.zero, &g.one].map(rounded::<T>);
        let (n, m) = (self.a.zero.rows, self.g.zero.rows);
        let lengths: Vec<(usize, T)> =
            self.lengths.iter().map(|&(length, share)| (length, T::from_f64(share))).collect();
        let moments = ChainMoments {
            a: MatRef::row_major(&a, n, n).unwrap(),
            a_lag: MatRef::row_major(&a_lag, n, n).unwrap(),
            g: MatRef::row_major(&g, m, m).unwrap(),
            g_lag: MatRef::row_major(&g_lag, m, m).unwrap(),
            lengths: &lengths,
        };
        kfac.observe(1).add_chain_moments(0, moments, scratch).unwrap();
    }
}

/// What [`balance_damping`] makes of moments in the scale of this crate.
pub fn balanced(a: &Matrix, g: &Matrix, lambda: f64) -> [f64; 2] {
    let trace = |x: &Matrix| Trace { trace: x.trace(), size: x.rows };
    match balance_damping(trace(a), trace(g), lambda).unwrap() {
        Split::Shift { input, output } => [input, output],
        Split::Replace { gamma } => panic!("only {gamma} is left"),
    }
}

fn sum(x: &Matrix, y: &Matrix) -> Matrix {
    Matrix::from_fn(x.rows, x.cols, |i, j| x.at(i, j) + y.at(i, j))
}

fn rounded<T: Scalar>(matrix: &Matrix) -> Vec<T> {
    matrix.data.iter().map(|&x| T::from_f64(x)).collect()
}

/// The lag moment of a layer, `sum / weight`.
pub fn lag_moment<T: Scalar, M: ChainMap<T>, K: Kernel<T>>(
    kfac: &Preconditioner<'_, T, M, K>,
    layer: usize,
    side: Side,
) -> Matrix {
    let (sum, weight) = kfac.lag_moment(layer, side).unwrap();
    Matrix::from_fn(sum.rows(), sum.cols(), |i, j| sum.at(i, j).to_f64() / weight)
}

/// Next to no damping: what it adds to a moment of order 1 leaves every bit.
pub const NO_DAMPING: f64 = 1e-37;

/// The symmetric map with nothing that keeps it from being exact.
pub fn exact_symmetric() -> ChainSymmetric {
    ChainSymmetric::full().without_bound().without_floor()
}

/// Four inputs and three gradients, of correlations up to 0.9 and 0.8; `turn`: how far they are from symmetric.
pub fn chains(turn: f64, lengths: &[(usize, f64)]) -> Chains {
    Chains {
        a: Chain::new(&[0.9, -0.7, 0.4, 0.1], turn, 3),
        g: Chain::new(&[0.8, -0.5, 0.2], turn, 7).scaled(0.3),
        lengths: lengths.to_vec(),
    }
}

/// `U` of a map that is handed the moments.
pub fn u_of_moments<T: Scalar, M: ChainMap<T>, K: Kernel<T>>(
    map: M,
    kernel: K,
    chains: &Chains,
    lambda: f64,
    v: &[f64],
) -> Vec<f64> {
    let net = chains.net();
    let mut room = Room::new::<M, K>(&net);
    let (mut kfac, scratch) = room.precondition(&net, map, kernel);
    chains.observe(&mut kfac, scratch);
    kfac.set_damping(T::from_f64(lambda)).unwrap();
    kfac.refresh(scratch).unwrap();
    let mut u: Vec<T> = v.iter().map(|&x| T::from_f64(x)).collect();
    kfac.precondition_flat(&mut u, scratch).unwrap();
    widened(&u)
}

/// `U` on both kernels in both number types, each with its tolerance.
pub fn u_on_every_kernel<M: ChainMap<f32> + ChainMap<f64>>(
    map: M,
    chains: &Chains,
    lambda: f64,
    v: &[f64],
) -> [(Vec<f64>, f64); 4] {
    [
        (u_of_moments::<f64, M, _>(map, Reproducible, chains, lambda, v), 4e3 * f64::EPSILON),
        (u_of_moments::<f64, M, _>(map, Fast::detect(), chains, lambda, v), 4e3 * f64::EPSILON),
        (u_of_moments::<f32, M, _>(map, Reproducible, chains, lambda, v), 4e3 * f64::from(f32::EPSILON)),
        (u_of_moments::<f32, M, _>(map, Fast::detect(), chains, lambda, v), 4e3 * f64::from(f32::EPSILON)),
    ]
}
