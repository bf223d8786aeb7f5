//! `Tokens` and `Embedding`: a diagonal input factor is all there is to keep of unit vectors.

mod common;

use common::dense::{Matrix, assert_close, relative_difference};
use common::layer::OneLayer;
use common::{Room, random, saved, widened};
use kfac_core::evidence::{EvidenceError, Inputs, OutputGradients, Reduced, Sequence, Tokens};
use kfac_core::linalg::{Fast, Kernel, MatRef, Reproducible, Scalar, ShapeError};
use kfac_core::map::{Diagonal, Eigenbasis, Embedding, Factored, Map, MapError};
use kfac_core::memory::{scratch_len, state_len};
use kfac_core::{LayerError, LayerErrorKind, LayerShape};

const VOCABULARY: usize = 6;
const SHAPE: LayerShape = LayerShape::embedding(VOCABULARY, 3);
const LAMBDA: f64 = 0.03;

/// Seven cases of up to five tokens; tokens come again within a case, token 4 never comes, and the padding is no token.
const LENGTHS: [usize; 7] = [5, 2, 4, 1, 5, 3, 5];
const PADDING: u32 = u32::MAX;
#[rustfmt::skip]
const IDS: [u32; 35] = [
    0, 1, 0, 0, 2,
    3, 3, PADDING, PADDING, PADDING,
    5, 0, 5, 1, PADDING,
    2, PADDING, PADDING, PADDING, PADDING,
    0, 0, 0, 0, 0,
    1, 2, 3, PADDING, PADDING,
    5, 3, 2, 1, 0,
];
const UNSEEN: usize = 4;

fn tokens() -> Tokens<'static> {
    Tokens::with_lengths(&IDS, VOCABULARY, 5, &LENGTHS).unwrap()
}

/// The same as rows, with rubbish in the padding.
fn one_hot<T: Scalar>() -> Vec<T> {
    let unit = |&id: &u32| (0..VOCABULARY).map(move |at| u32::try_from(at).unwrap() == id);
    IDS.iter()
        .flat_map(|id| match *id {
            PADDING => vec![T::from_f64(f64::NAN); VOCABULARY],
            _ => unit(id).map(|one| if one { T::ONE } else { T::ZERO }).collect(),
        })
        .collect()
}

/// Output gradients of 35 rows, with rubbish in the padding.
fn gradients<T: Scalar>() -> Vec<T> {
    let mut g = random(35 * 3, 7);
    for (row, _) in IDS.iter().enumerate().filter(|&(_, &id)| id == PADDING) {
        g[3 * row..][..3].fill(T::from_f64(f64::NAN));
    }
    g
}

/// `A` and `G` by loops over the valid positions.
fn factors<T: Scalar>(inputs: &[T], g: &[T]) -> [Matrix; 2] {
    let n = inputs.len() / 35;
    let (mut a_factor, mut g_factor) = (Matrix::zeros(n, n), Matrix::zeros(3, 3));
    let positions: usize = LENGTHS.iter().sum();
    for (case, &length) in LENGTHS.iter().enumerate() {
        for row in (0..length).map(|position| 5 * case + position) {
            let [a, g] = [widened(&inputs[n * row..][..n]), widened(&g[3 * row..][..3])];
            a_factor.add_outer(1.0 / positions as f64, &a, &a);
            g_factor.add_outer(1.0 / 7.0, &g, &g);
        }
    }
    [a_factor, g_factor]
}

/// `(diag(A) (x) G + λ I)⁻¹ vec(V)`.
fn dense_solution<T: Scalar>([a, g]: &[Matrix; 2], v: &[T]) -> Vec<f64> {
    let diagonal = Matrix::from_fn(a.rows, a.rows, |i, j| if i == j { a.at(i, i) } else { 0.0 });
    let v = Matrix::new(3, a.rows, widened(v));
    let solution = diagonal.kron(g).shifted(LAMBDA).solve(&v.column_stacked());
    Matrix::from_column_stacked(3, &solution).data
}

