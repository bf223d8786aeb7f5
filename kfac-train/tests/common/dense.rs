//! Slow and obvious: explicit matrices, as the oracle of everything that is computed in factors or layer by layer.

/// A row-major matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub rows: usize,
    pub cols: usize,
    pub data: Vec<f64>,
}

impl Matrix {
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    pub fn from_fn(rows: usize, cols: usize, element: impl Fn(usize, usize) -> f64) -> Self {
        Self { rows, cols, data: (0..rows * cols).map(|at| element(at / cols, at % cols)).collect() }
    }

    /// The matrix whose columns are these.
    pub fn from_columns(columns: &[Vec<f64>]) -> Self {
        Self::from_fn(columns[0].len(), columns.len(), |i, j| columns[j][i])
    }

    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.data[i * self.cols + j]
    }

    pub fn at_mut(&mut self, i: usize, j: usize) -> &mut f64 {
        &mut self.data[i * self.cols + j]
    }

    /// `self += scale x yᵀ`.
    pub fn add_outer(&mut self, scale: f64, x: &[f64], y: &[f64]) {
        assert_eq!((self.rows, self.cols), (x.len(), y.len()));
        for (i, x) in x.iter().enumerate() {
            for (j, y) in y.iter().enumerate() {
                *self.at_mut(i, j) += scale * x * y;
            }
        }
    }

    /// `share self + (1 - share) other`.
    pub fn mixed(&self, share: f64, other: &Self) -> Self {
        Self::from_fn(self.rows, self.cols, |i, j| share * self.at(i, j) + (1.0 - share) * other.at(i, j))
    }

    /// `self + shift I`.
    pub fn shifted(&self, shift: f64) -> Self {
        Self::from_fn(self.rows, self.cols, |i, j| self.at(i, j) + if i == j { shift } else { 0.0 })
    }

    pub fn trace(&self) -> f64 {
        (0..self.rows).map(|i| self.at(i, i)).sum()
    }

    /// `A (x) B`.
    pub fn kron(&self, b: &Self) -> Self {
        Self::from_fn(self.rows * b.rows, self.cols * b.cols, |i, j| {
            self.at(i / b.rows, j / b.cols) * b.at(i % b.rows, j % b.cols)
        })
    }

    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        self.data.chunks(self.cols).map(|row| dot(row, x)).collect()
    }

    /// `xᵀ A y`.
    pub fn product(&self, x: &[f64], y: &[f64]) -> f64 {
        dot(x, &self.times(y))
    }

    /// `A⁻¹ x` by Gaussian elimination with partial pivoting.
    pub fn solve(&self, x: &[f64]) -> Vec<f64> {
        let n = self.rows;
        let (mut a, mut x) = (self.clone(), x.to_vec());
        for k in 0..n {
            let pivot = (k..n).max_by(|&i, &j| a.at(i, k).abs().total_cmp(&a.at(j, k).abs())).unwrap();
            for j in 0..n {
                a.data.swap(k * n + j, pivot * n + j);
            }
            x.swap(k, pivot);
            for i in k + 1..n {
                let ratio = a.at(i, k) / a.at(k, k);
                for j in k..n {
                    *a.at_mut(i, j) -= ratio * a.at(k, j);
                }
                x[i] -= ratio * x[k];
            }
        }
        for k in (0..n).rev() {
            let rest: f64 = (k + 1..n).map(|j| a.at(k, j) * x[j]).sum();
            x[k] = (x[k] - rest) / a.at(k, k);
        }
        x
    }
}

pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Largest magnitude.
pub fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |top: f64, x| top.max(x.abs()))
}

/// `got` is `want` up to `tolerance` times the largest magnitude.
#[track_caller]
pub fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let allowed = tolerance * largest(want);
    for (at, (g, w)) in got.iter().zip(want).enumerate() {
        let difference = (g - w).abs();
        // So that a NaN fails.
        let close = difference <= allowed;
        assert!(close, "{what}: number {at} is {g:e}, not {w:e}: off by {difference:e} > {allowed:e}");
    }
}
