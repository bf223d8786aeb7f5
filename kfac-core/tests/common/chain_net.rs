//! What the tests of `Tridiagonal` share: storage, evidence of a chain of dense layers, and the dense matrix that it claims
//! to invert.

use super::dense::Matrix;
use super::random;
use kfac_core::error::LayerError;
use kfac_core::evidence::{OutputGradients, Rows};
use kfac_core::linalg::{Kernel, MatRef, Scalar};
use kfac_core::memory::{Buffer, LayerSlot, Storage};
use kfac_core::shape::Side;
use kfac_core::tridiagonal::{LayerRows, scratch_len, state_len};
use kfac_core::{LayerShape, Tridiagonal};
use std::ops::Range;

/// Storage and scratch of exactly the promised length; both begin as NaN, so that reading them shows.
pub struct Room<T> {
    pub numbers: Vec<T>,
    pub slots: [LayerSlot; 1],
    pub scratch: Vec<T>,
}

impl<T: Scalar> Room<T> {
    pub fn new<K: Kernel<T>>(net: &[LayerShape]) -> Self {
        let nan = T::from_f64(f64::NAN);
        Self {
            numbers: vec![nan; state_len(net)],
            slots: [LayerSlot::EMPTY],
            scratch: vec![nan; scratch_len::<T, K>(net)],
        }
    }

    pub fn precondition<'r, K: Kernel<T>>(
        &'r mut self,
        net: &'r [LayerShape],
        kernel: K,
    ) -> (Tridiagonal<'r, T, K>, &'r mut [T]) {
        let Self { numbers, slots, scratch } = self;
        let storage = Storage { numbers: Buffer::Borrowed(numbers), slots: Buffer::Borrowed(slots) };
        (Tridiagonal::new(net, kernel, storage).unwrap(), scratch)
    }
}

/// What a batch leaves at every layer: inputs and gradients, a row for every case.
#[derive(Clone)]
pub struct Batch<T> {
    pub net: Vec<LayerShape>,
    pub cases: usize,
    pub rows: Vec<[Vec<T>; 2]>,
}

impl<T: Scalar> Batch<T> {
    /// Rows of neighbours have a part in common, as those of a network do.
    pub fn new(net: &[LayerShape], cases: usize, seed: u64) -> Self {
        let common: Vec<f64> = random(cases, seed);
        let side = |width: usize, seed: u64| -> Vec<T> {
            let own: Vec<f64> = random(cases * width, seed);
            let mixed = |(at, x): (usize, &f64)| T::from_f64(0.7 * x + common[at / width]);
            own.iter().enumerate().map(mixed).collect()
        };
        let layer = |(layer, shape): (usize, &LayerShape)| {
            let seed = seed + 10 * layer as u64;
            [side(shape.features(), seed + 1), side(shape.outputs(), seed + 2)]
        };
        Self { net: net.to_vec(), cases, rows: net.iter().enumerate().map(layer).collect() }
    }

    /// Some of the cases, as evidence.
    pub fn layers(&self, cases: Range<usize>) -> Vec<LayerRows<'_, T>> {
        let mut layers = vec![];
        for (shape, [a, g]) in self.net.iter().zip(&self.rows) {
            let inputs = Rows(self.view(a, shape.features(), cases.clone()));
            let gradients = OutputGradients::per_case(self.view(g, shape.outputs(), cases.clone()));
            layers.push(LayerRows { inputs, gradients });
        }
        layers
    }

    fn view<'a>(&self, rows: &'a [T], width: usize, cases: Range<usize>) -> MatRef<'a, T> {
        MatRef::row_major(rows, self.cases, width).unwrap().block(cases, 0..width).unwrap()
    }

    /// All cases, in parts of so many.
    pub fn observe<K: Kernel<T>>(
        &self,
        kfac: &mut Tridiagonal<'_, T, K>,
        parts: &[usize],
        scratch: &mut [T],
    ) -> Result<(), LayerError> {
        let (mut observation, mut first) = (kfac.observe(self.cases), 0);
        for part in parts {
            observation.add(&self.layers(first..first + part), scratch)?;
            first += part;
        }
        Ok(())
    }

    /// Row `ā` or `g` of a case.
    fn row(&self, layer: usize, side: Side, case: usize) -> Vec<f64> {
        let shape = self.net[layer];
        let numbers = &self.rows[layer][side.index()];
        let width = numbers.len() / self.cases;
        let mut row: Vec<f64> = numbers[case * width..][..width].iter().map(|x| x.to_f64()).collect();
        row.resize(shape.side(side), 1.0);
        row
    }

    /// The mean over cases of `x_i x_jᵀ`, by plain loops.
    pub fn moment(&self, [i, j]: [usize; 2], side: Side) -> Matrix {
        let mut moment = Matrix::zeros(self.net[i].side(side), self.net[j].side(side));
        for case in 0..self.cases {
            let (x, y) = (self.row(i, side, case), self.row(j, side, case));
            moment.add_outer(1.0 / self.cases as f64, &x, &y);
        }
        moment
    }

    /// Own moments and those with the next layer.
    pub fn moments(&self) -> Moments {
        let both = |i: usize, j: usize| Side::BOTH.map(|side| self.moment([i, j], side));
        Moments {
            own: (0..self.net.len()).map(|i| both(i, i)).collect(),
            next: (1..self.net.len()).map(|j| both(j - 1, j)).collect(),
        }
    }
}

