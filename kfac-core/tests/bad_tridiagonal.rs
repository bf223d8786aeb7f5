//! What `Tridiagonal` refuses, by name: evidence, moments, gradients, factors that no network has, storage and saved bytes.
//! The state is as if the call had not been made.
#![cfg(feature = "alloc")] // Its storage is on the heap.

mod common;

use common::chain_net::{Batch, Room, saved};
use common::{bits, random};
use kfac_core::error::{LayerErrorKind, Quantity, SettingError};
use kfac_core::evidence::{OutputGradients, Rows};
use kfac_core::linalg::{MatMut, MatRef, Reproducible, ScratchError, ShapeError};
use kfac_core::map::MapError;
use kfac_core::memory::{Buffer, LayerSlot, Storage, StorageError};
use kfac_core::saved::StateError;
use kfac_core::schedule::Schedule;
use kfac_core::shape::Side;
use kfac_core::tridiagonal::{LayerRows, MomentPair, NetworkMoments, saved_len, scratch_len, state_len};
use kfac_core::{LayerError, LayerGradient, LayerShape, Tridiagonal};

const NET: [LayerShape; 3] =
    [LayerShape::dense(4, 3), LayerShape::dense(3, 5).without_bias(), LayerShape::dense(5, 2)];
const WEIGHTS: usize = 15 + 15 + 12;
const CASES: usize = 7;

fn shape(quantity: Quantity, expected: [usize; 2], found: [usize; 2]) -> LayerErrorKind {
    LayerErrorKind::Shape { quantity, error: ShapeError::new(expected, found) }
}

fn at<T>(layer: usize, kind: LayerErrorKind) -> Result<T, LayerError> {
    Err(LayerError { layer, kind })
}

#[test]
fn evidence_that_is_refused_is_named_and_changes_nothing() {
    let mut room = Room::<f32>::new::<Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Reproducible);
    for round in 0..2 {
        let good = Batch::<f32>::new(&NET, CASES, round);
        let before = saved(&kfac);
        let mut refused = |what: &str, cases: usize, layers: &[LayerRows<'_, f32>], error| {
            assert_eq!(kfac.observe(cases).add(layers, scratch), error, "{what}");
            assert_eq!(saved(&kfac), before, "{what}");
        };
        let rows = good.layers(0..CASES);
        refused("no layer", CASES, &[], at(0, LayerErrorKind::MissingLayer));
        refused("a layer too few", CASES, &rows[..2], at(2, LayerErrorKind::MissingLayer));
        let four = [rows[0], rows[1], rows[2], rows[0]];
        refused("a layer too many", CASES, &four, at(3, LayerErrorKind::NoSuchLayer { layers: 3 }));
        refused("no case", CASES, &good.layers(2..2), at(0, LayerErrorKind::EmptyBatch));
        refused("no case announced", 0, &rows, at(0, LayerErrorKind::EmptyBatch));
        let too_many = LayerErrorKind::TooManyCases { announced: 6, found: 7 };
        refused("too many cases", 6, &rows, at(0, too_many));

        let fewer = good.layers(0..CASES - 1);
        let inputs = Quantity::Inputs;
        let lengths = shape(inputs, [7, 5], [6, 5]);
        refused("a layer with fewer cases", CASES, &[rows[0], rows[1], fewer[2]], at(2, lengths));
        let widths = shape(inputs, [7, 3], [7, 4]);
        refused("another layer's rows", CASES, &[rows[0], rows[0], rows[2]], at(1, widths));
        let mixed = LayerRows { inputs: rows[1].inputs, gradients: fewer[1].gradients };
        let gradients = shape(Quantity::OutputGradients, [7, 5], [6, 5]);
        refused("fewer gradients", CASES, &[rows[0], mixed, rows[2]], at(1, gradients));
        let scaled = OutputGradients::of_weighted_nll(rows[2].gradients.rows(), 0.0);
        let scaled = LayerRows { gradients: scaled, ..rows[2] };
        let factor = LayerErrorKind::GradientScale { factor: f64::INFINITY };
        refused("a scale", CASES, &[rows[0], rows[1], scaled], at(2, factor));

        for (side, quantity, column) in [(0, inputs, 4), (1, Quantity::OutputGradients, 1)] {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut bad = good.clone();
                *bad.rows[2][side].last_mut().unwrap() = value;
                let kind = LayerErrorKind::NotFinite { quantity, row: 6, column };
                refused("not finite", CASES, &bad.layers(0..CASES), at(2, kind));
            }
            let mut bad = good.clone();
            *bad.rows[2][side].last_mut().unwrap() = 1e30;
            let kind = LayerErrorKind::Overflow { quantity, largest: f64::from(1e30_f32) };
            refused("overflow", CASES, &bad.layers(0..CASES), at(2, kind));
        }
        let short = LayerErrorKind::Scratch(ScratchError { needed: scratch.len(), found: 3 });
        assert_eq!(kfac.observe(CASES).add(&rows, &mut scratch[..3]), at(0, short));

        // Half of a batch that is followed by a refused half is kept, and counts once.
        let mut observation = kfac.observe(CASES);
        observation.add(&good.layers(0..3), scratch).unwrap();
        let kind = LayerErrorKind::TooManyCases { announced: 7, found: 10 };
        assert_eq!(observation.add(&rows, scratch), at(0, kind));
        observation.add(&good.layers(3..7), scratch).unwrap();
        assert_eq!(kfac.report().updates, round as u32 + 1);
    }
}

