//! Initial weights.

use super::Network;
use crate::random::{Stream, below, generator};
use kfac_core::LayerShape;
use kfac_core::sampling::normal_pair;
use kfac_linalg::{Kernel, Scalar};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use std::fmt;

/// How the weights of a block are drawn. Biases start at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// `N(0, 1 / fan-in)`.
    ScaledNormal,
    /// `N(0, 2 / fan-in)`, for rectified units (He et al. 2015).
    HeNormal,
    /// Each unit gets 15 incoming weights from `N(0, 1)`, the others are zero (Martens 2010).
    Sparse,
    /// Input columns from `N(0, 1 / inputs)`, recurrent columns a random orthogonal matrix: for a block whose columns are
    /// its inputs, one per output, and a bias or none.
    OrthogonalRecurrent {
        /// Input columns, at least 1.
        inputs: usize,
    },
}

/// Incoming weights of a unit under [`Init::Sparse`].
const SPARSE_WEIGHTS: usize = 15;

impl<T: Scalar, K: Kernel<T>> Network<T, K> {
    /// Initial weights of all blocks from `seed`; `init` names the rule for each block.
    ///
    /// # Errors
    /// [`InitError`] where a rule does not fit its block.
    pub fn initial_weights(&self, seed: u64, init: impl Fn(usize) -> Init) -> Result<Vec<T>, InitError> {
        let mut normals = Normals { generator: generator(seed, Stream::InitialWeights), spare: None };
        let mut weights = vec![T::ZERO; self.weight_count()];
        for (block, (shape, part)) in self.blocks().enumerate() {
            let rule = init(block);
            if !rule.fits(shape) {
                return Err(InitError::Misfit { block, shape, rule });
            }
            rule.fill(shape, &mut weights[part], &mut normals);
        }
        Ok(weights)
    }
}

impl Init {
    fn fits(self, shape: LayerShape) -> bool {
        match self {
            Self::ScaledNormal | Self::HeNormal | Self::Sparse => true,
            Self::OrthogonalRecurrent { inputs } => {
                inputs > 0 && inputs.checked_add(shape.outputs()) == Some(shape.features())
            }
        }
    }

    fn fill<T: Scalar>(self, shape: LayerShape, block: &mut [T], normals: &mut Normals) {
        let (n, features) = (shape.inputs(), shape.features());
        let rows = block.chunks_exact_mut(n);
        match self {
            Self::ScaledNormal | Self::HeNormal => {
                let variance = if self == Self::HeNormal { 2.0 } else { 1.0 } / features as f64;
                for row in rows {
                    for weight in &mut row[..features] {
                        *weight = T::from_f64(variance.sqrt() * normals.next());
                    }
                }
            }
            Self::Sparse => {
                for row in rows {
                    for column in normals.distinct(features, SPARSE_WEIGHTS.min(features)) {
                        row[column] = T::from_f64(normals.next());
                    }
                }
            }
            Self::OrthogonalRecurrent { inputs } => {
                let square = normals.orthogonal(shape.outputs());
                for (row, orthogonal) in rows.zip(square.chunks_exact(shape.outputs())) {
                    for weight in &mut row[..inputs] {
                        *weight = T::from_f64(normals.next() / (inputs as f64).sqrt());
                    }
                    for (weight, &value) in row[inputs..].iter_mut().zip(orthogonal) {
                        *weight = T::from_f64(value);
                    }
                }
            }
        }
    }
}

/// Weights that cannot be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// A rule does not fit the block that it was named for.
    Misfit {
        /// Index of the block.
        block: usize,
        /// Its shape.
        shape: LayerShape,
        /// The rule.
        rule: Init,
    },
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Misfit { block, shape, rule } = self;
        write!(
            f,
            "{rule:?} does not fit block {block} of {} x {} weights",
            shape.outputs(),
            shape.features()
        )?;
        f.write_str(if shape.has_bias() { " and a bias" } else { "" })
    }
}

impl std::error::Error for InitError {}

/// Standard normal numbers, made in pairs.
struct Normals {
    generator: ChaCha8Rng,
    spare: Option<f64>,
}

impl Normals {
    fn next(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let [first, second] = normal_pair([self.generator.next_u32(), self.generator.next_u32()]);
        self.spare = Some(second);
        first
    }

    /// `count` different numbers below `end`.
    fn distinct(&mut self, end: usize, count: usize) -> Vec<usize> {
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count {
            let candidate = below(&mut self.generator, end);
            if !chosen.contains(&candidate) {
                chosen.push(candidate);
            }
        }
        chosen
    }

    /// A random orthogonal `n x n` matrix: Gram and Schmidt on normal rows, twice for orthogonality to rounding.
    fn orthogonal(&mut self, n: usize) -> Vec<f64> {
        let mut square: Vec<f64> = (0..n * n).map(|_| self.next()).collect();
        for row in 0..n {
            let (done, rest) = square.split_at_mut(row * n);
            let current = &mut rest[..n];
            for _ in 0..2 {
                for earlier in done.chunks_exact(n) {
                    let overlap: f64 = current.iter().zip(earlier).map(|(a, b)| a * b).sum();
                    for (value, &direction) in current.iter_mut().zip(earlier) {
                        *value -= overlap * direction;
                    }
                }
            }
            let length = current.iter().map(|value| value * value).sum::<f64>().sqrt();
            current.iter_mut().for_each(|value| *value /= length);
        }
        square
    }
}
