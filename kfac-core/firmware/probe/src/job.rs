//! The job: 20 steps of a small network through every verb, and a hash of every number on the way.
//!
//! Three kinds of evidence (rows, a sequence with lengths, patches), gradients of sampled targets, refreshes dealt
//! over the steps, preconditioning, the clip, the quadratic model with its step bound, Levenberg-Marquardt; in the
//! middle the state is saved, verified and restored into other memory, which goes on. Inputs come from an integer
//! generator, so the hash depends on nothing but the arithmetic: with or without `std`, on any target.
//!
//! Nothing here needs an allocator: all memory lies in a [`Room`], a constant's worth of arrays.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};
use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt};
use kfac_core::evidence::{OutputGradients, Patches, Rows, Sequence};
use kfac_core::linalg::{MatRef, Reproducible, Scalar};
use kfac_core::losses::{Loss, LossError};
use kfac_core::map::{FactorMap, Map};
use kfac_core::memory::{Memory, scratch_len, state_len};
use kfac_core::recipe::{AdaptiveStep, ClippedStep};
use kfac_core::sampling::uniform;
use kfac_core::saved::saved_len;
use kfac_core::schedule::Schedule;
use kfac_core::shape::{Side, Window};
use kfac_core::step::{FisherProducts, KlClip, Slopes, StepBound, heavy_ball};
use kfac_core::{LayerShape, Preconditioner};

const WINDOW: Window =
    Window::new(2, [4, 5], [3, 2]).with_stride([2, 1]).with_dilation([1, 2]).with_padding([[1, 0], [0, 2]]);
const NET: [LayerShape; LAYERS] =
    [LayerShape::dense(7, 5), LayerShape::recurrent(2, 4), LayerShape::convolution(WINDOW, 3).without_bias()];
const LAYERS: usize = 3;
const WEIGHTS: usize = NET[0].weights() + NET[1].weights() + NET[2].weights();
const CASES: usize = 3;
/// Of the sequences, padded to 4.
const LENGTHS: [usize; CASES] = [4, 2, 3];
const STEPS: usize = 20;
const SCHEDULE: Schedule = Schedule { statistics_every: 2, refresh_every: 3 };