fn of_tokens<T: Scalar, K: Kernel<T>>(kernel: K) {
    let (g, rows, v) = (gradients::<T>(), one_hot::<T>(), random::<T>(SHAPE.weights(), 8));
    let gradients = OutputGradients::per_case(MatRef::row_major(&g, 35, 3).unwrap());
    let layer = OneLayer { shape: SHAPE, inputs: &tokens(), gradients, lambda: LAMBDA };
    let what = std::any::type_name::<(T, K)>();
    let tolerance = 4e3 * T::EPSILON.to_f64();
    let u = widened(&layer.precondition(kernel, Embedding::full(), &v));
    assert_close(what, &u, &dense_solution(&factors(&rows, &g), &v), tolerance);
    let bounded = widened(&layer.precondition(kernel, Embedding::bounded(8), &v));
    assert_close(what, &bounded, &u, tolerance);

    // The whole `A` of the same rows says no more.
    let rows = MatRef::row_major(&rows, 35, VOCABULARY).unwrap();
    let sequence = Sequence::with_lengths(rows, 5, &LENGTHS).unwrap();
    let as_rows = OneLayer { shape: SHAPE, inputs: &sequence, gradients, lambda: LAMBDA };
    let whole = widened(&as_rows.precondition(kernel, Eigenbasis::full(), &v));
    assert_close(what, &u, &whole, tolerance);
    // And neither does writing the rows down, for this map or for another.
    let written = widened(&as_rows.precondition(kernel, Embedding::full(), &v));
    assert_close(what, &written, &u, tolerance);
    for [tokens, rows] in [
        [layer.precondition(kernel, Factored, &v), as_rows.precondition(kernel, Factored, &v)],
        [layer.precondition(kernel, Diagonal, &v), as_rows.precondition(kernel, Diagonal, &v)],
    ] {
        assert_close(what, &widened(&tokens), &widened(&rows), tolerance);
    }
}

#[test]
fn on_tokens_it_is_the_dense_solution_and_the_eigenbasis_of_the_whole_factors() {
    of_tokens::<f64, _>(Reproducible);
    of_tokens::<f64, _>(Fast::detect());
    of_tokens::<f32, _>(Reproducible);
    of_tokens::<f32, _>(Fast::detect());
}

#[test]
fn along_a_token_that_was_never_seen_u_is_v_over_lambda() {
    let (g, v) = (gradients::<f64>(), random::<f64>(SHAPE.weights(), 8));
    let gradients = OutputGradients::per_case(MatRef::row_major(&g, 35, 3).unwrap());
    let layer = OneLayer { shape: SHAPE, inputs: &tokens(), gradients, lambda: LAMBDA };
    let u = layer.precondition(Reproducible, Embedding::full(), &v);
    let column = |x: &[f64], token: usize| -> Vec<f64> { x.iter().skip(token).step_by(6).copied().collect() };
    for token in 0..VOCABULARY {
        let alone: Vec<f64> = column(&v, token).iter().map(|v| v / LAMBDA).collect();
        let difference = relative_difference(&column(&u, token), &alone);
        assert_eq!(difference < 1e-14, token == UNSEEN, "token {token}: {difference:e}");
    }
}

/// The next update's tokens count before the next refresh.
#[test]
fn a_token_counts_from_the_update_that_first_has_it() {
    let net = [SHAPE];
    let mut room = Room::<f64>::new::<Embedding, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Embedding::full(), Reproducible);
    kfac.set_damping(LAMBDA).unwrap();
    let g = random::<f64>(3 * 3, 9);
    let g = OutputGradients::per_case(MatRef::row_major(&g, 3, 3).unwrap());
    kfac.observe(3).add(0, &Tokens::new(&[0, 1, 1], VOCABULARY, 1).unwrap(), g, scratch).unwrap();
    kfac.refresh(scratch).unwrap();
    let mut along = |scratch: &mut [f64], update: Option<u32>| {
        if let Some(token) = update {
            let ids = [token; 3];
            kfac.observe(3).add(0, &Tokens::new(&ids, VOCABULARY, 1).unwrap(), g, scratch).unwrap();
        }
        let mut u = [0.0; 18];
        u[UNSEEN] = 1.0;
        kfac.precondition_flat(&mut u, scratch).unwrap().inner
    };
    assert!((along(scratch, None) * LAMBDA - 1.0).abs() < 1e-14);
    assert!(along(scratch, Some(4)) * LAMBDA < 0.9);
}

