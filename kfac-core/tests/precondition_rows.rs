//! `U` from the rows of a batch: equal to `U` of the gradient that they make, by whichever way it comes.

mod common;

use common::bad::shape_error;
use common::dense::assert_close;
use common::{Room, bits, random, saved, widened};
use kfac_core::error::Quantity;
use kfac_core::evidence::{Inputs, Normalised, OutputGradients, Reduced, Rows, Sequence};
use kfac_core::linalg::{Fast, Kernel, MatMut, MatRef, Reproducible, Scalar};
use kfac_core::map::{
    BatchRows, Cost, DampingInForce, Eigenbasis, Ekfac, FactorMap, Factored, Map, MapError, RefreshUnit,
    Refreshed, RowProducts, RowsMap, RowsRoute, Workspace,
};
use kfac_core::memory::{LayerState, Layout, rows_scratch_len};
use kfac_core::report::Preconditioned;
use kfac_core::shape::Side;
use kfac_core::{LayerError, LayerErrorKind, LayerGradient, LayerShape, Preconditioner};

/// Wide, tall without a bias, a single output, a single input, one by one, and one with room for large batches.
const NET: [LayerShape; 6] = [
    LayerShape::dense(11, 4),
    LayerShape::dense(3, 9).without_bias(),
    LayerShape::dense(6, 1),
    LayerShape::dense(1, 4).without_bias(),
    LayerShape::dense(1, 1).without_bias(),
    LayerShape::dense(24, 20),
];
const CASES: usize = 9;
const LAMBDA: f64 = 0.05;
/// At 20 x 25 some are cheaper by rows and some not, by either route; the last is more than a panel.
const BATCHES: [usize; 8] = [1, 2, 3, 7, 10, 19, 40, 150];

/// Runs `body` on a preconditioner that has seen two batches, with scratch for rows of the promised length, all NaN.
fn when_ready<T: Scalar, M: RowsMap<T> + FactorMap<T>, K: Kernel<T>>(
    (map, kernel): (M, K),
    batch: usize,
    body: impl FnOnce(&mut Preconditioner<'_, T, M, K>, &mut [T], &mut [T]),
) {
    let mut room = Room::new::<M, K>(&NET);
    let mut rows_scratch = vec![T::from_f64(f64::NAN); rows_scratch_len::<T, K, M>(&NET, batch)];
    let (mut kfac, scratch) = room.precondition(&NET, map, kernel);
    kfac.set_damping(T::from_f64(LAMBDA)).unwrap();
    for update in 0..2 {
        for (layer, shape) in NET.into_iter().enumerate() {
            let seed = 1000 * update + layer as u64;
            let a = random(CASES * shape.features(), seed);
            let g = random(CASES * shape.outputs(), 100 + seed);
            let a = Rows(MatRef::row_major(&a, CASES, shape.features()).unwrap());
            let g = OutputGradients::per_case(MatRef::row_major(&g, CASES, shape.outputs()).unwrap());
            kfac.observe(CASES).add(layer, &a, g, scratch).unwrap();
        }
        if update == 0 {
            kfac.refresh(scratch).unwrap();
        }
    }
    assert_eq!(kfac.rows_scratch_len(batch), rows_scratch.len());
    body(&mut kfac, scratch, &mut rows_scratch);
}

/// Inputs and output gradients of a batch, and `V` of them in f64.
struct Batch<T> {
    shape: LayerShape,
    cases: usize,
    inputs: Vec<T>,
    gradients: Vec<T>,
}

impl<T: Scalar> Batch<T> {
    fn new(layer: usize, cases: usize) -> Self {
        let (shape, seed) = (NET[layer], (10 * cases + layer) as u64);
        let (inputs, gradients) =
            (random(cases * shape.features(), seed), random(cases * shape.outputs(), seed + 5));
        Self { shape, cases, inputs, gradients }
    }

    fn rows(&self) -> Rows<'_, T> {
        Rows(MatRef::row_major(&self.inputs, self.cases, self.shape.features()).unwrap())
    }

    fn gradients(&self) -> MatRef<'_, T> {
        MatRef::row_major(&self.gradients, self.cases, self.shape.outputs()).unwrap()
    }

    /// `(1/b) Σ g āᵀ`.
    fn v(&self) -> Vec<f64> {
        let (m, n, features) = (self.shape.outputs(), self.shape.inputs(), self.shape.features());
        let mut v = vec![0.0; m * n];
        for case in 0..self.cases {
            let a = &self.inputs[case * features..][..features];
            for (at, v) in v.iter_mut().enumerate() {
                let g = self.gradients[case * m + at / n].to_f64();
                *v += g * a.get(at % n).map_or(1.0, |a| a.to_f64()) / self.cases as f64;
            }
        }
        v
    }
}

