//! `U` from the rows of a batch: equal to `U` of the gradient that they make, by whichever way it comes.

mod common;

use common::dense::assert_close;
use common::rows::{BATCHES, Batch, LAMBDA, NET, precondition, precondition_rows, when_ready};
use common::{bits, saved, widened};
use kfac_core::evidence::{OutputGradients, Sequence};
use kfac_core::linalg::{Fast, Kernel, MatMut, MatRef, Reproducible, Scalar};
use kfac_core::map::{
    BatchRows, Cost, DampingInForce, Eigenbasis, Ekfac, FactorMap, Factored, Map, MapError, RefreshUnit,
    Refreshed, RowProducts, RowsMap, RowsRoute, Shifted, Workspace,
};
use kfac_core::memory::{LayerState, Layout, rows_scratch_len};
use kfac_core::report::Preconditioned;
use kfac_core::shape::Side;
use kfac_core::{LayerGradient, LayerShape, Preconditioner};

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
            assert_close(&what, &[found.inner.to_f64()], &[report.inner.to_f64()], tolerance);
            let by_inverses = M::ROWS == RowsRoute::Inverses && M::ROWS.is_cheaper(NET[layer], cases);
            match found.gradient_squares.zip(report.gradient_squares) {
                Some((found, want)) => assert_close(&what, &[found.to_f64()], &[want.to_f64()], tolerance),
                None => assert!(by_inverses, "{what}"),
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
fn rows_give_what_their_gradient_gives_with_shifted() {
    on_every_kernel(Shifted::full());
}

#[test]
fn rows_give_what_their_gradient_gives_with_ekfac() {
    on_every_kernel(Ekfac::full());
}

/// At 3 x 5: `2 b (9 + 25)` and, for the sums of `Inverses`, `2 b² (3 + 5)`, against `2·15 (3 + 5) = 240`.
#[test]
fn the_cheaper_way_is_counted_in_flops() {
    let shape = LayerShape::dense(4, 3);
    let cheaper = |route: RowsRoute| [1, 2, 3, 4].map(|batch| route.is_cheaper(shape, batch));
    assert_eq!(cheaper(RowsRoute::Inverses), [true, true, false, false]);
    assert_eq!(cheaper(RowsRoute::Bases), [true, true, true, false]);
    // Products alone: the size of a square layer; less what the triangles of the sums take, in bands of 32 rows.
    let square = LayerShape::dense(512, 512).without_bias();
    assert!(RowsRoute::Inverses.is_cheaper(square, 368) && !RowsRoute::Inverses.is_cheaper(square, 369));
    assert!(RowsRoute::Bases.is_cheaper(square, 511) && !RowsRoute::Bases.is_cheaper(square, 512));
    assert!(!RowsRoute::Bases.is_cheaper(square, usize::MAX));
    // Batches that do not go by rows need no room for them.
    let len = |batch| rows_scratch_len::<f64, Reproducible, Factored>(&[square], batch);
    assert!(len(368) > len(1));
    assert_eq!(len(usize::MAX), len(368));
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
        Ok((!self.declines).then_some(RowProducts { inner: 3.0, gradient_squares: Some(5.0) }))
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
                    assert_eq!((report.inner, report.gradient_squares), (3.0, Some(5.0)), "{cases}");
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
            let squares = |report: Preconditioned<f32>| report.gradient_squares.unwrap();
            for (found, want) in [(found.inner, report.inner), (squares(found), squares(report))] {
                assert!((found / want - 1.0).abs() < 1e-3, "{found:e} {want:e}");
            }
            // All of it, to the bit.
            for at in 0..20 {
                batch.gradients[20 + at] = -batch.gradients[at];
            }
            let g = OutputGradients::per_case(batch.gradients());
            let (u, found) = precondition_rows(kfac, 5, (&batch.rows(), g), rows_scratch).unwrap();
            assert!(u.iter().all(|&u| u == 0.0) && (found.inner, found.gradient_squares) == (0.0, Some(0.0)));
        },
    );
}

/// Masked cases are no cases, by the rows (layer 5) and by the gradient (layer 0); the report of several layers is the sum
/// of theirs.
#[test]
fn masked_cases_do_not_count_and_reports_add_up() {
    let map = (Eigenbasis::full(), Reproducible);
    when_ready(map, 10, |kfac: &mut Preconditioner<'_, f64, _, _>, scratch, rows_scratch| {
        assert!(RowsRoute::Bases.is_cheaper(NET[5], 7) && !RowsRoute::Bases.is_cheaper(NET[0], 7));
        let lengths = [1, 1, 0, 1, 1, 0, 1, 1, 1, 0];
        let kept = |x: &[f64], width: usize| -> Vec<f64> {
            let rows = x.chunks(width).zip(lengths).filter(|(_, len)| *len > 0);
            rows.flat_map(|(row, _)| row.to_vec()).collect()
        };
        let (mut found, mut want) = (Preconditioned::NOTHING, [0.0; 2]);
        for layer in [5, 0] {
            let (batch, shape) = (Batch::<f64>::new(layer, 10), NET[layer]);
            let (inputs, gradients) =
                (kept(&batch.inputs, shape.features()), kept(&batch.gradients, shape.outputs()));
            let alone = Batch { shape, cases: 7, inputs, gradients };
            let rows = MatRef::row_major(&batch.inputs, 10, shape.features()).unwrap();
            let masked = Sequence::with_lengths(rows, 1, &lengths).unwrap();
            let g = OutputGradients::per_case(batch.gradients());
            let (u, report) = precondition_rows(kfac, layer, (&masked, g), rows_scratch).unwrap();
            let (want_u, want_report) = precondition(kfac, layer, &alone.v(), scratch);
            assert_close(&format!("layer {layer}"), &u, &want_u, 1e-12);
            found += report;
            want[0] += want_report.inner;
            want[1] += want_report.gradient_squares.unwrap();
        }
        assert_close("sums", &[found.inner, found.gradient_squares.unwrap()], &want, 1e-12);
    });
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
