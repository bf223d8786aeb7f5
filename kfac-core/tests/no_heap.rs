//! No heap: a counting allocator sees no allocation in any public verb, from the first call on, when the memory is
//! a static array.

use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt, Verdict};
use kfac_core::evidence::{ChainMoments, Moments, OutputGradients, Patches, Rows, Sequence};
use kfac_core::linalg::eigh::jacobi::Budget;
use kfac_core::linalg::eigh::{Jacobi, Qr};
use kfac_core::linalg::{MatMut, MatRef, Reproducible, Scalar};
use kfac_core::losses::{Loss, Target};
use kfac_core::map::{
    ChainLimit, ChainSymmetric, Diagonal, Eigenbasis, Ekfac, Embedding, FactorMap, Factored, Map, RowsMap,
    Shifted,
};
use kfac_core::memory::{Memory, Moment, rows_scratch_len, scratch_len, state_len};
use kfac_core::recipe::{AdaptiveStep, ClippedStep};
use kfac_core::schedule::Schedule;
use kfac_core::shape::{Side, Window};
use kfac_core::statistics::kfra;
use kfac_core::step::{FisherProducts, KlClip, Slopes, StepBound, heavy_ball};
use kfac_core::tensor::{
    self, Accumulation, BasisRefresh, GradientMap, Grafting, Shampoo, Soap, TensorMemory,
    TensorPreconditioner, TensorShape,
};
use kfac_core::tridiagonal::{self, LayerRows, MomentPair, NetworkMoments};
use kfac_core::{LayerError, LayerGradient, LayerShape, Preconditioner, Tridiagonal};
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
        assert!(kfac.layer_report(0).is_some());
        let is_whole = M::LAYOUT.output.moment == Moment::Full;
        assert_eq!(kfac.factor(2, Side::Output).is_some(), is_whole);

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

/// At two cases of the first layer, 3 x 5, `Eigenbasis` goes by the rows and `Factored` by the gradient.
#[test]
fn rows_are_preconditioned_without_an_allocation() {
    fn check<M: RowsMap<f64> + FactorMap<f64>, const NUMBERS: usize>(
        map: M,
        memory: &mut Memory<f64, NUMBERS, 3>,
        scratch: &mut [f64],
    ) {
        let rows: [f64; 14] = core::array::from_fn(|at| (at % 5) as f64 - 1.5);
        let matrix = |at: usize, width| MatRef::row_major(&rows[at..], CASES, width).unwrap();
        let (a, g) = (Rows(matrix(0, 4)), OutputGradients::per_case(matrix(8, 3)));
        let mut kfac = Preconditioner::new(&NET, map, Reproducible, memory.borrow()).unwrap();
        kfac.observe(CASES).add(0, &a, g, scratch).unwrap();
        kfac.refresh(scratch).unwrap();
        let mut u = [0.0; 15];
        let mut out = LayerGradient::joint(0, MatMut::row_major(&mut u, 3, 5).unwrap());
        let ((), allocations) = allocations_of(|| {
            kfac.precondition_rows(&a, g, &mut out, scratch).unwrap();
        });
        assert_eq!(allocations, 0, "{}", M::NAME);
    }
    const fn scratch<M: RowsMap<f64>>() -> usize {
        let rows = rows_scratch_len::<f64, Reproducible, M>(&NET, CASES);
        rows + needed_scratch::<f64, M>()
    }
    let mut memory = Memory::<f64, { numbers_len::<f64, Factored>() }, 3>::new();
    check(Factored, &mut memory, &mut [0.0; scratch::<Factored>()]);
    let mut memory = Memory::<f64, { numbers_len::<f64, Eigenbasis<Qr>>() }, 3>::new();
    check(Eigenbasis::full(), &mut memory, &mut [0.0; scratch::<Eigenbasis<Qr>>()]);
}

/// A chain of dense layers, all of whose memory is static.
const CHAIN: [LayerShape; 3] =
    [LayerShape::dense(4, 3), LayerShape::dense(3, 5).without_bias(), LayerShape::dense(5, 2)];

