//! Slow and obvious: explicit matrices in f64, as the oracle of everything that is computed in factors.

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

    pub fn new(rows: usize, cols: usize, data: Vec<f64>) -> Self {
        assert_eq!(data.len(), rows * cols);
        Self { rows, cols, data }
    }

    pub fn from_fn(rows: usize, cols: usize, element: impl Fn(usize, usize) -> f64) -> Self {
        Self::new(rows, cols, (0..rows * cols).map(|at| element(at / cols, at % cols)).collect())
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

    pub fn scaled(&self, scale: f64) -> Self {
        Self::from_fn(self.rows, self.cols, |i, j| scale * self.at(i, j))
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

    /// `A B`.
    pub fn times_matrix(&self, b: &Self) -> Self {
        assert_eq!(self.cols, b.rows);
        let term = |i: usize, j: usize| (0..self.cols).map(|k| self.at(i, k) * b.at(k, j)).sum();
        Self::from_fn(self.rows, b.cols, term)
    }

    pub fn transposed(&self) -> Self {
        Self::from_fn(self.cols, self.rows, |i, j| self.at(j, i))
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

    /// Columns one below the other: entry `(i, j)` at `j rows + i`.
    pub fn column_stacked(&self) -> Vec<f64> {
        (0..self.data.len()).map(|at| self.at(at % self.rows, at / self.rows)).collect()
    }

    /// The inverse of [`column_stacked`](Self::column_stacked).
    pub fn from_column_stacked(rows: usize, stacked: &[f64]) -> Self {
        Self::from_fn(rows, stacked.len() / rows, |i, j| stacked[j * rows + i])
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

/// The largest difference as a share of the largest magnitude of `want`; NaN where a number is NaN.
pub fn relative_difference(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let worst = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    // Unlike `f64::max`, this keeps a NaN.
    let worst = worst.fold(0.0, |worst: f64, x| if x <= worst { worst } else { x });
    if worst == 0.0 { 0.0 } else { worst / largest(want) }
}

/// `got` is `want` up to `tolerance` times the largest magnitude.
#[track_caller]
pub fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    let difference = relative_difference(got, want);
    assert!(difference <= tolerance, "{what}: relative difference {difference:e}\n{got:?} is not\n{want:?}");
}