/// What is refused is the sum, not the numbers: two rows that fit one by one.
#[test]
fn evidence_whose_sum_would_overflow_is_refused_and_what_fits_stays_finite_for_good() {
    let net = [LayerShape::dense(1, 1).without_bias(); 2];
    let mut room = Room::<f32>::new::<Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Reproducible);
    let large = [0.7e19_f32; 2];
    let layers = |cases| {
        let rows = MatRef::row_major(&large, cases, 1).unwrap();
        [LayerRows { inputs: Rows(rows), gradients: OutputGradients::per_case(rows) }; 2]
    };
    for _ in 0..30 {
        let mut observation = kfac.observe(2);
        observation.add(&layers(1), scratch).unwrap();
        observation.add(&layers(1), scratch).unwrap();
    }
    for side in Side::BOTH {
        assert!(kfac.factor(1, side).unwrap().0.at(0, 0).is_finite());
        assert!(kfac.next_factor(0, side).unwrap().0.at(0, 0).is_finite());
    }
    let before = saved(&kfac);
    let kind = LayerErrorKind::Overflow { quantity: Quantity::Inputs, largest: f64::from(large[0]) };
    assert_eq!(kfac.observe(2).add(&layers(2), scratch), at(0, kind));
    assert_eq!(saved(&kfac), before);
}

/// Moments of `NET` that are the identity in every place.
struct Identities {
    numbers: Vec<f64>,
}

impl Identities {
    fn new() -> Self {
        Self { numbers: (0..36).map(|at| if at % 7 == 0 { 1.0 } else { 0.0 }).collect() }
    }

    fn matrix(&self, rows: usize, cols: usize) -> MatRef<'_, f64> {
        MatRef::with_strides(&self.numbers, [rows, cols], [6, 1]).unwrap()
    }

    fn own(&self) -> [MomentPair<'_, f64>; 3] {
        NET.map(|shape| MomentPair {
            a: self.matrix(shape.inputs(), shape.inputs()),
            g: self.matrix(shape.outputs(), shape.outputs()),
        })
    }
}

/// Zero between layers.
const ZEROS: [f64; 36] = [0.0; 36];

fn zeros(rows: usize, cols: usize) -> MatRef<'static, f64> {
    MatRef::row_major(&ZEROS, rows, cols).unwrap()
}

fn uncoupled() -> [MomentPair<'static, f64>; 2] {
    [MomentPair { a: zeros(5, 3), g: zeros(3, 5) }, MomentPair { a: zeros(3, 6), g: zeros(5, 2) }]
}

