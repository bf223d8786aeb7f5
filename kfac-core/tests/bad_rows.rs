//! Rows that cannot be preconditioned are refused by name; neither the state nor `out` is touched.

mod common;

use common::bad::shape_error;
use common::rows::{Batch, NET, precondition_rows, when_ready};
use common::{Room, saved};
use kfac_core::error::Quantity;
use kfac_core::evidence::{Normalised, OutputGradients, Reduced, Sequence};
use kfac_core::linalg::{MatMut, MatRef, Reproducible};
use kfac_core::map::{Eigenbasis, Ekfac, FactorMap, Factored, RowsMap};
use kfac_core::memory::rows_scratch_len;
use kfac_core::report::Preconditioned;
use kfac_core::{LayerError, LayerErrorKind, LayerGradient, Preconditioner};

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