fn precondition<T: Scalar, M: Map<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    layer: usize,
    v: &[f64],
    scratch: &mut [T],
) -> (Vec<T>, Preconditioned<T>) {
    let mut u: Vec<T> = v.iter().map(|&v| T::from_f64(v)).collect();
    let (m, n) = (NET[layer].outputs(), NET[layer].inputs());
    let gradient = LayerGradient::joint(layer, MatMut::row_major(&mut u, m, n).unwrap());
    let report = kfac.precondition(&mut [gradient], scratch).unwrap();
    (u, report)
}

/// `U` of the rows, into memory that begins as NaN.
fn precondition_rows<T: Scalar, M: RowsMap<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    layer: usize,
    (inputs, gradients): (&impl Inputs<T>, OutputGradients<'_, T>),
    scratch: &mut [T],
) -> Result<(Vec<T>, Preconditioned<T>), LayerError> {
    let (m, n) = (NET[layer].outputs(), NET[layer].inputs());
    let mut u = vec![T::from_f64(f64::NAN); m * n];
    let mut out = LayerGradient::joint(layer, MatMut::row_major(&mut u, m, n).unwrap());
    let outcome = kfac.precondition_rows(inputs, gradients, &mut out, scratch);
    if outcome.is_err() {
        assert!(u.iter().all(|u| !u.is_finite()), "an error wrote to `out`");
    }
    outcome.map(|report| (u, report))
}

fn equals_the_ordinary_way<T: Scalar, M: RowsMap<T> + FactorMap<T>, K: Kernel<T>>(map: M, kernel: K) {
    let tolerance = 4e3 * T::EPSILON.to_f64();
    when_ready((map, kernel), 150, |kfac: &mut Preconditioner<'_, T, M, K>, scratch, rows_scratch| {
        let before = saved(kfac);
        for (layer, cases) in (0..NET.len()).flat_map(|layer| BATCHES.map(|cases| (layer, cases))) {
            let batch = Batch::<T>::new(layer, cases);
            let (want, report) = precondition(kfac, layer, &batch.v(), scratch);
            let per_case = OutputGradients::per_case(batch.gradients());
            // What `scratch` has to be for one batch is enough for it, to the element.
            let exact = rows_scratch_len::<T, K, M>(&[NET[layer]], cases);
            let rows_scratch = &mut rows_scratch[..exact];
            let (u, found) = precondition_rows(kfac, layer, (&batch.rows(), per_case), rows_scratch).unwrap();
            let what =
                format!("{} in {}, layer {layer}, {cases} cases", M::NAME, std::any::type_name::<(T, K)>());
            assert_close(&what, &widened(&u), &widened(&want), tolerance);
            for (found, want) in
                [(found.inner, report.inner), (found.gradient_squares, report.gradient_squares)]
            {
                assert_close(&what, &[found.to_f64()], &[want.to_f64()], tolerance);
            }
            assert_eq!(found.stale_layers, 0);
            // As a framework's mean loss gives them.
            let share = T::ONE / T::from_usize(cases);
            let divided: Vec<T> = batch.gradients.iter().map(|&g| g * share).collect();
            let divided = MatRef::row_major(&divided, cases, NET[layer].outputs()).unwrap();
            let of_mean_loss = OutputGradients::of_mean_loss(divided, cases);
            let (u, _) = precondition_rows(kfac, layer, (&batch.rows(), of_mean_loss), rows_scratch).unwrap();
            assert_close(&what, &widened(&u), &widened(&want), tolerance);
        }
        assert_eq!(saved(kfac), before);
    });
}

fn on_every_kernel<M>(map: M)
where
    M: RowsMap<f64> + FactorMap<f64> + RowsMap<f32> + FactorMap<f32>,
{
    equals_the_ordinary_way::<f64, M, _>(map, Reproducible);
    equals_the_ordinary_way::<f64, M, _>(map, Fast::detect());
    equals_the_ordinary_way::<f32, M, _>(map, Reproducible);
    equals_the_ordinary_way::<f32, M, _>(map, Fast::detect());
}