#[test]
fn moments_that_are_refused_are_named_and_change_nothing() {
    let mut room = Room::<f64>::new::<Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Reproducible);
    let identities = Identities::new();
    let (own, next) = (identities.own(), uncoupled());
    for _ in 0..2 {
        let before = saved(&kfac);
        let mut refused = |what: &str, own: &[MomentPair<'_, f64>], next: &[MomentPair<'_, f64>], error| {
            let added = kfac.observe(CASES).add_moments(NetworkMoments { own, next }, scratch);
            assert_eq!(added, error, "{what}");
            assert_eq!(saved(&kfac), before, "{what}");
        };
        refused("a layer too few", &own[..2], &next, at(2, LayerErrorKind::MissingLayer));
        refused("none between", &own, &next[..1], at(1, LayerErrorKind::MissingLayer));
        let three = [next[0], next[1], next[0]];
        refused("one behind", &own, &three, at(2, LayerErrorKind::NoSuchLayer { layers: 2 }));
        let wide = shape(Quantity::InputMoment, [3, 3], [5, 5]);
        refused("shape", &[own[0], own[0], own[2]], &next, at(1, wide));
        let wide = shape(Quantity::NextInputMoment, [3, 6], [5, 3]);
        refused("shape between", &own, &[next[0], next[0]], at(1, wide));
        let turned = [next[0], MomentPair { a: next[1].a, g: next[1].g.transposed() }];
        let wide = shape(Quantity::NextOutputMoment, [5, 2], [2, 5]);
        refused("transposed", &own, &turned, at(1, wide));
        for value in [f64::NAN, f64::INFINITY, f64::MAX] {
            let mut numbers = ZEROS;
            numbers[5 + 1] = value; // Row 3, column 0 of five rows of two; row 1, column 0 of three rows of six.
            let kind = |quantity, row, column| match value == f64::MAX {
                true => LayerErrorKind::Overflow { quantity, largest: value },
                false => LayerErrorKind::NotFinite { quantity, row, column },
            };
            let [a, g] = [[3, 6], [5, 2]].map(|[m, n]| MatRef::row_major(&numbers, m, n).unwrap());
            let bad = [next[0], MomentPair { a, g: next[1].g }];
            refused("inputs", &own, &bad, at(1, kind(Quantity::NextInputMoment, 1, 0)));
            let bad = [next[0], MomentPair { a: next[1].a, g }];
            refused("outputs", &own, &bad, at(1, kind(Quantity::NextOutputMoment, 3, 0)));
            let g = MatRef::row_major(&numbers, 5, 5).unwrap();
            let bad = [own[0], MomentPair { a: own[1].a, g }, own[2]];
            refused("own", &bad, &next, at(1, kind(Quantity::OutputMoment, 1, 1)));
        }
        kfac.observe(1).add_moments(NetworkMoments { own: &own, next: &next }, scratch).unwrap();
    }
}

