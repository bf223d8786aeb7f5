//! The job of the maps that are fed gradients alone: 12 steps of tensors of orders 0 to 3, one axis left alone, two merged;
//! in the middle the state is saved, verified and restored into other memory, which goes on.

use crate::job::{Failed, Hash, Numbers};
use kfac_core::linalg::eigh::Qr;
use kfac_core::linalg::{Reproducible, Scalar};
use kfac_core::schedule::Schedule;
use kfac_core::tensor::{
    self, Accumulation, BasisRefresh, GradientMap, Grafting, Shampoo, Soap, TensorLayout, TensorMemory,
    TensorPreconditioner, TensorShape,
};

const TENSORS: [TensorShape; COUNT] = [
    TensorShape::new([5, 4]),
    TensorShape::new([3, 2, 7]).limited(5),
    TensorShape::new([2, 3, 1, 4]).merged(6),
    TensorShape::new([]),
];
const COUNT: usize = 4;
const STEPS: usize = 12;
const SCHEDULE: Schedule = Schedule { statistics_every: 2, refresh_every: 3 };

/// The memory of one run: two states, scratch, saved bytes.
pub struct Room<T, const NUMBERS: usize, const SCRATCH: usize, const SAVED: usize> {
    memories: [TensorMemory<T, NUMBERS, COUNT>; 2],
    scratch: [T; SCRATCH],
    saved: [u8; SAVED],
}

impl<T: Scalar, const NUMBERS: usize, const SCRATCH: usize, const SAVED: usize>
    Room<T, NUMBERS, SCRATCH, SAVED>
{
    /// Zeros, for a `static`.
    #[allow(clippy::new_without_default)] // `new` is const, `default` could not be
    pub const fn new() -> Self {
        let memories = [TensorMemory::new(), TensorMemory::new()];
        Self { memories, scratch: [T::ZERO; SCRATCH], saved: [0; SAVED] }
    }
}

pub const fn numbers(layout: TensorLayout) -> usize {
    tensor::state_len(&TENSORS, layout)
}

pub const fn scratch<T: Scalar>(layout: TensorLayout) -> usize {
    tensor::scratch_len::<T>(&TENSORS, layout)
}

pub const fn saved<T: Scalar>(layout: TensorLayout) -> usize {
    tensor::saved_len::<T>(&TENSORS, layout)
}

/// The type of the memory that a map needs in a number type.
macro_rules! tensor_room {
    ($float:ty, $map:expr) => {
        $crate::tensors::Room<
            $float,
            { $crate::tensors::numbers($map.layout()) },
            { $crate::tensors::scratch::<$float>($map.layout()) },
            { $crate::tensors::saved::<$float>($map.layout()) },
        >
    };
}
pub(crate) use tensor_room;

/// With every moment there is.
pub const fn shampoo<T: Scalar>([decay, epsilon]: [T; 2]) -> Shampoo<T> {
    Shampoo {
        grafting: Grafting::Adam { decay, epsilon },
        warm_up: 2,
        beta1: Some(decay),
        ..Shampoo::new(Accumulation::CorrectedAverage { decay, epsilon })
    }
}

pub const fn soap<T: Scalar>([decay, epsilon]: [T; 2], refresh: BasisRefresh) -> Soap<T> {
    Soap { beta1: Some(decay), beta2: decay, shampoo_beta: decay, epsilon, refresh, solver: Qr }
}

/// Runs the job: a hash over the bits of every `U`, and of the saved bytes.
pub fn run<T, M, const NUMBERS: usize, const SCRATCH: usize, const SAVED: usize>(
    map: M,
    room: &mut Room<T, NUMBERS, SCRATCH, SAVED>,
) -> Result<u64, Failed>
where
    T: Scalar,
    M: GradientMap<T>,
{
    let Room { memories: [first, second], scratch, saved } = room;
    let (mut generator, mut hash) = (Numbers(2), Hash::new());
    let tensors = TensorPreconditioner::new(&TENSORS, map, Reproducible, first.borrow())?;
    let mut tensors = tensors.with_schedule(SCHEDULE)?;
    for _ in 0..STEPS / 2 {
        step(&mut tensors, &mut generator, &mut hash, scratch)?;
    }
    let mut len = 0;
    tensors.save(|piece| {
        saved.get_mut(len..len + piece.len()).ok_or(Failed::new("saved_len"))?.copy_from_slice(piece);
        len += piece.len();
        Ok::<(), Failed>(())
    })?;
    hash.bytes(saved);
    let tensors = TensorPreconditioner::new(&TENSORS, map, Reproducible, second.borrow())?;
    let mut tensors = tensors.with_schedule(SCHEDULE)?;
    tensors.verify(saved)?.restore();
    for _ in STEPS / 2..STEPS {
        step(&mut tensors, &mut generator, &mut hash, scratch)?;
    }
    Ok(hash.0)
}

fn step<T: Scalar, M: GradientMap<T>>(
    tensors: &mut TensorPreconditioner<'_, T, M, Reproducible>,
    generator: &mut Numbers,
    hash: &mut Hash,
    scratch: &mut [T],
) -> Result<(), Failed> {
    let mut first: [T; TENSORS[0].entries()] = core::array::from_fn(|_| generator.signed());
    let mut second: [T; TENSORS[1].entries()] = core::array::from_fn(|_| generator.signed());
    let mut third: [T; TENSORS[2].entries()] = core::array::from_fn(|_| generator.signed());
    let mut gradients = [&mut first[..], &mut second, &mut third, &mut [generator.signed()]];
    let report = tensors.step(&mut gradients, scratch)?;
    hash.bytes(&report.refresh.flops.to_le_bytes());
    gradients.iter().for_each(|u| hash.numbers(u));
    if let Some(preconditioned) = report.preconditioned {
        hash.numbers(&[preconditioned.inner, preconditioned.gradient_squares.unwrap_or(T::ZERO)]);
    }
    Ok(())
}
