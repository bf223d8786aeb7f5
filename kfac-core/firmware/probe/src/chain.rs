//! The job of a chain of dense layers: `Tridiagonal` through its verbs, saved and restored in the middle, and the recursion
//! for `G`. As `job.rs`, it hashes every number on the way and needs no allocator.
#![forbid(unsafe_code)]

use crate::job::{Failed, Hash, Numbers};
use kfac_core::evidence::{OutputGradients, Rows};
use kfac_core::linalg::{MatMut, MatRef, Reproducible, Scalar, ShapeError};
use kfac_core::losses::Loss;
use kfac_core::memory::Memory;
use kfac_core::schedule::Schedule;
use kfac_core::shape::Side;
use kfac_core::statistics::kfra;
use kfac_core::tridiagonal::{self, LayerRows};
use kfac_core::{LayerShape, Tridiagonal};

const NET: [LayerShape; 3] =
    [LayerShape::dense(6, 5), LayerShape::dense(5, 7).without_bias(), LayerShape::dense(7, 3)];
const WEIGHTS: usize = NET[0].weights() + NET[1].weights() + NET[2].weights();
const CASES: usize = 5;
const STEPS: usize = 10;
const SCHEDULE: Schedule = Schedule { statistics_every: 2, refresh_every: 3 };

/// The memory of one run: two networks' states, scratch, saved bytes.
pub struct Room<T, const NUMBERS: usize, const SCRATCH: usize, const SAVED: usize> {
    memories: [Memory<T, NUMBERS, 1>; 2],
    scratch: [T; SCRATCH],
    saved: [u8; SAVED],
}

impl<T: Scalar, const NUMBERS: usize, const SCRATCH: usize, const SAVED: usize>
    Room<T, NUMBERS, SCRATCH, SAVED>
{
    /// Zeros, for a `static`.
    #[allow(clippy::new_without_default)] // `new` is const, `default` could not be
    pub const fn new() -> Self {
        Self { memories: [Memory::new(), Memory::new()], scratch: [T::ZERO; SCRATCH], saved: [0; SAVED] }
    }
}

pub const NUMBERS: usize = tridiagonal::state_len(&NET);

pub const fn scratch<T: Scalar>() -> usize {
    tridiagonal::scratch_len::<T, Reproducible>(&NET)
}

pub const fn saved<T: Scalar>() -> usize {
    tridiagonal::saved_len::<T>(&NET)
}

/// The type of the memory in a number type.
macro_rules! chain_room {
    ($float:ty) => {
        $crate::chain::Room<
            $float,
            { $crate::chain::NUMBERS },
            { $crate::chain::scratch::<$float>() },
            { $crate::chain::saved::<$float>() },
        >
    };
}
pub(crate) use chain_room;

type Kfac<'s, T> = Tridiagonal<'s, T, Reproducible>;

/// Runs the job: a hash over the bits of every `U`, factor, `Ψ` and saved byte.
pub fn run<T: Scalar, const NUMBERS: usize, const SCRATCH: usize, const SAVED: usize>(
    room: &mut Room<T, NUMBERS, SCRATCH, SAVED>,
) -> Result<u64, Failed> {
    let Room { memories: [first, second], scratch, saved } = room;
    let (mut hash, mut numbers) = (Hash::new(), Numbers::new());
    recursion(&mut hash, &mut numbers, scratch)?;
    let mut kfac = settings(Tridiagonal::new(&NET, Reproducible, first.borrow())?)?;
    for at in 0..STEPS / 2 {
        step(&mut kfac, at, (&mut hash, &mut numbers), scratch)?;
    }
    let mut len = 0;
    kfac.save(|piece| {
        saved.get_mut(len..len + piece.len()).ok_or(Failed::new("saved_len"))?.copy_from_slice(piece);
        len += piece.len();
        Ok::<(), Failed>(())
    })?;
    hash.bytes(saved);
    let mut kfac = settings(Tridiagonal::new(&NET, Reproducible, second.borrow())?)?;
    kfac.verify(saved)?.restore();
    for at in STEPS / 2..STEPS {
        step(&mut kfac, at, (&mut hash, &mut numbers), scratch)?;
    }
    Ok(hash.value())
}