#[test]
fn gradients_that_are_refused_are_named_and_left_as_they_were() {
    let mut room = Room::<f64>::new::<Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Reproducible);
    let v: Vec<f64> = random(WEIGHTS, 5);
    let mut u = v.clone();
    assert_eq!(kfac.precondition_flat(&mut u, scratch), at(0, LayerErrorKind::NoStatistics));
    assert_eq!(kfac.refresh(scratch).unwrap().without_statistics, 1);
    Batch::new(&NET, CASES, 1).observe(&mut kfac, &[CASES], scratch).unwrap();
    assert_eq!(kfac.precondition_flat(&mut u, scratch), at(0, LayerErrorKind::NotReady));
    kfac.refresh(scratch).unwrap();
    let before = saved(&kfac);

    for (layers, error) in [
        (&[0, 1][..], at(2, LayerErrorKind::MissingLayer)),
        (&[2, 1], at(0, LayerErrorKind::MissingLayer)),
        (&[0, 1, 2, 1], at(1, LayerErrorKind::RepeatedLayer)),
        (&[0, 1, 3, 2], at(3, LayerErrorKind::NoSuchLayer { layers: 3 })),
    ] {
        let mut blocks: Vec<Vec<f64>> = layers.iter().map(|&layer| random(15, layer as u64)).collect();
        let original = blocks.clone();
        let mut gradients: Vec<LayerGradient<'_, f64>> = blocks
            .iter_mut()
            .zip(layers)
            .map(|(block, &layer)| {
                let [m, n] = NET.get(layer).map_or([3, 5], |shape| [shape.outputs(), shape.inputs()]);
                LayerGradient::joint(layer, MatMut::row_major(block, m, n).unwrap())
            })
            .collect();
        assert_eq!(kfac.precondition(&mut gradients, scratch), error, "{layers:?}");
        assert_eq!(blocks, original);
    }
    let mut flat = |what: &str, mut numbers: Vec<f64>, error| {
        let original = bits(&numbers);
        assert_eq!(kfac.precondition_flat(&mut numbers, scratch), error, "{what}");
        assert_eq!(bits(&numbers), original, "{what}");
    };
    flat("short", v[..20].to_vec(), at(1, shape(Quantity::Gradient, [15, 1], [5, 1])));
    let long = [&v[..], &[0.0]].concat();
    flat("long", long, at(2, shape(Quantity::Gradient, [WEIGHTS, 1], [WEIGHTS + 1, 1])));
    let with = |at: usize, value: f64| {
        let mut v = v.clone();
        v[at] = value;
        v
    };
    let quantity = Quantity::Gradient;
    flat("NaN", with(19, f64::NAN), at(1, LayerErrorKind::NotFinite { quantity, row: 1, column: 1 }));
    flat("large", with(41, 1e200), at(2, LayerErrorKind::Overflow { quantity, largest: 1e200 }));
    assert_eq!(saved(&kfac), before);

    let mut wrong = [0.0; 15];
    let (mut first, mut last) = ([0.0; 15], [0.0; 12]);
    let mut gradients = [
        LayerGradient::joint(0, MatMut::row_major(&mut first, 3, 5).unwrap()),
        LayerGradient::joint(1, MatMut::row_major(&mut wrong, 3, 5).unwrap()),
        LayerGradient::joint(2, MatMut::row_major(&mut last, 2, 6).unwrap()),
    ];
    let turned = at(1, shape(quantity, [5, 3], [3, 5]));
    assert_eq!(kfac.precondition(&mut gradients, scratch), turned);
    let short = LayerErrorKind::Scratch(ScratchError { needed: scratch.len(), found: scratch.len() - 1 });
    let one_less = scratch.len() - 1;
    assert_eq!(kfac.precondition_flat(&mut u, &mut scratch[..one_less]), at(0, short));
    assert_eq!(kfac.refresh(&mut scratch[..one_less]), at(0, short));
    assert_eq!((bits(&u), saved(&kfac)), (bits(&v), before));
}

#[test]
fn a_u_that_leaves_the_range_of_the_numbers_is_named_and_nothing_is_written() {
    let net = [LayerShape::dense(1, 1).without_bias(); 2];
    let mut room = Room::<f32>::new::<Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Reproducible);
    let (one, small, none) = ([1.0], [1e-9], [0.0]);
    let view = |x| MatRef::row_major(x, 1, 1).unwrap();
    let own = [MomentPair { a: view(&one), g: view(&one) }, MomentPair { a: view(&small), g: view(&small) }];
    let next = [MomentPair { a: view(&none), g: view(&none) }];
    kfac.observe(1).add_moments(NetworkMoments { own: &own, next: &next }, scratch).unwrap();
    kfac.set_damping(1e-20).unwrap();
    kfac.refresh(scratch).unwrap();
    let mut v = [1.0, 1e18];
    let LayerError { layer: 1, kind: LayerErrorKind::Overflow { quantity, largest } } =
        kfac.precondition_flat(&mut v, scratch).unwrap_err()
    else {
        panic!("not the second layer")
    };
    assert_eq!((quantity, largest > 1e30), (Quantity::Preconditioned, true));
    assert_eq!(v, [1.0, 1e18]);
}

