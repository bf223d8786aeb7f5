//! No heap: a counting allocator sees no allocation in any public verb, from the first call on, when the memory is
//! a static array.

use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt, Verdict};
use kfac_core::evidence::{ChainMoments, Moments, OutputGradients, Patches, Rows, Sequence};
use kfac_core::linalg::eigh::{Jacobi, Qr};
use kfac_core::linalg::{MatMut, MatRef, Reproducible, Scalar};
use kfac_core::losses::{Loss, Target};
use kfac_core::map::{ChainLimit, ChainSymmetric, Eigenbasis, Ekfac, FactorMap, Factored, Map, Shifted};
use kfac_core::memory::{Memory, scratch_len, state_len};
use kfac_core::recipe::{AdaptiveStep, ClippedStep};
use kfac_core::schedule::Schedule;
use kfac_core::shape::{Side, Window};
use kfac_core::step::{FisherProducts, KlClip, Slopes, StepBound, heavy_ball};
use kfac_core::{LayerError, LayerGradient, LayerShape, Preconditioner};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting touches a thread-local cell that
// needs neither allocation nor destruction.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `body` returns, and the allocations of this thread meanwhile.
fn allocations_of<R>(body: impl FnOnce() -> R) -> (R, usize) {
    let before = ALLOCATIONS.get();
    let result = body();
    (result, ALLOCATIONS.get() - before)
}

const WINDOW: Window = Window::new(1, [3, 4], [2, 2]).with_padding([[1, 0], [0, 1]]);
/// Dense, recurrent, convolution.
const NET: [LayerShape; 3] =
    [LayerShape::dense(4, 3), LayerShape::recurrent(2, 3), LayerShape::convolution(WINDOW, 2)];
const WEIGHTS: usize = NET[0].weights() + NET[1].weights() + NET[2].weights();
const CASES: usize = 2;
const STEPS: usize = 3;

const fn numbers_len<T: Scalar, M: Map<T>>() -> usize {
    state_len(&NET, M::LAYOUT)
}

const fn needed_scratch<T: Scalar, M: Map<T>>() -> usize {
    scratch_len::<T, Reproducible, M>(&NET)
}

/// The whole road, without a heap: every public verb at least once.
fn whole_road<T: Scalar, M: FactorMap<T>, const NUMBERS: usize>(
    map: M,
    memory: &mut Memory<T, NUMBERS, 3>,
    scratch: &mut [T],
    saved: &mut [u8],
) {
    let half = T::from_f64(0.5);
    let kfac = Preconditioner::new(&NET, map, Reproducible, memory.borrow()).unwrap();
    let schedule = Schedule { statistics_every: 1, refresh_every: 2 };
    let kfac = kfac.with_schedule(schedule).unwrap().with_decay(half).unwrap();
    let mut kfac = kfac.with_l2(T::from_f64(1e-3)).unwrap();
    let mut recipe = AdaptiveStep::new(LevenbergMarquardt::new(half, AdaptationRule::recurrent()).unwrap())
        .with_bound(StepBound::recurrent());
    let clipped = ClippedStep { rate: half, clip: KlClip::new(half).unwrap() };
    let mut previous = [T::ZERO; WEIGHTS];
    for step in 0..STEPS {
        let number = |at: usize| T::from_f64(((7 * at + 3 * step) % 11) as f64 / 5.0 - 1.0);
        let rows: [T; 48] = core::array::from_fn(number);
        let mut sampled = [T::ZERO; 3];
        Loss::Softmax.sampled_gradient(&rows[..3], &[17], &mut sampled).unwrap();
        Loss::Square.gradient(&rows[..3], Target::Values(&rows[3..6]), &mut sampled).unwrap();
        Loss::Bernoulli.fisher_product(&rows[..3], &rows[3..6], &sampled).unwrap();

        let matrix = |at: usize, n, m| MatRef::row_major(&rows[at..], n, m).unwrap();
        assert!(kfac.wants_statistics());
        let mut observation = kfac.observe(CASES);
        let g = OutputGradients::per_case(matrix(8, CASES, 3));
        observation.add(0, &Rows(matrix(0, CASES, 4)), g, scratch).unwrap();
        let sequence = Sequence::with_lengths(matrix(5, CASES * 3, 5), 3, &[3, 2]).unwrap();
        let g = OutputGradients::of_mean_loss(matrix(9, CASES * 3, 3), CASES);
        observation.add(1, &sequence, g, scratch).unwrap();
        let g = OutputGradients::of_weighted_nll(matrix(1, 12, 2), half);
        observation.add(2, &Patches::new(&rows[3..15], WINDOW).unwrap(), g, scratch).unwrap();
        // A refusal is a value too.
        kfac.observe(CASES).add(0, &Rows(matrix(0, 1, 3)), g, scratch).unwrap_err();

        let refreshed = if step == 0 { kfac.refresh_all(scratch) } else { kfac.refresh(scratch) };
        refreshed.unwrap();
        let v: [T; WEIGHTS] = core::array::from_fn(number);
        let mut u = v;
        let preconditioned = kfac.precondition_flat(&mut u, scratch).unwrap();
        let rate = clipped.rate(&preconditioned).unwrap();
        heavy_ball(&mut previous, &u, rate, half).unwrap();
        let weight = MatMut::row_major(&mut u[..15], 3, 5).unwrap();
        kfac.precondition(&mut [LayerGradient::joint(0, weight)], scratch).unwrap();
        let mut slopes = Slopes::default();
        slopes.add(&v, &u, &previous).unwrap();
        let fisher = FisherProducts { delta_delta: T::ONE, delta_previous: half, previous_previous: T::ONE };
        let proposal = recipe.propose(slopes, fisher).unwrap();
        assert!(proposal.divergence.is_finite());
        let verdict = recipe.judge(T::ONE, half);
        assert!(matches!(verdict, Verdict::Accepted { .. }));
        recipe.next_batch(T::ONE, half);
        kfac.set_damping(recipe.lambda()).unwrap();
        assert!(kfac.layer_report(0).is_some() && kfac.factor(2, Side::Output).is_some());

        let mut len = 0;
        let write = |piece: &[u8]| -> Result<(), ()> {
            saved.get_mut(len..len + piece.len()).ok_or(())?.copy_from_slice(piece);
            len += piece.len();
            Ok(())
        };
        kfac.save(write).unwrap();
        kfac.verify(&saved[..len]).unwrap().restore();
        assert!(kfac.verify(&saved[..len - 1]).is_err());
    }
}