#[test]
fn rows_give_what_their_gradient_gives_with_factored() {
    on_every_kernel(Factored);
}

#[test]
fn rows_give_what_their_gradient_gives_with_eigenbasis() {
    on_every_kernel(Eigenbasis::full());
}

#[test]
fn rows_give_what_their_gradient_gives_with_ekfac() {
    on_every_kernel(Ekfac::full());
}

/// At 3 x 5: `2 b (9 + 25)` and, for the sums of `Inverses`, `4 b² (3 + 5)`, against `2·15 (3 + 5) = 240`.
#[test]
fn the_cheaper_way_is_counted_in_flops() {
    let shape = LayerShape::dense(4, 3);
    let cheaper = |route: RowsRoute| [1, 2, 3, 4].map(|batch| route.is_cheaper(shape, batch));
    assert_eq!(cheaper(RowsRoute::Inverses), [true, false, false, false]);
    assert_eq!(cheaper(RowsRoute::Bases), [true, true, true, false]);
    // Products alone: half the size of a square layer, less what the sums take; all of it.
    let square = LayerShape::dense(512, 512).without_bias();
    assert!(RowsRoute::Inverses.is_cheaper(square, 255) && !RowsRoute::Inverses.is_cheaper(square, 256));
    assert!(RowsRoute::Bases.is_cheaper(square, 511) && !RowsRoute::Bases.is_cheaper(square, 512));
    assert!(!RowsRoute::Bases.is_cheaper(square, usize::MAX));
    // Batches that do not go by rows need no room for them.
    let len = |batch| rows_scratch_len::<f64, Reproducible, Factored>(&[square], batch);
    assert!(len(255) > len(1));
    assert_eq!(len(usize::MAX), len(255));
}

/// A map whose way from the rows can be told from the other: `U = 7`, or it declines.
#[derive(Clone, Copy)]
struct Spy {
    declines: bool,
}

impl Map<f64> for Spy {
    const NAME: &'static str = "spy";
    const LAYOUT: Layout = <Eigenbasis as Map<f64>>::LAYOUT;
    const UNIT: RefreshUnit = <Eigenbasis as Map<f64>>::UNIT;
    const REFRESH: Workspace = <Eigenbasis as Map<f64>>::REFRESH;
    const APPLY: Workspace = <Eigenbasis as Map<f64>>::APPLY;
    const DAMPING: DampingInForce = <Eigenbasis as Map<f64>>::DAMPING;

    fn cost(&self) -> Cost {
        Map::<f64>::cost(&Eigenbasis::full())
    }

    fn refresh<K: Kernel<f64>>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, f64>,
        side: Side,
        lambda: f64,
        scratch: &mut [f64],
    ) -> Result<Refreshed, MapError> {
        Eigenbasis::full().refresh(kernel, layer, side, lambda, scratch)
    }

    fn apply<K: Kernel<f64>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, f64>,
        lambda: f64,
        v: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<(), MapError> {
        Eigenbasis::full().apply(kernel, layer, lambda, v, scratch)
    }
}

impl FactorMap<f64> for Spy {}

impl RowsMap<f64> for Spy {
    const ROWS: RowsRoute = RowsRoute::Bases;

    fn apply_rows<K: Kernel<f64>>(
        &self,
        _: K,
        _: &LayerState<'_, f64>,
        lambda: f64,
        rows: BatchRows<'_, f64>,
        _: &mut [f64],
    ) -> Result<Option<RowProducts<f64>>, MapError> {
        assert_eq!(lambda, LAMBDA);
        assert_eq!(rows.inputs.shape(), [rows.gradients.rows(), 25]);
        rows.u.fill(7.0);
        Ok((!self.declines).then_some(RowProducts { inner: 3.0, gradient_squares: 5.0 }))
    }
}