/// With dense inputs the correlations between them are lost.
#[test]
fn on_dense_inputs_it_is_the_dense_solution_of_the_diagonal_and_another_than_the_eigenbasis() {
    let shape = LayerShape::dense(4, 3);
    let (a, g, v) = (random::<f64>(35 * 4, 1), gradients::<f64>(), random::<f64>(15, 8));
    let inputs = Sequence::with_lengths(MatRef::row_major(&a, 35, 4).unwrap(), 5, &LENGTHS).unwrap();
    let gradients = OutputGradients::per_case(MatRef::row_major(&g, 35, 3).unwrap());
    let layer = OneLayer { shape, inputs: &inputs, gradients, lambda: LAMBDA };
    let with_bias: Vec<f64> = a.chunks(4).flat_map(|row| row.iter().copied().chain([1.0])).collect();
    let u = layer.precondition(Reproducible, Embedding::full(), &v);
    assert_close("dense inputs", &u, &dense_solution(&factors(&with_bias, &g), &v), 1e-12);
    let whole = layer.precondition(Reproducible, Eigenbasis::full(), &v);
    assert!(relative_difference(&u, &whole) > 0.01);
}

/// Tokens and a bias: the last column of `A` is that of ones.
#[test]
fn tokens_with_a_bias_are_unit_vectors_with_a_one_behind_them() {
    let shape = LayerShape::dense(VOCABULARY, 3);
    let (g, rows, v) = (gradients::<f64>(), one_hot::<f64>(), random::<f64>(21, 8));
    let gradients = OutputGradients::per_case(MatRef::row_major(&g, 35, 3).unwrap());
    let rows = MatRef::row_major(&rows, 35, VOCABULARY).unwrap();
    let sequence = Sequence::with_lengths(rows, 5, &LENGTHS).unwrap();
    let layer = OneLayer { shape, inputs: &tokens(), gradients, lambda: LAMBDA };
    let as_rows = OneLayer { shape, inputs: &sequence, gradients, lambda: LAMBDA };
    for [tokens, rows] in [
        [
            &layer.precondition(Reproducible, Embedding::full(), &v),
            &as_rows.precondition(Reproducible, Embedding::full(), &v),
        ],
        [
            &layer.precondition(Reproducible, Eigenbasis::full(), &v),
            &as_rows.precondition(Reproducible, Eigenbasis::full(), &v),
        ],
        [&layer.precondition(Reproducible, Diagonal, &v), &as_rows.precondition(Reproducible, Diagonal, &v)],
    ] {
        assert_close("with a bias", tokens, rows, 1e-12);
    }
    let reduced = OneLayer { shape, inputs: &Reduced(&tokens()), gradients, lambda: LAMBDA };
    let reduced_rows = OneLayer { shape, inputs: &Reduced(&sequence), gradients, lambda: LAMBDA };
    let [reduced, rows] = [
        reduced.precondition(Reproducible, Embedding::full(), &v),
        reduced_rows.precondition(Reproducible, Embedding::full(), &v),
    ];
    assert_close("reduced", &reduced, &rows, 1e-12);
}

#[test]
fn ids_that_do_not_fit_their_description_are_refused_by_name() {
    let ids = [0, 1, 2, 3, 4, 5];
    let shape = |expected, found| Some(EvidenceError::Shape(ShapeError::new(expected, found)));
    assert_eq!(Tokens::new(&ids, 6, 4).err(), shape([4, 1], [6, 1]));
    assert_eq!(Tokens::new(&ids, 6, 0).err(), shape([0, 1], [6, 1]));
    assert_eq!(Tokens::with_lengths(&ids, 6, 3, &[1, 2, 3]).err(), shape([9, 1], [6, 1]));
    assert_eq!(Tokens::with_lengths(&ids, 6, 3, &[1, 4]).err(), shape([3, 1], [4, 1]));
    let unknown = EvidenceError::UnknownToken { row: 5, token: 5, vocabulary: 5 };
    assert_eq!(Tokens::new(&ids, 5, 2).err(), Some(unknown));
    assert_eq!(unknown.to_string(), "the token 5 in row 5 is beyond a vocabulary of 5");
    assert!(Tokens::with_lengths(&ids, 5, 3, &[3, 2]).is_ok(), "what is masked is not looked at");
    assert_eq!(
        Tokens::with_lengths(&ids, 2, 3, &[2, 1]).err(),
        Some(EvidenceError::UnknownToken { row: 3, token: 3, vocabulary: 2 })
    );
}

/// Inputs of another program that claim a token which the layer does not have.
struct Wrong;

impl Inputs<f64> for Wrong {
    fn cases(&self) -> usize {
        2
    }

    fn positions(&self) -> usize {
        1
    }