/// The last good inverse stays in force, and the third failure in a row is returned until one succeeds.
#[test]
fn moments_that_no_network_has_leave_the_last_inverse_in_force_and_are_returned_the_third_time() {
    let identities = Identities::new();
    let own = identities.own();
    let mut twice = ZEROS;
    twice[0] = 2.0;
    let [a, g] = [[5, 3], [3, 5]].map(|[m, n]| MatRef::row_major(&twice, m, n).unwrap());
    let coupled = [MomentPair { a, g }, uncoupled()[1]];
    let mut negative = ZEROS;
    negative.iter_mut().step_by(6).take(5).for_each(|x| *x = 1.0);
    negative[2 * 6] = -1.5;
    let g = MatRef::row_major(&negative, 5, 5).unwrap();
    let indefinite = [own[0], MomentPair { a: own[1].a, g }, own[2]];
    let next = uncoupled();

    for (what, own_moments, next_moments) in
        [("coupling", &own, &coupled), ("indefinite", &indefinite, &next)]
    {
        let mut room = Room::<f64>::new::<Reproducible>(&NET);
        let (kfac, scratch) = room.precondition(&NET, Reproducible);
        let mut kfac = kfac.with_decay(0.0).unwrap();
        kfac.observe(1).add_moments(NetworkMoments { own: &own, next: &next }, scratch).unwrap();
        kfac.refresh(scratch).unwrap();
        let v: Vec<f64> = random(WEIGHTS, 5);
        let mut good = v.clone();
        assert_eq!(kfac.precondition_flat(&mut good, scratch).unwrap().stale_layers, 0);

        let bad = NetworkMoments { own: own_moments, next: next_moments };
        kfac.observe(1).add_moments(bad, scratch).unwrap();
        for failures in 1..=4 {
            let refreshed = kfac.refresh(scratch);
            if failures < 3 {
                let report = refreshed.unwrap();
                assert_eq!((report.failures, report.units, report.flops), (1, 0, 0), "{what}");
            } else {
                let LayerError { layer, kind } = refreshed.unwrap_err();
                match kind {
                    // `4 / (1 + γ)²` on either side, `γ = √0.1`, and the product of both.
                    LayerErrorKind::Coupling { share } => {
                        let want = (4.0 / (1.0 + 0.1_f64.sqrt()).powi(2)).powi(2);
                        assert_eq!((what, layer), ("coupling", 0));
                        assert!((share / want - 1.0).abs() < 1e-12, "{share} {want}");
                    }
                    LayerErrorKind::ThirdFailure(MapError::Inverse { side: Side::Output, .. }) => {
                        assert_eq!((what, layer), ("indefinite", 1));
                    }
                    other => panic!("{other}"),
                }
            }
            assert_eq!(kfac.report().failures, failures);
            assert_eq!(kfac.report().age, Some(u64::from(failures)));
            let mut u = v.clone();
            assert_eq!(kfac.precondition_flat(&mut u, scratch).unwrap().stale_layers, 3);
            assert_eq!(bits(&u), bits(&good), "{what}, {failures} failures");
        }
        kfac.observe(1).add_moments(NetworkMoments { own: &own, next: &next }, scratch).unwrap();
        kfac.refresh(scratch).unwrap();
        assert_eq!(kfac.report().failures, 0);
        kfac.observe(1).add_moments(bad, scratch).unwrap();
        assert_eq!(kfac.refresh(scratch).unwrap().failures, 1);
    }
    let text = LayerError { layer: 0, kind: LayerErrorKind::Coupling { share: 2.5 } }.to_string();
    assert_eq!(
        text,
        "layer 0: the third refresh in a row failed: 2.5e0 of its block is explained by the next layer"
    );
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let new = || Tridiagonal::<f64, _>::on_heap(&NET, Reproducible).unwrap();
    let error = |setting, value| Some(SettingError { setting, value });
    for decay in [-0.1, 1.0] {
        assert_eq!(new().with_decay(decay).err(), error("decay", decay));
    }
    for l2 in [-0.1, f64::INFINITY] {
        assert_eq!(new().with_l2(l2).err(), error("l2", l2));
    }
    for damping in [0.0, -1.0, f64::INFINITY] {
        assert_eq!(new().set_damping(damping).err(), error("damping", damping));
    }
    assert!(new().set_damping(f64::NAN).is_err() && new().with_l2(f64::NAN).is_err());
    assert!(new().with_decay(f64::NAN).is_err());
    for (statistics_every, refresh_every, setting) in [(0, 1, "statistics_every"), (1, 0, "refresh_every")] {
        let schedule = Schedule { statistics_every, refresh_every };
        assert_eq!(new().with_schedule(schedule).err(), error(setting, 0.0));
    }
}