/// The memory of one run: two networks' states, scratch, saved bytes.
pub struct Room<T, const NUMBERS: usize, const SCRATCH: usize, const SAVED: usize> {
    memories: [Memory<T, NUMBERS, LAYERS>; 2],
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

pub const fn numbers<T: Scalar, M: Map<T>>() -> usize {
    state_len(&NET, M::LAYOUT)
}

pub const fn scratch<T: Scalar, M: Map<T>>() -> usize {
    scratch_len::<T, Reproducible, M>(&NET)
}

pub const fn saved<T: Scalar, M: Map<T>>() -> usize {
    saved_len::<T>(&NET, M::LAYOUT)
}

/// The type of the memory that a map needs in a number type.
macro_rules! room {
    ($float:ty, $map:ty) => {
        $crate::job::Room<
            $float,
            { $crate::job::numbers::<$float, $map>() },
            { $crate::job::scratch::<$float, $map>() },
            { $crate::job::saved::<$float, $map>() },
        >
    };
}
pub(crate) use room;

/// Runs the job: a hash over the bits of every `U`, factor, damping, step and saved byte.
pub fn run<T, M, const NUMBERS: usize, const SCRATCH: usize, const SAVED: usize>(
    map: M,
    room: &mut Room<T, NUMBERS, SCRATCH, SAVED>,
) -> Result<u64, Failed>
where
    T: Scalar,
    M: FactorMap<T>,
{
    let Room { memories: [first, second], scratch, saved } = room;
    let mut training = Training::new()?;
    let mut kfac = settings(Preconditioner::new(&NET, map, Reproducible, first.borrow())?)?;
    for step in 0..STEPS / 2 {
        training.step(&mut kfac, step, scratch)?;
    }

    let mut len = 0;
    kfac.save(|piece| {
        saved.get_mut(len..len + piece.len()).ok_or(Failed::new("saved_len"))?.copy_from_slice(piece);
        len += piece.len();
        Ok::<(), Failed>(())
    })?;
    training.hash.bytes(saved);
    let mut kfac = settings(Preconditioner::new(&NET, map, Reproducible, second.borrow())?)?;
    kfac.verify(saved)?.restore();
    for step in STEPS / 2..STEPS {
        training.step(&mut kfac, step, scratch)?;
    }
    Ok(training.hash.value())
}

fn settings<T: Scalar, M: Map<T>>(kfac: Kfac<'_, T, M>) -> Result<Kfac<'_, T, M>, Failed> {
    Ok(kfac.with_schedule(SCHEDULE)?.with_decay(T::from_f64(0.75))?.with_l2(T::from_f64(1e-4))?)
}

type Kfac<'s, T, M> = Preconditioner<'s, T, M, Reproducible>;

/// Everything of a run but the preconditioner.
struct Training<T> {
    numbers: Numbers,
    recipe: AdaptiveStep<T>,
    clipped: ClippedStep<T>,
    /// The last step.
    previous: [T; WEIGHTS],
    /// Heavy-ball momentum beside it.
    momentum: [T; WEIGHTS],
    hash: Hash,
}

impl<T: Scalar> Training<T> {
    fn new() -> Result<Self, Failed> {
        let rule = AdaptationRule::recurrent();
        let damping = LevenbergMarquardt::new(T::from_f64(0.1), rule)?;
        let clip = KlClip::new(T::from_f64(1e-2))?;
        Ok(Self {
            numbers: Numbers::new(),
            recipe: AdaptiveStep::new(damping).with_bound(StepBound::recurrent()),
            clipped: ClippedStep { rate: T::from_f64(0.3), clip },
            previous: [T::ZERO; WEIGHTS],
            momentum: [T::ZERO; WEIGHTS],
            hash: Hash::new(),
        })
    }

    fn step<M: FactorMap<T>>(
        &mut self,
        kfac: &mut Kfac<'_, T, M>,
        step: usize,
        scratch: &mut [T],
    ) -> Result<(), Failed> {
        if kfac.wants_statistics() {
            self.observe(kfac, scratch)?;
        }
        // The cold start is explicit; from then on each step renews its share.
        let report = if step == 0 { kfac.refresh_all(scratch)? } else { kfac.refresh(scratch)? };
        self.hash.bytes(&report.flops.to_le_bytes());
        for (layer, side) in (0..LAYERS).flat_map(|layer| Side::BOTH.map(|side| (layer, side))) {
            // Not every map keeps it; the saved bytes have what it keeps instead.
            if let Some((sum, weight)) = kfac.factor(layer, side) {
                self.hash.numbers(sum.data());
                self.hash.numbers(&[weight]);
            }
        }

        let v: [T; WEIGHTS] = core::array::from_fn(|_| self.numbers.signed());
        let mut u = v;
        let preconditioned = kfac.precondition_flat(&mut u, scratch)?;
        self.hash.numbers(&u);
        self.hash.numbers(&[preconditioned.inner, preconditioned.gradient_squares.unwrap_or(T::ZERO)]);
        let rate = self.clipped.rate(&preconditioned)?;
        heavy_ball(&mut self.momentum, &u, rate, T::from_f64(0.9))?;
        self.hash.numbers(&self.momentum);

        let delta = u.map(|u| -u);
        let mut slopes = Slopes::default();
        slopes.add(&v, &delta, &self.previous)?;
        let fisher = self.fisher_products(&delta)?;
        let proposal = self.recipe.propose(slopes, fisher)?;
        for (previous, delta) in self.previous.iter_mut().zip(delta) {
            *previous = proposal.alpha * delta + proposal.mu * *previous;
        }
        // A loss that keeps between none and six fifths of what was promised; once it is not a number.
        let kept = T::from_f64(1.2) * uniform(self.numbers.next());
        let after = if step == 7 { T::from_f64(f64::NAN) } else { T::ONE + kept * proposal.predicted };
        let _ = self.recipe.judge(T::ONE, after);
        self.recipe.next_batch(T::ONE, T::ONE + kept * proposal.predicted);
        kfac.set_damping(self.recipe.lambda())?;
        self.hash.numbers(&self.previous);
        self.hash.numbers(&[proposal.alpha, proposal.mu, proposal.predicted, proposal.divergence]);
        self.hash.numbers(&[kfac.damping()]);
        Ok(())
    }

    /// Rows for the first layer, a sequence for the second, patches for the third.
    fn observe<M: FactorMap<T>>(
        &mut self,
        kfac: &mut Kfac<'_, T, M>,
        scratch: &mut [T],
    ) -> Result<(), Failed> {
        const POSITIONS: usize = 4;
        let mut observation = kfac.observe(CASES);

        let inputs: [T; CASES * 7] = core::array::from_fn(|_| self.numbers.signed());
        let gradients = self.sampled::<{ CASES * 5 }>(Loss::Softmax, 5)?;
        // Two cases and then one.
        for rows in [0..2, 2..3] {
            let a = Rows(MatRef::row_major(&inputs, CASES, 7)?.block(rows.clone(), 0..7)?);
            let g = MatRef::row_major(&gradients, CASES, 5)?.block(rows, 0..5)?;
            observation.add(0, &a, OutputGradients::per_case(g), scratch)?;
        }

        let inputs: [T; CASES * POSITIONS * 6] = core::array::from_fn(|_| self.numbers.signed());
        let gradients = self.sampled::<{ CASES * POSITIONS * 4 }>(Loss::Square, 4)?;
        let rows = MatRef::row_major(&inputs, CASES * POSITIONS, 6)?;
        let sequence = Sequence::with_lengths(rows, POSITIONS, &LENGTHS)?;
        let g = MatRef::row_major(&gradients, CASES * POSITIONS, 4)?;
        observation.add(1, &sequence, OutputGradients::of_mean_loss(g, CASES), scratch)?;

        let images: [T; CASES * WINDOW.image_len()] = core::array::from_fn(|_| self.numbers.signed());
        let gradients = self.sampled::<{ CASES * WINDOW.locations() * 3 }>(Loss::Bernoulli, 3)?;
        let g = MatRef::row_major(&gradients, CASES * WINDOW.locations(), 3)?;
        let g = OutputGradients::of_weighted_nll(g, T::from_f64(0.3));
        Ok(observation.add(2, &Patches::new(&images, WINDOW)?, g, scratch)?)
    }

    /// Gradients at targets drawn from made-up outputs, `outputs` to a row.
    fn sampled<const LEN: usize>(&mut self, loss: Loss, outputs: usize) -> Result<[T; LEN], LossError> {
        let mut gradients = [T::ZERO; LEN];
        for row in gradients.chunks_exact_mut(outputs) {
            let f: [T; 8] = core::array::from_fn(|_| T::from_f64(3.0) * self.numbers.signed());
            let bits: [u32; 8] = core::array::from_fn(|_| self.numbers.next());
            loss.sampled_gradient(&f[..outputs], &bits, row)?;
        }
        Ok(gradients)
    }

    /// The Fisher products of a network whose five outputs are sums of every fifth weight.
    fn fisher_products(&mut self, delta: &[T; WEIGHTS]) -> Result<FisherProducts<T>, LossError> {
        let f: [T; 5] = core::array::from_fn(|_| self.numbers.signed());
        let tangent = |direction: &[T; WEIGHTS]| -> [T; 5] {
            core::array::from_fn(|i| direction.iter().skip(i).step_by(5).fold(T::ZERO, |sum, &x| sum + x))
        };
        let (v, w) = (tangent(delta), tangent(&self.previous));
        Ok(FisherProducts {
            delta_delta: Loss::Softmax.fisher_product(&f, &v, &v)?,
            delta_previous: Loss::Softmax.fisher_product(&f, &v, &w)?,
            previous_previous: Loss::Softmax.fisher_product(&f, &w, &w)?,
        })
    }
}

/// An integer generator: the upper bits of a 64-bit linear congruence (Knuth's constants).
pub struct Numbers(pub u64);

impl Numbers {
    pub const fn new() -> Self {
        Self(1)
    }

    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// In `[-1, 1)`, the same number in either type.
    pub fn signed<T: Scalar>(&mut self) -> T {
        T::from_f64(2.0) * uniform::<T>(self.next()) - T::ONE
    }
}

/// FNV-1a (Fowler, Noll and Vo), 64 bits.
pub struct Hash(pub u64);

impl Hash {
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn numbers<T: Scalar>(&mut self, numbers: &[T]) {
        let mut bytes = [0; 8];
        for number in numbers {
            number.write_le(&mut bytes[..T::BYTES]);
            self.bytes(&bytes[..T::BYTES]);
        }
    }

    pub fn value(&self) -> u64 {
        self.0
    }
}

/// The sentence of any error, cut to what a fixed array holds.
pub struct Failed {
    text: [u8; 96],
    len: usize,
}

impl Failed {
    pub fn new(what: impl fmt::Display) -> Self {
        let mut failed = Self { text: [0; 96], len: 0 };
        // Writing cuts what does not fit, and never fails.
        let _ = write!(failed, "{what}");
        failed
    }

    /// The sentence.
    pub fn text(&self) -> &str {
        core::str::from_utf8(&self.text[..self.len]).unwrap_or("an error that is no text")
    }
}

impl Write for Failed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (place, &byte) in self.text[self.len..].iter_mut().zip(text.as_bytes()) {
            *place = byte;
            self.len += 1;
        }
        Ok(())
    }
}

// Not an error itself, so that every error converts.
impl<E: core::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}