    fn features(&self) -> usize {
        VOCABULARY
    }

    fn write_row(&self, _: usize, _: usize, out: &mut [f64]) {
        out.fill(0.0);
    }

    fn add_row(&self, _: usize, _: usize, _: &mut [f64]) {}

    fn token(&self, case: usize, _: usize) -> Option<usize> {
        Some(5 + case)
    }
}

#[test]
fn a_token_beyond_the_layer_is_refused_and_nothing_is_touched() {
    let net = [SHAPE];
    let mut room = Room::<f64>::new::<Embedding, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Embedding::full(), Reproducible);
    let before = saved(&kfac);
    let g = [0.5; 6];
    let g = OutputGradients::per_case(MatRef::row_major(&g, 2, 3).unwrap());
    let kind = LayerErrorKind::UnknownToken { row: 1, token: 6, features: 6 };
    assert_eq!(kfac.observe(2).add(0, &Wrong, g, scratch), Err(LayerError { layer: 0, kind }));
    assert_eq!(kind.to_string(), "the token 6 in row 1 is beyond the 6 of the layer");
    // A smaller vocabulary than the layer's is another shape.
    let tokens = Tokens::new(&[0, 1], 5, 1).unwrap();
    assert!(matches!(
        kfac.observe(2).add(0, &tokens, g, scratch).unwrap_err().kind,
        LayerErrorKind::Shape { .. }
    ));
    assert_eq!(saved(&kfac), before);
}

/// The numbers that a vocabulary of 50,000 takes: a few times its weights, and nothing like its square.
#[test]
fn a_vocabulary_of_fifty_thousand_takes_memory_in_proportion() {
    const NET: [LayerShape; 1] = [LayerShape::embedding(50_000, 64)];
    const STATE: usize = state_len(&NET, <Embedding as Map<f32>>::LAYOUT);
    assert_eq!(STATE, 50_000 + 64 * 65 / 2 + 64 * 64 + 64);
    fn check<K: Kernel<f32>>(kernel: K) {
        let scratch = scratch_len::<f32, K, Embedding>(&NET);
        assert!(scratch < 2 * NET[0].weights() + 50_000 + 600_000, "{scratch}");
        let ids: Vec<u32> = (0..64 * 32).map(|at| (at * at * 7 + at) % 49_999).collect();
        let g = random::<f32>(ids.len() * 64, 3);
        let gradients = OutputGradients::per_case(MatRef::row_major(&g, ids.len(), 64).unwrap());
        let inputs = Tokens::new(&ids, 50_000, 32).unwrap();
        let layer = OneLayer { shape: NET[0], inputs: &inputs, gradients, lambda: LAMBDA };
        let v = random::<f32>(NET[0].weights(), 4);
        let u = layer.precondition(kernel, Embedding::full(), &v);
        assert!((u[49_999] * LAMBDA as f32 / v[49_999] - 1.0).abs() < 1e-4, "the last was never seen");
        assert!((u[0] * LAMBDA as f32 / v[0]) < 0.99, "the first was");
    }
    check(Reproducible);
    check(Fast::detect());
}

/// `a` and `d_G` fit into `f32`, their product does not: `V` over infinity would be 0.
#[test]
fn curvature_without_a_finite_product_is_refused_and_not_taken_for_infinite() {
    let net = [SHAPE];
    let mut room = Room::<f32>::new::<Embedding, Reproducible>(&net);
    let (mut kfac, scratch) = room.precondition(&net, Embedding::full(), Reproducible);
    let (a, g) = ([1e10_f32; VOCABULARY], [1e10_f32; 3]);
    let a = Sequence::new(MatRef::row_major(&a, 1, VOCABULARY).unwrap(), 1).unwrap();
    let g = OutputGradients::per_case(MatRef::row_major(&g, 1, 3).unwrap());
    kfac.observe(1).add(0, &a, g, scratch).unwrap();
    kfac.refresh(scratch).unwrap();
    let mut u = [1.0; 18];
    let error = kfac.precondition_flat(&mut u, scratch).unwrap_err();
    let LayerErrorKind::Apply(MapError::Range { input, output }) = error.kind else { panic!("{error}") };
    assert!((input / 1e20 - 1.0).abs() < 1e-6 && (output / 3e20 - 1.0).abs() < 1e-6, "{input:e} {output:e}");
    assert_eq!(u, [1.0; 18]);
}
