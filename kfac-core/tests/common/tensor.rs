//! Preconditioners of tensors, in storage of exactly the promised length, and loops to compare with.

use super::dense::largest;
use kfac_core::linalg::{Fast, Kernel, Reproducible, Scalar};
use kfac_core::memory::{Buffer, Storage};
use kfac_core::tensor::{GradientMap, TensorPreconditioner, TensorShape, TensorSlot, scratch_len, state_len};

/// Storage and scratch; both begin as NaN, so that reading them shows.
pub struct TensorRoom<T> {
    pub numbers: Vec<T>,
    pub slots: Vec<TensorSlot>,
    pub scratch: Vec<T>,
}

impl<T: Scalar> TensorRoom<T> {
    pub fn new<M: GradientMap<T>>(net: &[TensorShape], map: M) -> Self {
        let nan = T::from_f64(f64::NAN);
        Self {
            numbers: vec![nan; state_len(net, map.layout())],
            slots: vec![TensorSlot::EMPTY; net.len()],
            scratch: vec![nan; scratch_len::<T>(net, map.layout())],
        }
    }

    /// A preconditioner that has seen nothing, and its scratch.
    pub fn precondition<'r, M: GradientMap<T>, K: Kernel<T>>(
        &'r mut self,
        net: &'r [TensorShape],
        map: M,
        kernel: K,
    ) -> (TensorPreconditioner<'r, T, M, K>, &'r mut [T]) {
        let Self { numbers, slots, scratch } = self;
        let storage = Storage { numbers: Buffer::Borrowed(numbers), slots: Buffer::Borrowed(slots) };
        (TensorPreconditioner::new(net, map, kernel, storage).unwrap(), scratch)
    }
}

/// The second moment of an axis, both triangles.
pub fn moment<T: Scalar, M: GradientMap<T>, K: Kernel<T>>(
    preconditioner: &TensorPreconditioner<'_, T, M, K>,
    tensor: usize,
    axis: usize,
) -> Vec<T> {
    let (moment, _) = preconditioner.moment(tensor, axis).unwrap();
    let n = moment.n();
    (0..n * n).map(|at| moment.at(at / n, at % n)).collect()
}

/// What `save` writes.
pub fn saved<T: Scalar, M: GradientMap<T>, K: Kernel<T>>(
    preconditioner: &TensorPreconditioner<'_, T, M, K>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let write = |piece: &[u8]| -> Result<(), core::convert::Infallible> {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let Ok(()) = preconditioner.save(write);
    bytes
}

/// The index along every axis of the number at `place`, row-major.
pub fn indices(sides: &[usize], place: usize) -> Vec<usize> {
    let mut rest = place;
    let mut indices: Vec<usize> = sides
        .iter()
        .rev()
        .map(|&side| {
            let index = rest % side;
            rest /= side;
            index
        })
        .collect();
    indices.reverse();
    indices
}

/// Where the number with these indices lies.
pub fn place(sides: &[usize], indices: &[usize]) -> usize {
    sides.iter().zip(indices).fold(0, |place, (&side, &index)| place * side + index)
}

/// `M ×_i V`, number by number; `m` has as many rows as columns.
pub fn mode_product(sides: &[usize], axis: usize, m: &[f64], v: &[f64]) -> Vec<f64> {
    let n = sides[axis];
    (0..v.len())
        .map(|at| {
            let mut index = indices(sides, at);
            let row = index[axis];
            let term = |j: usize| {
                index[axis] = j;
                m[row * n + j] * v[place(sides, &index)]
            };
            (0..n).map(term).sum()
        })
        .collect()
}

/// `V_(i) V_(i)ᵀ`, pair by pair.
pub fn unfolded_square(sides: &[usize], axis: usize, v: &[f64]) -> Vec<f64> {
    let n = sides[axis];
    let mut square = vec![0.0; n * n];
    for (at, &x) in v.iter().enumerate() {
        let mut index = indices(sides, at);
        let row = index[axis];
        for j in 0..n {
            index[axis] = j;
            square[row * n + j] += x * v[place(sides, &index)];
        }
    }
    square
}

/// In units of the number type's epsilon, relative to the largest number: roots of well-conditioned moments.
pub const CLOSE: f64 = 400.0;

pub fn close<T: Scalar>(what: &str, got: &[T], want: &[f64]) {
    let allowed = CLOSE * T::EPSILON.to_f64() * largest(want);
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!(
            (got.to_f64() - want).abs() <= allowed,
            "{what}: {got:e} is not {want:e}, {allowed:e} allowed"
        );
    }
}

/// A test for every number type and kernel.
pub trait Body {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K);
}

pub fn on_every_kernel(body: &impl Body) {
    body.run::<f64, _>(Reproducible);
    body.run::<f32, _>(Reproducible);
    body.run::<f64, _>(Fast::detect());
    body.run::<f32, _>(Fast::detect());
}

/// `U` of every step.
pub fn steps<T: Scalar, M: GradientMap<T>, K: Kernel<T>>(
    kernel: K,
    map: M,
    shape: TensorShape,
    gradients: &[Vec<T>],
) -> Vec<Vec<T>> {
    let net = [shape];
    let mut room = TensorRoom::new(&net, map);
    let (mut preconditioner, scratch) = room.precondition(&net, map, kernel);
    let step = |v: &Vec<T>| {
        let mut u = [v.clone()];
        preconditioner.step(&mut u, scratch).unwrap();
        let [u] = u;
        u
    };
    gradients.iter().map(step).collect()
}

pub fn numbers<T: Scalar>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&x| T::from_f64(x)).collect()
}