#[test]
fn storage_that_is_too_small_and_networks_that_no_memory_holds_are_refused() {
    let needed = state_len(&NET);
    let mut numbers = vec![0.0_f64; needed];
    let mut new = |net: &[LayerShape], len: usize, slots: usize| {
        let mut slots = vec![LayerSlot::EMPTY; slots];
        let storage =
            Storage { numbers: Buffer::Borrowed(&mut numbers[..len]), slots: Buffer::Borrowed(&mut slots) };
        Tridiagonal::new(net, Reproducible, storage).map(|_| ())
    };
    assert_eq!(new(&NET, needed, 1), Ok(()));
    assert_eq!(new(&NET, needed - 1, 1), Err(StorageError::Numbers { needed, found: needed - 1 }));
    assert_eq!(new(&NET, needed, 0), Err(StorageError::Slots { needed: 1, found: 0 }));
    let empty = [NET[0], LayerShape::dense(3, 0)];
    assert_eq!(new(&empty, needed, 1), Err(StorageError::EmptyLayer { layer: 1 }));
    let endless = [LayerShape::dense(usize::MAX, 3), LayerShape::dense(3, usize::MAX)];
    assert_eq!(state_len(&endless), usize::MAX);
    assert_eq!(scratch_len::<f64, Reproducible>(&endless), usize::MAX);
    let refused = Tridiagonal::<f64, _>::on_heap(&endless, Reproducible).map(|_| ());
    assert_eq!(refused, Err(StorageError::Numbers { needed: usize::MAX, found: 0 }));
}

/// A network without layers is refreshed and preconditioned to nothing, and cannot be observed.
#[test]
fn a_network_of_no_layers_is_empty() {
    let mut kfac = Tridiagonal::<f64, _>::on_heap(&[], Reproducible).unwrap();
    let mut scratch = vec![0.0; kfac.scratch_len()];
    assert_eq!(kfac.observe(1).add(&[], &mut scratch), at(0, LayerErrorKind::EmptyBatch));
    assert_eq!(kfac.refresh(&mut scratch).unwrap().without_statistics, 1);
    assert_eq!(kfac.precondition(&mut [], &mut scratch), at(0, LayerErrorKind::NoStatistics));
}

/// FNV-1a over all but the last 8 bytes, which it replaces: damage that the checksum does not see.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let content = bytes.len() - 8;
    let hash = bytes[..content].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    bytes[content..].copy_from_slice(&hash.to_le_bytes());
    bytes
}