#[test]
fn no_verb_of_tridiagonal_allocates() {
    const NUMBERS: usize = tridiagonal::state_len(&CHAIN);
    const SCRATCH: usize = tridiagonal::scratch_len::<f32, Reproducible>(&CHAIN);
    const SAVED: usize = tridiagonal::saved_len::<f32>(&CHAIN);
    static MEMORY: Mutex<(Memory<f32, NUMBERS, 1>, [f32; SCRATCH], [u8; SAVED])> =
        Mutex::new((Memory::new(), [0.0; SCRATCH], [0; SAVED]));
    let mut memory = MEMORY.lock().unwrap();
    let ((), allocations) = allocations_of(|| {
        let (memory, scratch, saved) = &mut *memory;
        let kfac = Tridiagonal::new(&CHAIN, Reproducible, memory.borrow()).unwrap();
        let schedule = Schedule { statistics_every: 1, refresh_every: 2 };
        let kfac = kfac.with_schedule(schedule).unwrap().with_decay(0.5).unwrap();
        let mut kfac = kfac.with_l2(1e-3).unwrap();
        for step in 0..STEPS {
            let rows: [f32; 36] = core::array::from_fn(|at| ((7 * at + 3 * step) % 11) as f32 / 5.0 - 1.0);
            let layer = |at: usize, shape: LayerShape| {
                let view = |at: usize, width| MatRef::row_major(&rows[at..], CASES, width).unwrap();
                let gradients = OutputGradients::per_case(view(at + 1, shape.outputs()));
                LayerRows { inputs: Rows(view(at, shape.features())), gradients }
            };
            let layers = [layer(0, CHAIN[0]), layer(5, CHAIN[1]), layer(9, CHAIN[2])];
            kfac.observe(CASES).add(&layers, scratch).unwrap();
            // A refusal is a value too.
            kfac.observe(CASES).add(&layers[..2], scratch).unwrap_err();
            let square = |at, size| MatRef::row_major(&rows[at..], size, size).unwrap();
            let own = [MomentPair { a: square(0, 5), g: square(0, 3) }; 3];
            let moments = NetworkMoments { own: &own, next: &[] };
            kfac.observe(CASES).add_moments(moments, scratch).unwrap_err();
            kfac.set_damping(0.1).unwrap();
            let refreshed = if step == 0 { kfac.refresh_all(scratch) } else { kfac.refresh(scratch) };
            refreshed.unwrap();
            let mut u: [f32; 15 + 15 + 12] = core::array::from_fn(|at| (at % 5) as f32);
            kfac.precondition_flat(&mut u, scratch).unwrap();
            let (first, rest) = u.split_at_mut(15);
            let (second, third) = rest.split_at_mut(15);
            let joint =
                |layer, block, m, n| LayerGradient::joint(layer, MatMut::row_major(block, m, n).unwrap());
            let gradients = &mut [joint(0, first, 3, 5), joint(1, second, 5, 3), joint(2, third, 2, 6)];
            kfac.precondition(gradients, scratch).unwrap();
            assert!(kfac.factor(0, Side::Input).is_some() && kfac.next_factor(0, Side::Output).is_some());
            assert!(kfac.psi(1, Side::Input).is_some() && kfac.report().failures == 0);
            let mut len = 0;
            let write = |piece: &[u8]| -> Result<(), ()> {
                saved.get_mut(len..len + piece.len()).ok_or(())?.copy_from_slice(piece);
                len += piece.len();
                Ok(())
            };
            kfac.save(write).unwrap();
            assert_eq!(len, SAVED);
            kfac.verify(saved).unwrap().restore();
        }
    });
    assert_eq!(allocations, 0);
}