/// One network's memory, scratch and saved bytes in a static, as firmware has them.
struct Room<T, const NUMBERS: usize, const SCRATCH: usize> {
    memory: Memory<T, NUMBERS, 3>,
    scratch: [T; SCRATCH],
    saved: [u8; 20_000],
}

impl<T: Scalar, const NUMBERS: usize, const SCRATCH: usize> Room<T, NUMBERS, SCRATCH> {
    const fn new() -> Self {
        Self { memory: Memory::new(), scratch: [T::ZERO; SCRATCH], saved: [0; 20_000] }
    }

    fn assert_no_allocation<M: FactorMap<T>>(&mut self, map: M) {
        let Self { memory, scratch, saved } = self;
        let ((), allocations) = allocations_of(|| whole_road(map, memory, scratch, saved));
        assert_eq!(allocations, 0, "{} in {}", M::NAME, std::any::type_name::<T>());
    }
}

#[test]
fn finished_moments_allocate_nothing() {
    let mut memory = Memory::<f64, { numbers_len::<f64, Factored>() }, 3>::new();
    let mut scratch = [0.0; needed_scratch::<f64, Factored>()];
    let mut kfac = Preconditioner::new(&NET, Factored, Reproducible, memory.borrow()).unwrap();
    let identity: [f64; 25] = core::array::from_fn(|at| if at % 6 == 0 { 1.0 } else { 0.0 });
    let [a, g] = [5, 3].map(|size| MatRef::with_strides(&identity, [size, size], [5, 1]).unwrap());
    let add = || kfac.observe(CASES).add_moments(0, Moments { a, g, positions: 1.0 }, &mut scratch);
    let (added, allocations) = allocations_of(add);
    assert_eq!((added, allocations), (Ok(()), 0));

    let mut memory = Memory::<f64, { numbers_len::<f64, ChainSymmetric>() }, 3>::new();
    let mut scratch = [0.0; needed_scratch::<f64, ChainSymmetric>()];
    let map = ChainSymmetric::full();
    let mut kfac = Preconditioner::new(&NET, map, Reproducible, memory.borrow()).unwrap();
    let moments = ChainMoments { a, a_lag: a, g, g_lag: g, lengths: &[(3, 0.5), (90, 0.5)] };
    let add = || {
        kfac.observe(CASES).add_chain_moments(0, moments, &mut scratch)?;
        kfac.refresh(&mut scratch)?;
        assert!(
            kfac.lag_moment(0, Side::Input).is_some() && kfac.chain_eigenvalues(0, Side::Output).is_some()
        );
        Ok(())
    };
    assert_eq!(allocations_of(add), (Ok::<(), LayerError>(()), 0));
}

#[test]
fn the_counter_counts() {
    let (vector, allocations) = allocations_of(|| vec![1, 2, 3]);
    assert_eq!((vector.len(), allocations), (3, 1));
}

/// A test for a map, in `f32` and `f64`, in memory whose size is known to the compiler.
macro_rules! no_verb_allocates {
    ($test:ident, $map:ty, $value:expr) => {
        #[test]
        fn $test() {
            type Of<T, const NUMBERS: usize, const SCRATCH: usize> = Mutex<Room<T, NUMBERS, SCRATCH>>;
            static SINGLE: Of<f32, { numbers_len::<f32, $map>() }, { needed_scratch::<f32, $map>() }> =
                Mutex::new(Room::new());
            static DOUBLE: Of<f64, { numbers_len::<f64, $map>() }, { needed_scratch::<f64, $map>() }> =
                Mutex::new(Room::new());
            SINGLE.lock().unwrap().assert_no_allocation($value);
            DOUBLE.lock().unwrap().assert_no_allocation($value);
        }
    };
}

no_verb_allocates!(no_verb_of_factored_allocates, Factored, Factored);
no_verb_allocates!(no_verb_of_eigenbasis_allocates, Eigenbasis<Qr>, Eigenbasis::full());
no_verb_allocates!(no_verb_of_eigenbasis_by_jacobi_allocates, Eigenbasis<Jacobi>, Eigenbasis::bounded(2));
no_verb_allocates!(no_verb_of_shifted_allocates, Shifted<Qr>, Shifted::full());
no_verb_allocates!(no_verb_of_ekfac_allocates, Ekfac<Qr>, Ekfac::full());
no_verb_allocates!(no_verb_of_a_symmetric_chain_allocates, ChainSymmetric<Qr>, ChainSymmetric::full());
no_verb_allocates!(no_verb_of_the_limit_of_a_chain_allocates, ChainLimit<Qr>, ChainLimit::full());