fn settings<T: Scalar>(kfac: Kfac<'_, T>) -> Result<Kfac<'_, T>, Failed> {
    Ok(kfac.with_schedule(SCHEDULE)?.with_decay(T::from_f64(0.75))?.with_l2(T::from_f64(1e-4))?)
}

fn step<T: Scalar>(
    kfac: &mut Kfac<'_, T>,
    at: usize,
    (hash, numbers): (&mut Hash, &mut Numbers),
    scratch: &mut [T],
) -> Result<(), Failed> {
    if kfac.wants_statistics() {
        let rows: [T; 64] = core::array::from_fn(|_| numbers.signed());
        let layer = |at: usize, shape: LayerShape| -> Result<_, ShapeError> {
            let inputs = Rows(MatRef::row_major(&rows[at..], CASES, shape.features())?);
            let gradients = MatRef::row_major(&rows[at + 2..], CASES, shape.outputs())?;
            Ok(LayerRows { inputs, gradients: OutputGradients::of_mean_loss(gradients, CASES) })
        };
        let layers = [layer(0, NET[0])?, layer(11, NET[1])?, layer(23, NET[2])?];
        kfac.observe(CASES).add(&layers, scratch)?;
    }
    kfac.set_damping(T::from_f64(0.3) / T::from_usize(1 + at))?;
    let report = if at == 0 { kfac.refresh_all(scratch)? } else { kfac.refresh(scratch)? };
    hash.bytes(&report.flops.to_le_bytes());
    for (layer, side) in (0..NET.len()).flat_map(|layer| Side::BOTH.map(|side| (layer, side))) {
        let (sum, weight) = kfac.factor(layer, side).ok_or(Failed::new("no factor"))?;
        hash.numbers(sum.data());
        hash.numbers(&[weight]);
        if let (Some((sum, _)), Some(psi)) = (kfac.next_factor(layer, side), kfac.psi(layer, side)) {
            hash.numbers(sum.data());
            hash.numbers(psi.data());
        }
    }
    let mut u: [T; WEIGHTS] = core::array::from_fn(|_| numbers.signed());
    let preconditioned = kfac.precondition_flat(&mut u, scratch)?;
    hash.numbers(&u);
    hash.numbers(&[preconditioned.inner, preconditioned.gradient_squares.unwrap_or(T::ZERO)]);
    Ok(())
}

/// From the loss of four outputs through a layer of three inputs and what is before it.
fn recursion<T: Scalar>(hash: &mut Hash, numbers: &mut Numbers, scratch: &mut [T]) -> Result<(), Failed> {
    let rows: [T; 20] = core::array::from_fn(|_| numbers.signed());
    let outputs = MatRef::row_major(&rows, CASES, 4)?;
    for loss in [Loss::Square, Loss::Softmax, Loss::Bernoulli] {
        let (mut above, mut below) = ([T::ZERO; 16], [T::ZERO; 9]);
        let into = MatMut::row_major(&mut above, 4, 4)?;
        kfra::mean_loss_hessian(loss, T::from_f64(0.3), outputs, into, scratch)?;
        let (w, from) = (MatRef::row_major(&rows[3..], 4, 3)?, MatRef::row_major(&above, 4, 4)?);
        kfra::through_linear(Reproducible, w, from, MatMut::row_major(&mut below, 3, 3)?, scratch)?;
        let derivatives = MatRef::row_major(&rows[1..], CASES, 3)?;
        let moment = MatMut::row_major(&mut below, 3, 3)?;
        kfra::through_activation(Reproducible, derivatives, moment, scratch)?;
        hash.numbers(&above);
        hash.numbers(&below);
    }
    Ok(())
}