#[test]
fn the_recursion_for_the_output_moment_allocates_nothing() {
    let mut memory = Memory::<f64, { numbers_len::<f64, Factored>() }, 3>::new();
    let mut scratch = [0.0; 2000];
    let rows: [f64; 16] = core::array::from_fn(|at| at as f64 / 7.0 - 1.0);
    let ((), allocations) = allocations_of(|| {
        let mut kfac = Preconditioner::new(&NET, Factored, Reproducible, memory.borrow()).unwrap();
        let view = |cases, width| MatRef::row_major(&rows, cases, width).unwrap();
        let (mut g, mut below) = ([0.0; 4], [0.0; 9]);
        let into = MatMut::row_major(&mut g, 2, 2).unwrap();
        kfra::mean_loss_hessian(Loss::Softmax, 1.0, view(CASES, 2), into, &mut scratch).unwrap();
        let g = MatRef::row_major(&g, 2, 2).unwrap();
        let into = MatMut::row_major(&mut below, 3, 3).unwrap();
        kfra::through_linear(Reproducible, view(2, 3), g, into, &mut scratch).unwrap();
        let moment = MatMut::row_major(&mut below, 3, 3).unwrap();
        kfra::through_activation(Reproducible, view(CASES, 3), moment, &mut scratch).unwrap();
        let (inputs, g) = (Rows(view(CASES, 4)), MatRef::row_major(&below, 3, 3).unwrap());
        kfac.observe(CASES).add_with_output_moment(0, &inputs, g, &mut scratch).unwrap();
    });
    assert_eq!(allocations, 0);
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
no_verb_allocates!(no_verb_of_embedding_allocates, Embedding<Qr>, Embedding::full());
no_verb_allocates!(no_verb_of_diagonal_allocates, Diagonal, Diagonal);

/// Tensors of orders 0 to 3, one axis left alone.
const TENSORS: [TensorShape; 3] =
    [TensorShape::new([3, 2, 9]).limited(4), TensorShape::new([1, 3, 2]).merged(2), TensorShape::new([])];
const SHAMPOO: Shampoo<f32> = Shampoo {
    grafting: Grafting::Adam { decay: 0.5, epsilon: 1e-3 },
    beta1: Some(0.5),
    ..Shampoo::new(Accumulation::CorrectedAverage { decay: 0.5, epsilon: 1e-3 })
};
const SOAP: Soap<f64, Jacobi> = Soap {
    beta1: Some(0.5),
    beta2: 0.5,
    shampoo_beta: 0.5,
    epsilon: 1e-3,
    refresh: BasisRefresh::SubspaceStep,
    solver: Jacobi { budget: Budget::FULL },
};

/// Every verb of a preconditioner of tensors.
fn whole_road_of_tensors<T: Scalar, M: GradientMap<T>, const NUMBERS: usize>(
    map: M,
    memory: &mut TensorMemory<T, NUMBERS, 3>,
    scratch: &mut [T],
    saved: &mut [u8],
) {
    let schedule = Schedule { statistics_every: 1, refresh_every: 2 };
    let tensors = TensorPreconditioner::new(&TENSORS, map, Reproducible, memory.borrow()).unwrap();
    let mut tensors = tensors.with_schedule(schedule).unwrap();
    for step in 0..4 {
        let number = |at: usize| T::from_f64(((7 * at + 3 * step) % 11) as f64 / 5.0 - 1.0);
        let (mut first, mut second): ([T; 54], [T; 6]) =
            (core::array::from_fn(number), core::array::from_fn(number));
        let mut last = [number(1)];
        let mut gradients = [&mut first[..], &mut second, &mut last];
        assert!(tensors.wants_statistics());
        tensors.step(&mut gradients, scratch).unwrap();
        tensors.observe(&gradients, scratch).unwrap();
        tensors.refresh_all(scratch).unwrap();
        tensors.precondition(&mut gradients, scratch).unwrap();
        tensors.observe(&gradients[1..], scratch).unwrap_err();
        assert!(tensors.is_ready() && tensors.moment(0, 0).is_some() && tensors.tensor_report(2).is_some());

        let mut len = 0;
        let write = |piece: &[u8]| -> Result<(), ()> {
            saved.get_mut(len..len + piece.len()).ok_or(())?.copy_from_slice(piece);
            len += piece.len();
            Ok(())
        };
        tensors.save(write).unwrap();
        tensors.verify(&saved[..len]).unwrap().restore();
    }
}

#[test]
fn no_verb_of_tensors_allocates() {
    const SHAMPOO_NUMBERS: usize = tensor::state_len(&TENSORS, SHAMPOO.layout());
    const SHAMPOO_SCRATCH: usize = tensor::scratch_len::<f32>(&TENSORS, SHAMPOO.layout());
    const SHAMPOO_SAVED: usize = tensor::saved_len::<f32>(&TENSORS, SHAMPOO.layout());
    const SOAP_NUMBERS: usize = tensor::state_len(&TENSORS, SOAP.layout());
    const SOAP_SCRATCH: usize = tensor::scratch_len::<f64>(&TENSORS, SOAP.layout());
    const SOAP_SAVED: usize = tensor::saved_len::<f64>(&TENSORS, SOAP.layout());
    static SHAMPOO_MEMORY: Mutex<TensorMemory<f32, SHAMPOO_NUMBERS, 3>> = Mutex::new(TensorMemory::new());
    static SOAP_MEMORY: Mutex<TensorMemory<f64, SOAP_NUMBERS, 3>> = Mutex::new(TensorMemory::new());

    let (mut memory, mut scratch) = (SHAMPOO_MEMORY.lock().unwrap(), [0.0; SHAMPOO_SCRATCH]);
    let road = || whole_road_of_tensors(SHAMPOO, &mut memory, &mut scratch, &mut [0; SHAMPOO_SAVED]);
    assert_eq!(allocations_of(road).1, 0, "shampoo");
    let (mut memory, mut scratch) = (SOAP_MEMORY.lock().unwrap(), [0.0; SOAP_SCRATCH]);
    let road = || whole_road_of_tensors(SOAP, &mut memory, &mut scratch, &mut [0; SOAP_SAVED]);
    assert_eq!(allocations_of(road).1, 0, "soap");
}
no_verb_allocates!(no_verb_of_a_symmetric_chain_allocates, ChainSymmetric<Qr>, ChainSymmetric::full());
no_verb_allocates!(no_verb_of_the_limit_of_a_chain_allocates, ChainLimit<Qr>, ChainLimit::full());