#[test]
fn saved_bytes_that_do_not_fit_are_refused_and_change_nothing() {
    let mut room = Room::<f32>::new::<Reproducible>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, Reproducible);
    Batch::new(&NET, CASES, 1).observe(&mut kfac, &[CASES], scratch).unwrap();
    kfac.refresh(scratch).unwrap();
    let bytes = saved(&kfac);
    // 19 of head, 9 a shape, step, damping, one record of 55, the numbers, the checksum.
    let numbers = 19 + 9 * 3 + 8 + 4 + 55;
    assert_eq!(bytes.len(), numbers + 4 * state_len(&NET) + 8);
    assert_eq!([kfac.saved_len(), saved_len::<f32>(&NET)], [bytes.len(); 2]);

    for len in 0..bytes.len() {
        let error = kfac.verify(&bytes[..len]).err();
        assert!(matches!(error, Some(StateError::Magic | StateError::Length { .. })), "{len}: {error:?}");
    }
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x81;
        assert!(kfac.verify(&damaged).is_err(), "byte {place}");
    }
    let with = |at: usize, value: &[u8]| {
        let mut changed = bytes.clone();
        changed[at..at + value.len()].copy_from_slice(value);
        with_checksum(changed)
    };
    let slot = numbers - 55;
    let (nan, infinity) = (f32::NAN.to_le_bytes(), f64::INFINITY.to_le_bytes());
    let network = Some(StateError::Value { layer: None });
    assert_eq!(kfac.verify(&with(slot - 12, &u64::MAX.to_le_bytes())).err(), network);
    assert_eq!(kfac.verify(&with(slot - 4, &0.0_f32.to_le_bytes())).err(), network);
    assert_eq!(kfac.verify(&with(slot + 4, &0.5_f64.to_le_bytes())).err(), network);
    assert_eq!(kfac.verify(&with(slot + 4, &infinity)).err(), network);
    assert_eq!(kfac.verify(&with(slot + 20, &9_u64.to_le_bytes())).err(), network);
    let of_layer = |layer| Some(StateError::Value { layer: Some(layer) });
    // Statistics: packed 15 and 6, between 15 and 15; packed 6 and 15, between 18 and 10; packed 21 and 3.
    for (place, layer) in [(0, 0), (50, 0), (51, 1), (99, 1), (100, 2), (123, 2), (124, 0)] {
        assert_eq!(kfac.verify(&with(numbers + 4 * place, &nan)).err(), of_layer(layer), "{place}");
    }
    assert_eq!(kfac.verify(&with(bytes.len() - 12, &nan)).err(), of_layer(2));

    let mut map = common::Room::<f32>::new::<kfac_core::map::Factored, Reproducible>(&NET);
    let (map, _) = map.precondition(&NET, kfac_core::map::Factored, Reproducible);
    let other = StateError::Map { expected: "tridiagonal" };
    assert_eq!(kfac.verify(&common::saved(&map)).err(), Some(other));
    let other = [NET[0], NET[1], LayerShape::dense(5, 3)];
    let error = StateError::Shape { layer: 2, expected: NET[2], found: other[2] };
    let other = saved(&Tridiagonal::<f32, _>::on_heap(&other, Reproducible).unwrap());
    assert_eq!(kfac.verify(&other).err(), Some(error));
    assert_eq!(saved(&kfac), bytes);
}

/// Saved after any step, restored into other memory, every later bit is the same.
#[test]
fn a_run_that_was_interrupted_after_any_step_continues_to_the_bit() {
    fn step(
        kfac: &mut Tridiagonal<'_, f32, Reproducible>,
        step: u64,
        scratch: &mut [f32],
    ) -> (Vec<u8>, Vec<u64>) {
        if kfac.wants_statistics() {
            Batch::new(&NET, CASES, step).observe(kfac, &[3, 4], scratch).unwrap();
        }
        kfac.set_damping(0.1 / (1.0 + step as f32)).unwrap();
        kfac.refresh(scratch).unwrap();
        let mut u: Vec<f32> = random(WEIGHTS, 100 + step);
        kfac.precondition_flat(&mut u, scratch).unwrap();
        (saved(kfac), bits(&u))
    }
    fn settings(kfac: Tridiagonal<'_, f32, Reproducible>) -> Tridiagonal<'_, f32, Reproducible> {
        let kfac = kfac.with_schedule(Schedule { statistics_every: 2, refresh_every: 3 }).unwrap();
        kfac.with_decay(0.7).unwrap().with_l2(1e-3).unwrap()
    }
    let mut room = Room::new::<Reproducible>(&NET);
    let (kfac, scratch) = room.precondition(&NET, Reproducible);
    let mut kfac = settings(kfac);
    let whole: Vec<_> = (0..8).map(|at| step(&mut kfac, at, scratch)).collect();
    for after in 0..8 {
        let mut room = Room::new::<Reproducible>(&NET);
        let (kfac, scratch) = room.precondition(&NET, Reproducible);
        let mut resumed = settings(kfac);
        let state = &whole[after].0;
        drop(resumed.verify(state).unwrap());
        assert_ne!(&saved(&resumed), state);
        resumed.verify(state).unwrap().restore();
        assert_eq!(&saved(&resumed), state);
        let rest: Vec<_> = (after + 1..8).map(|at| step(&mut resumed, at as u64, scratch)).collect();
        assert_eq!(rest, whole[after + 1..], "saved after step {after}");
    }
}