#[test]
fn the_way_from_the_rows_is_taken_where_it_is_cheaper_and_not_declined() {
    for declines in [false, true] {
        when_ready((Spy { declines }, Reproducible), 150, |kfac, scratch, rows_scratch| {
            for cases in BATCHES {
                let batch = Batch::<f64>::new(5, cases);
                let g = OutputGradients::per_case(batch.gradients());
                let (u, report) = precondition_rows(kfac, 5, (&batch.rows(), g), rows_scratch).unwrap();
                if RowsRoute::Bases.is_cheaper(NET[5], cases) && !declines {
                    assert!(u.iter().all(|&u| u == 7.0), "{cases}");
                    assert_eq!((report.inner, report.gradient_squares), (3.0, 5.0), "{cases}");
                } else {
                    let (want, _) = precondition(kfac, 5, &batch.v(), scratch);
                    assert_close(&format!("{cases} cases"), &u, &want, 1e-12);
                }
            }
        });
    }
}

/// Two cases whose gradients all but cancel: `V·V` is a millionth of its terms. In `f32` their sum would be good to a tenth.
#[test]
fn where_the_rows_cancel_the_sums_are_those_of_the_gradient() {
    when_ready(
        (Factored, Reproducible),
        2,
        |kfac: &mut Preconditioner<'_, f32, _, _>, scratch, rows_scratch| {
            let mut batch = Batch::<f32>::new(5, 2);
            let features = NET[5].features();
            for at in 0..features {
                batch.inputs[features + at] = batch.inputs[at];
            }
            for at in 0..20 {
                batch.gradients[20 + at] = -batch.gradients[at] * (1.0 + 1e-3 * (at % 3) as f32);
            }
            let v = batch.v();
            let (want, report) = precondition(kfac, 5, &v, scratch);
            let g = OutputGradients::per_case(batch.gradients());
            let (u, found) = precondition_rows(kfac, 5, (&batch.rows(), g), rows_scratch).unwrap();
            assert_close("U", &widened(&u), &widened(&want), 1e-3);
            for (found, want) in
                [(found.inner, report.inner), (found.gradient_squares, report.gradient_squares)]
            {
                assert!((found / want - 1.0).abs() < 1e-3, "{found:e} {want:e}");
            }
            // All of it, to the bit.
            for at in 0..20 {
                batch.gradients[20 + at] = -batch.gradients[at];
            }
            let g = OutputGradients::per_case(batch.gradients());
            let (u, found) = precondition_rows(kfac, 5, (&batch.rows(), g), rows_scratch).unwrap();
            assert!(u.iter().all(|&u| u == 0.0) && (found.inner, found.gradient_squares) == (0.0, 0.0));
        },
    );
}

/// Masked cases are no cases; the report of several layers is the sum of theirs.
#[test]
fn masked_cases_do_not_count_and_reports_add_up() {
    when_ready(
        (Eigenbasis::full(), Reproducible),
        10,
        |kfac: &mut Preconditioner<'_, f64, _, _>, scratch, rows_scratch| {
            let batch = Batch::<f64>::new(5, 10);
            let lengths = [1, 1, 0, 1, 1, 0, 1, 1, 1, 0];
            let kept = |x: &[f64], width: usize| -> Vec<f64> {
                x.chunks(width)
                    .zip(lengths)
                    .filter(|(_, len)| *len > 0)
                    .flat_map(|(row, _)| row.to_vec())
                    .collect()
            };
            let alone = Batch {
                shape: NET[5],
                cases: 7,
                inputs: kept(&batch.inputs, 24),
                gradients: kept(&batch.gradients, 20),
            };
            let rows = MatRef::row_major(&batch.inputs, 10, 24).unwrap();
            let masked = Sequence::with_lengths(rows, 1, &lengths).unwrap();
            let g = OutputGradients::per_case(batch.gradients());
            let (u, first) = precondition_rows(kfac, 5, (&masked, g), rows_scratch).unwrap();
            let (want, first_report) = precondition(kfac, 5, &alone.v(), scratch);
            assert_close("masked", &u, &want, 1e-12);

            let second = Batch::<f64>::new(0, 3);
            let g = OutputGradients::per_case(second.gradients());
            let (_, report) = precondition_rows(kfac, 0, (&second.rows(), g), rows_scratch).unwrap();
            let (_, second_report) = precondition(kfac, 0, &second.v(), scratch);
            let mut sum = Preconditioned::NOTHING;
            sum += first;
            sum += report;
            let want = [
                first_report.inner + second_report.inner,
                first_report.gradient_squares + second_report.gradient_squares,
            ];
            assert_close("sums", &[sum.inner, sum.gradient_squares], &want, 1e-12);
        },
    );
}