/// `[A, G]` of every layer, and with the next one.
#[derive(Clone)]
pub struct Moments {
    pub own: Vec<[Matrix; 2]>,
    pub next: Vec<[Matrix; 2]>,
}

impl Moments {
    /// `Â` and `Ĝ`, from the formula.
    pub fn damped(&self, layer: usize, lambda: f64) -> [Matrix; 2] {
        let [a, g] = &self.own[layer];
        if a.rows == 1 && (g.rows > 1 || a.at(0, 0) >= g.at(0, 0)) {
            return [a.clone(), g.shifted(lambda / a.at(0, 0))];
        }
        if g.rows == 1 {
            return [a.shifted(lambda / g.at(0, 0)), g.clone()];
        }
        let pi = ((a.trace() / a.rows as f64) / (g.trace() / g.rows as f64)).sqrt();
        [a.shifted(pi * lambda.sqrt()), g.shifted(lambda.sqrt() / pi)]
    }

    /// The matrix whose inverse is block-tridiagonal: damped blocks on the diagonal, those of neighbours beside it, and
    /// further out what they imply, `F_ij = F_{i,i+1} F_{i+1}⁻¹ F_{i+1,j}`.
    pub fn dense(&self, lambda: f64) -> Matrix {
        let layers = self.own.len();
        let mut blocks: Vec<Vec<Matrix>> = vec![vec![Matrix::zeros(0, 0); layers]; layers];
        for i in (0..layers).rev() {
            let [a, g] = self.damped(i, lambda);
            blocks[i][i] = a.kron(&g);
            for j in i + 1..layers {
                let [a, g] = &self.next[i];
                let near = a.kron(g);
                blocks[i][j] = if j == i + 1 {
                    near
                } else {
                    let inverse_times = columns_of(&blocks[i + 1][j], |x| blocks[i + 1][i + 1].solve(x));
                    columns_of(&inverse_times, |x| near.times(x))
                };
                let upper = blocks[i][j].clone();
                blocks[j][i] = Matrix::from_fn(upper.cols, upper.rows, |p, q| upper.at(q, p));
            }
        }
        let sizes: Vec<usize> = (0..layers).map(|i| blocks[i][i].rows).collect();
        let locate = |mut at: usize| {
            let mut layer = 0;
            while at >= sizes[layer] {
                at -= sizes[layer];
                layer += 1;
            }
            (layer, at)
        };
        let total = sizes.iter().sum();
        Matrix::from_fn(total, total, |p, q| {
            let ((i, p), (j, q)) = (locate(p), locate(q));
            blocks[i][j].at(p, q)
        })
    }

    /// `U` of all layers by elimination in [`dense`](Self::dense).
    pub fn solve(&self, lambda: f64, v: &[f64]) -> Vec<f64> {
        let shapes: Vec<[usize; 2]> = self.own.iter().map(|[a, g]| [g.rows, a.rows]).collect();
        let mut rest = v;
        let mut stacked = vec![];
        for &[m, n] in &shapes {
            let (block, tail) = rest.split_at(m * n);
            stacked.extend(Matrix::new(m, n, block.to_vec()).column_stacked());
            rest = tail;
        }
        let solution = self.dense(lambda).solve(&stacked);
        let (mut rest, mut u) = (&solution[..], vec![]);
        for &[m, n] in &shapes {
            let (block, tail) = rest.split_at(m * n);
            u.extend(Matrix::from_column_stacked(m, block).data);
            rest = tail;
        }
        u
    }
}

fn columns_of(matrix: &Matrix, map: impl Fn(&[f64]) -> Vec<f64>) -> Matrix {
    let column = |j: usize| map(&(0..matrix.rows).map(|i| matrix.at(i, j)).collect::<Vec<f64>>());
    let columns: Vec<Vec<f64>> = (0..matrix.cols).map(column).collect();
    Matrix::from_fn(columns[0].len(), matrix.cols, |i, j| columns[j][i])
}

/// What `save` writes.
pub fn saved<T: Scalar, K: Kernel<T>>(kfac: &Tridiagonal<'_, T, K>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let write = |piece: &[u8]| -> Result<(), core::convert::Infallible> {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let Ok(()) = kfac.save(write);
    bytes
}