/// `f32` cannot hold the sums of the terms: `V` decides, and here it is out of range, too.
#[test]
fn products_that_overflow_are_left_to_the_gradient_and_refused_there() {
    fn check<M: RowsMap<f32> + FactorMap<f32>>(map: M) {
        when_ready((map, Reproducible), 2, |kfac: &mut Preconditioner<'_, f32, M, _>, _, rows_scratch| {
            let mut batch = Batch::<f32>::new(5, 2);
            batch.inputs.iter_mut().chain(&mut batch.gradients).for_each(|x| *x *= 1e15);
            let g = OutputGradients::per_case(batch.gradients());
            let error = precondition_rows(kfac, 5, (&batch.rows(), g), rows_scratch).unwrap_err();
            let LayerErrorKind::Overflow { quantity: Quantity::Gradient, .. } = error.kind else {
                panic!("{}: {error}", M::NAME)
            };
        });
    }
    check(Factored);
    check(Eigenbasis::full());
    check(Ekfac::full());
}

fn bad_rows<M: RowsMap<f64> + FactorMap<f64>>(map: M) {
    when_ready((map, Reproducible), 4, |kfac: &mut Preconditioner<'_, f64, M, _>, _, rows_scratch| {
        let before = saved(kfac);
        // Ways that go by rows and by the gradient: layers 5 and 0.
        for layer in [5, 0] {
            let (batch, shape) = (Batch::<f64>::new(layer, 4), NET[layer]);
            let (n, m) = (shape.features(), shape.outputs());
            let mut refused = |rows: (&Batch<f64>, OutputGradients<'_, f64>), kind| {
                let error = precondition_rows(kfac, layer, (&rows.0.rows(), rows.1), rows_scratch);
                assert_eq!(error.unwrap_err(), LayerError { layer, kind }, "{}", M::NAME);
            };
            for value in [f64::NAN, f64::INFINITY] {
                let mut bad = Batch::<f64>::new(layer, 4);
                bad.inputs[3 * n + 1] = value;
                let kind = LayerErrorKind::NotFinite { quantity: Quantity::Inputs, row: 3, column: 1 };
                refused((&bad, OutputGradients::per_case(bad.gradients())), kind);
                let mut bad = Batch::<f64>::new(layer, 4);
                bad.gradients[2 * m + 1] = value;
                let kind =
                    LayerErrorKind::NotFinite { quantity: Quantity::OutputGradients, row: 2, column: 1 };
                refused((&bad, OutputGradients::per_case(bad.gradients())), kind);
            }
            let kind = LayerErrorKind::GradientScale { factor: 0.0 };
            refused((&batch, OutputGradients::of_mean_loss(batch.gradients(), 0)), kind);
            let empty = Batch::<f64>::new(layer, 0);
            refused((&empty, OutputGradients::per_case(empty.gradients())), LayerErrorKind::EmptyBatch);
            let short = Batch { cases: 3, ..Batch::<f64>::new(layer, 3) };
            let kind = shape_error(Quantity::OutputGradients, [4, m], [3, m]);
            refused((&batch, OutputGradients::per_case(short.gradients())), kind);
            let other = Batch::<f64>::new(1, 4);
            let kind = shape_error(Quantity::Inputs, [4, n], [4, 3]);
            refused((&other, OutputGradients::per_case(batch.gradients())), kind);
        }

        // Several positions, whatever comes of them.
        let batch = Batch::<f64>::new(5, 4);
        let rows = MatRef::row_major(&batch.inputs, 4, 24).unwrap();
        let g = OutputGradients::per_case(batch.gradients());
        let two = Sequence::new(rows, 2).unwrap();
        let error = |kind| Err(LayerError { layer: 5, kind });
        let several = LayerErrorKind::SeveralPositions { positions: 2 };
        assert_eq!(precondition_rows(kfac, 5, (&two, g), rows_scratch), error(several));
        assert_eq!(precondition_rows(kfac, 5, (&Reduced(&two), g), rows_scratch), error(several));
        let normalised = Normalised::new(rows, 2).unwrap();
        assert_eq!(precondition_rows(kfac, 5, (&normalised, g), rows_scratch), error(several));
        assert_eq!(several.to_string(), "rows of one position a case are needed, these have 2");

        // Storage of another shape, of no layer, scratch that is too short.
        let mut u = [f64::NAN; 500];
        let mut out = LayerGradient::joint(5, MatMut::row_major(&mut u, 25, 20).unwrap());
        let kind = shape_error(Quantity::Gradient, [20, 25], [25, 20]);
        let found = kfac.precondition_rows(&batch.rows(), g, &mut out, rows_scratch).unwrap_err();
        assert_eq!(found, LayerError { layer: 5, kind });
        let mut out = LayerGradient::joint(6, MatMut::row_major(&mut u, 20, 25).unwrap());
        let error = kfac.precondition_rows(&batch.rows(), g, &mut out, rows_scratch).unwrap_err();
        assert_eq!(error, LayerError { layer: 6, kind: LayerErrorKind::NoSuchLayer { layers: 6 } });
        let needed = rows_scratch_len::<f64, Reproducible, M>(&NET[5..], 4);
        let error =
            precondition_rows(kfac, 5, (&batch.rows(), g), &mut rows_scratch[..needed - 1]).unwrap_err();
        assert!(matches!(error.kind, LayerErrorKind::Scratch(error) if error.needed == needed), "{error}");
        assert_eq!(saved(kfac), before);
        assert!(u.iter().all(|u| u.is_nan()));
    });
}

#[test]
fn bad_rows_are_refused_by_name_and_nothing_is_touched() {
    bad_rows(Factored);
    bad_rows(Eigenbasis::full());
    bad_rows(Ekfac::full());
}

#[test]
fn a_layer_that_is_not_ready_and_a_weight_decay_that_the_rows_lack_are_refused() {
    let batch = Batch::<f64>::new(5, 4);
    let g = OutputGradients::per_case(batch.gradients());
    let mut scratch = vec![f64::NAN; rows_scratch_len::<f64, Reproducible, Factored>(&NET, 4)];
    let mut room = Room::<f64>::new::<Factored, Reproducible>(&NET);
    let (mut kfac, ordinary) = room.precondition(&NET, Factored, Reproducible);
    let kind = |outcome: Result<_, LayerError>| -> LayerErrorKind {
        let _: &Result<(Vec<f64>, Preconditioned<f64>), LayerError> = &outcome;
        outcome.unwrap_err().kind
    };
    let unseen = precondition_rows(&mut kfac, 5, (&batch.rows(), g), &mut scratch);
    assert_eq!(kind(unseen), LayerErrorKind::NoStatistics);
    kfac.observe(4).add(5, &batch.rows(), g, ordinary).unwrap();
    let not_ready = precondition_rows(&mut kfac, 5, (&batch.rows(), g), &mut scratch);
    assert_eq!(kind(not_ready), LayerErrorKind::NotReady);
    kfac.refresh(ordinary).unwrap();
    let mut kfac = kfac.with_l2(0.5).unwrap();
    let decayed = kind(precondition_rows(&mut kfac, 5, (&batch.rows(), g), &mut scratch));
    assert_eq!(decayed, LayerErrorKind::RowsWithWeightDecay { l2: 0.5 });
    assert_eq!(decayed.to_string(), "the rows do not contain the l2 weight decay of 5e-1: form the gradient");
    let mut kfac = kfac.with_l2(0.0).unwrap();
    precondition_rows(&mut kfac, 5, (&batch.rows(), g), &mut scratch).unwrap();
}

/// Into a weight with gaps and a bias apart.
#[test]
fn u_may_lie_in_memory_as_it_likes() {
    when_ready((Factored, Reproducible), 4, |kfac: &mut Preconditioner<'_, f64, _, _>, _, rows_scratch| {
        let batch = Batch::<f64>::new(5, 4);
        let g = OutputGradients::per_case(batch.gradients());
        let (want, _) = precondition_rows(kfac, 5, (&batch.rows(), g), rows_scratch).unwrap();
        let (mut weights, mut bias) = (vec![0.0; 20 * 24], vec![0.0; 20]);
        let view = MatMut::with_strides(&mut weights, [20, 24], [1, 20]).unwrap();
        let mut out = LayerGradient::with_bias(5, view, &mut bias);
        kfac.precondition_rows(&batch.rows(), g, &mut out, rows_scratch).unwrap();
        let at = |(i, j): (usize, usize)| if j < 24 { weights[j * 20 + i] } else { bias[i] };
        let found: Vec<f64> = (0..500).map(|index| at((index / 25, index % 25))).collect();
        assert_eq!(bits(&found), bits(&want));
    });
}
