//! What every map promises, on every kernel and in both number types: one table, one body for each promise.

mod common;

use common::chain::balanced;
use common::dense::{Matrix, assert_close, dot};
use common::net::with_one;
use common::{Room, bits, random, widened};
use kfac_core::evidence::{ChainMoments, Moments, OutputGradients, Rows};
use kfac_core::linalg::{Fast, Kernel, MatMut, MatRef, Reproducible, Scalar};
use kfac_core::map::{
    ChainLimit, ChainMap, ChainSymmetric, DampingInForce, Diagonal, Eigenbasis, Ekfac, Embedding, FactorMap,
    Factored, Renewal, Shifted,
};
use kfac_core::report::Preconditioned;
use kfac_core::{LayerError, LayerErrorKind, LayerGradient, LayerShape, Preconditioner};
use std::any::type_name;

/// Wide, tall without a bias, a single output, a single input, one by one, a bias alone.
const NET: [LayerShape; 6] = [
    LayerShape::dense(5, 3),
    LayerShape::dense(3, 6).without_bias(),
    LayerShape::dense(6, 1),
    LayerShape::dense(1, 4).without_bias(),
    LayerShape::dense(1, 1).without_bias(),
    LayerShape::dense(0, 3),
];
const CASES: usize = 9;
const LAMBDA: f64 = 0.05;

/// Condition numbers here are below 1e3; a solution is good to that many roundings, and sums add a few.
fn tolerance<T: Scalar>() -> f64 {
    2e3 * T::EPSILON.to_f64()
}

/// What a layer is shown: rows `ā` and `g`, one a case.
struct Seen {
    inputs: Vec<Vec<f64>>,
    gradients: Vec<Vec<f64>>,
}

impl Seen {
    fn by<T: Scalar>(layer: usize) -> Self {
        let (shape, [a, g]) = (NET[layer], evidence::<T>(layer));
        let row = |case: usize| with_one(shape, &widened(&a[case * shape.features()..][..shape.features()]));
        Self {
            inputs: (0..CASES).map(row).collect(),
            gradients: g.chunks(shape.outputs()).map(widened).collect(),
        }
    }

    fn a(&self) -> Matrix {
        second_moment(&self.inputs)
    }

    fn g(&self) -> Matrix {
        second_moment(&self.gradients)
    }
}

fn second_moment(rows: &[Vec<f64>]) -> Matrix {
    let mut moment = Matrix::zeros(rows[0].len(), rows[0].len());
    rows.iter().for_each(|row| moment.add_outer(1.0 / rows.len() as f64, row, row));
    moment
}

fn diagonal_of(matrix: &Matrix) -> Matrix {
    Matrix::from_fn(matrix.rows, matrix.cols, |i, j| if i == j { matrix.at(i, i) } else { 0.0 })
}

/// A map of the table, and the dense matrix that it claims to invert.
trait Subject<T: Scalar>: FactorMap<T> {
    /// The damped block, column-stacked.
    fn damped_block(&self, seen: &Seen, lambda: f64) -> Matrix;

    /// Hands finished moments in, if the map takes them.
    fn add_moments<K: Kernel<T>>(
        kfac: &mut Preconditioner<'_, T, Self, K>,
        layer: usize,
        moments: Moments<'_, T>,
        scratch: &mut [T],
    ) -> bool;
}

macro_rules! takes_moments {
    () => {
        fn add_moments<K: Kernel<T>>(
            kfac: &mut Preconditioner<'_, T, Self, K>,
            layer: usize,
            moments: Moments<'_, T>,
            scratch: &mut [T],
        ) -> bool {
            kfac.observe(1).add_moments(layer, moments, scratch).unwrap();
            true
        }
    };
}

impl<T: Scalar> Subject<T> for Factored {
    fn damped_block(&self, seen: &Seen, lambda: f64) -> Matrix {
        let (a, g) = (seen.a(), seen.g());
        let gamma = lambda.sqrt();
        let pi = ((a.trace() / a.rows as f64) / (g.trace() / g.rows as f64)).sqrt();
        if a.rows == 1 || g.rows == 1 {
            // The other factor carries all the damping: exact.
            return a.kron(&g).shifted(lambda);
        }
        a.shifted(pi * gamma).kron(&g.shifted(gamma / pi))
    }

    takes_moments!();
}

impl<T: Scalar, S: Renewal> Subject<T> for Eigenbasis<S> {
    fn damped_block(&self, seen: &Seen, lambda: f64) -> Matrix {
        seen.a().kron(&seen.g()).shifted(lambda)
    }

    takes_moments!();
}

impl<T: Scalar> Subject<T> for Shifted {
    fn damped_block(&self, seen: &Seen, lambda: f64) -> Matrix {
        seen.a().kron(&seen.g()).shifted(lambda)
    }

    takes_moments!();
}

macro_rules! refuses_moments {
    () => {
        fn add_moments<K: Kernel<T>>(
            _: &mut Preconditioner<'_, T, Self, K>,
            _: usize,
            _: Moments<'_, T>,
            _: &mut [T],
        ) -> bool {
            false
        }
    };
}

/// Before its first update in a basis.
impl<T: Scalar> Subject<T> for Ekfac {
    fn damped_block(&self, seen: &Seen, lambda: f64) -> Matrix {
        seen.a().kron(&seen.g()).shifted(lambda)
    }

    refuses_moments!();
}

impl<T: Scalar> Subject<T> for Embedding {
    fn damped_block(&self, seen: &Seen, lambda: f64) -> Matrix {
        diagonal_of(&seen.a()).kron(&seen.g()).shifted(lambda)
    }

    refuses_moments!();
}

impl<T: Scalar> Subject<T> for Diagonal {
    fn damped_block(&self, seen: &Seen, lambda: f64) -> Matrix {
        let case = |(a, g): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> {
            a.iter().flat_map(|a| g.iter().map(move |g| g * a)).collect()
        };
        let gradients: Vec<Vec<f64>> = seen.inputs.iter().zip(&seen.gradients).map(case).collect();
        diagonal_of(&second_moment(&gradients)).shifted(lambda)
    }

    refuses_moments!();
}

/// On sequences of one step, where a chain is what `π` splits, factors of size 1 included.
macro_rules! subject_of_single_steps {
    ($map:ty) => {
        impl<T: Scalar> Subject<T> for $map {
            fn damped_block(&self, seen: &Seen, lambda: f64) -> Matrix {
                let (a, g) = (seen.a(), seen.g());
                let [input, output] = balanced(&a, &g, lambda);
                a.shifted(input).kron(&g.shifted(output))
            }

            fn add_moments<K: Kernel<T>>(
                kfac: &mut Preconditioner<'_, T, Self, K>,
                layer: usize,
                moments: Moments<'_, T>,
                scratch: &mut [T],
            ) -> bool {
                add_single_steps(kfac, layer, moments, scratch);
                true
            }
        }
    };
}

subject_of_single_steps!(ChainSymmetric);
subject_of_single_steps!(ChainLimit);

fn add_single_steps<T: Scalar, M: ChainMap<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    layer: usize,
    Moments { a, g, .. }: Moments<'_, T>,
    scratch: &mut [T],
) {
    let zeros = [a, g].map(|moment| vec![T::ZERO; moment.rows() * moment.rows()]);
    let [a_lag, g_lag] = [(&zeros[0], a), (&zeros[1], g)]
        .map(|(x, moment)| MatRef::row_major(x, moment.rows(), moment.rows()).unwrap());
    let moments = ChainMoments { a, a_lag, g, g_lag, lengths: &[(1, T::ONE)] };
    kfac.observe(1).add_chain_moments(layer, moments, scratch).unwrap();
}

/// One line of the table.
struct Entry<M, K> {
    name: String,
    map: M,
    kernel: K,
}

/// A promise.
trait Promise {
    fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>);
}

fn holds_for_every_map(promise: &impl Promise) {
    holds_for(promise, Factored);
    holds_for(promise, Eigenbasis::full());
    holds_for(promise, Eigenbasis::jacobi());
    holds_for(promise, Shifted::full());
    holds_for(promise, Ekfac::full());
    holds_for(promise, Embedding::full());
    holds_for(promise, Diagonal);
    holds_for(promise, ChainSymmetric::full());
    holds_for(promise, ChainLimit::full());
}

fn holds_for<M: Subject<f32> + Subject<f64>>(promise: &impl Promise, map: M) {
    on::<f64, M, _>(promise, map, Reproducible);
    on::<f32, M, _>(promise, map, Reproducible);
    on::<f64, M, _>(promise, map, Fast::detect());
    on::<f32, M, _>(promise, map, Fast::detect());
}

fn on<T: Scalar, M: Subject<T>, K: Kernel<T>>(promise: &impl Promise, map: M, kernel: K) {
    let name = format!("{} in {} on {}", M::NAME, type_name::<T>(), type_name::<K>());
    promise.check::<T, M, K>(&Entry { name, map, kernel });
}

/// Runs `body` on a preconditioner that has seen one batch at damping `LAMBDA`, and refreshed.
fn when_ready<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    entry: &Entry<M, K>,
    body: impl FnOnce(&mut Preconditioner<'_, T, M, K>, &mut [T]),
) {
    let mut room = Room::new::<M, K>(&NET);
    let (mut kfac, scratch) = room.precondition(&NET, entry.map, entry.kernel);
    for (layer, shape) in NET.into_iter().enumerate() {
        observe(&mut kfac, layer, shape, scratch);
    }
    kfac.set_damping(T::from_f64(LAMBDA)).unwrap();
    kfac.refresh(scratch).unwrap();
    body(&mut kfac, scratch);
}

fn observe<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    layer: usize,
    shape: LayerShape,
    scratch: &mut [T],
) {
    let [a, g] = evidence(layer);
    let a = MatRef::row_major(&a, CASES, shape.features()).unwrap();
    let g = MatRef::row_major(&g, CASES, shape.outputs()).unwrap();
    kfac.observe(CASES).add(layer, &Rows(a), OutputGradients::per_case(g), scratch).unwrap();
}

/// Rows of inputs and of output gradients.
fn evidence<T: Scalar>(layer: usize) -> [Vec<T>; 2] {
    let shape = NET[layer];
    [random(CASES * shape.features(), layer as u64), random(CASES * shape.outputs(), 100 + layer as u64)]
}

/// Gradients of all layers.
fn gradients<T: Scalar>(seed: u64) -> Vec<Vec<T>> {
    NET.iter().enumerate().map(|(layer, shape)| random(shape.weights(), seed + layer as u64)).collect()
}

/// `V` to `U` for all layers.
fn precondition<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    v: &[Vec<T>],
    scratch: &mut [T],
) -> Result<(Vec<Vec<T>>, Preconditioned<T>), LayerError> {
    let mut u = v.to_vec();
    let joint = |(layer, u)| -> LayerGradient<'_, T> {
        let u: &mut Vec<T> = u;
        LayerGradient::joint(layer, MatMut::row_major(u, NET[layer].outputs(), NET[layer].inputs()).unwrap())
    };
    let report = kfac.precondition(&mut u.iter_mut().enumerate().map(joint).collect::<Vec<_>>(), scratch)?;
    Ok((u, report))
}

fn inner<T: Scalar>(x: &[Vec<T>], y: &[Vec<T>]) -> f64 {
    dot(&widened(&x.concat()), &widened(&y.concat()))
}

/// The dense solution for `V`.
fn dense_solution<T: Scalar, M: Subject<T>>(map: M, layer: usize, lambda: f64, v: &[T]) -> Vec<f64> {
    let v = Matrix::new(NET[layer].outputs(), NET[layer].inputs(), widened(v));
    let solution = map.damped_block(&Seen::by::<T>(layer), lambda).solve(&v.column_stacked());
    Matrix::from_column_stacked(v.rows, &solution).data
}

#[test]
fn u_solves_the_damped_system_of_its_map() {
    struct SolvesItsSystem;
    impl Promise for SolvesItsSystem {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            when_ready(entry, |kfac: &mut Preconditioner<'_, T, M, K>, scratch| {
                let v = gradients(10);
                let (u, _) = precondition(kfac, &v, scratch).unwrap();
                for layer in 0..NET.len() {
                    let want = dense_solution(entry.map, layer, LAMBDA, &v[layer]);
                    let what = format!("{}, layer {layer}", entry.name);
                    assert_close(&what, &widened(&u[layer]), &want, tolerance::<T>());
                }
            });
        }
    }
    holds_for_every_map(&SolvesItsSystem);
}

#[test]
fn u_is_linear_in_v() {
    struct Linear;
    impl Promise for Linear {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            when_ready(entry, |kfac: &mut Preconditioner<'_, T, M, K>, scratch| {
                let (v, w) = (gradients::<T>(10), gradients::<T>(20));
                let [two, three] = [2.0, 3.0].map(T::from_f64);
                let combine = |x: &[Vec<T>], y: &[Vec<T>]| -> Vec<Vec<T>> {
                    let layer = |(x, y): (&Vec<T>, &Vec<T>)| {
                        x.iter().zip(y).map(|(&x, &y)| two * x - three * y).collect()
                    };
                    x.iter().zip(y).map(layer).collect()
                };
                let [of_v, of_w, of_both] =
                    [&v, &w, &combine(&v, &w)].map(|v| precondition(kfac, v, scratch).unwrap().0);
                for (layer, want) in combine(&of_v, &of_w).iter().enumerate() {
                    let what = format!("{}, layer {layer}", entry.name);
                    assert_close(&what, &widened(&of_both[layer]), &widened(want), tolerance::<T>());
                }
            });
        }
    }
    holds_for_every_map(&Linear);
}

#[test]
fn the_map_is_symmetric_and_positive_definite() {
    struct SymmetricPositive;
    impl Promise for SymmetricPositive {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            when_ready(entry, |kfac: &mut Preconditioner<'_, T, M, K>, scratch| {
                for seed in [10, 20, 30] {
                    let (v, w) = (gradients::<T>(seed), gradients::<T>(seed + 5));
                    let [of_v, of_w] = [&v, &w].map(|v| precondition(kfac, v, scratch).unwrap().0);
                    let (left, right) = (inner(&of_v, &w), inner(&v, &of_w));
                    // The products are sums of terms of either sign: in units of their norms.
                    let size = (inner(&of_v, &of_v) * inner(&w, &w)).sqrt();
                    assert!(
                        (left - right).abs() <= tolerance::<T>() * size,
                        "{}: {left:e} {right:e}",
                        entry.name
                    );
                    assert!(inner(&of_v, &v) > 0.0, "{}: {:e}", entry.name, inner(&of_v, &v));
                }
            });
        }
    }
    holds_for_every_map(&SymmetricPositive);
}

#[test]
fn the_report_holds_the_inner_products() {
    struct Products;
    impl Promise for Products {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            when_ready(entry, |kfac: &mut Preconditioner<'_, T, M, K>, scratch| {
                let v = gradients::<T>(10);
                let (u, report) = precondition(kfac, &v, scratch).unwrap();
                let got = [report.inner, report.gradient_squares.unwrap()].map(T::to_f64);
                assert_close(&entry.name, &got, &[inner(&u, &v), inner(&v, &v)], tolerance::<T>());
                assert_eq!(report.stale_layers, 0, "{}", entry.name);
            });
        }
    }
    holds_for_every_map(&Products);
}

/// `(cA, G/c)` is the same Fisher matrix.
#[test]
fn how_the_scale_is_shared_between_the_factors_does_not_matter() {
    struct ScaleFree;
    impl Promise for ScaleFree {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            when_ready(entry, |kfac: &mut Preconditioner<'_, T, M, K>, scratch| {
                let v = gradients::<T>(10);
                let want = precondition(kfac, &v, scratch).unwrap().0;
                for c in [1e-3, 7.3, 1e4] {
                    let mut room = Room::new::<M, K>(&NET);
                    let (mut scaled, scratch) = room.precondition(&NET, entry.map, entry.kernel);
                    for (layer, shape) in NET.iter().enumerate() {
                        let seen = Seen::by::<T>(layer);
                        let [a, g] = [(seen.a(), c), (seen.g(), 1.0 / c)].map(|(factor, c)| {
                            let scaled = factor.scaled(c).data;
                            scaled.into_iter().map(T::from_f64).collect::<Vec<T>>()
                        });
                        let a = MatRef::row_major(&a, shape.inputs(), shape.inputs()).unwrap();
                        let g = MatRef::row_major(&g, shape.outputs(), shape.outputs()).unwrap();
                        if !M::add_moments(&mut scaled, layer, Moments { a, g, positions: T::ONE }, scratch) {
                            return;
                        }
                    }
                    scaled.set_damping(T::from_f64(LAMBDA)).unwrap();
                    scaled.refresh(scratch).unwrap();
                    let got = precondition(&mut scaled, &v, scratch).unwrap().0;
                    let what = format!("{}, c = {c}", entry.name);
                    assert_close(&what, &widened(&got.concat()), &widened(&want.concat()), tolerance::<T>());
                }
            });
        }
    }
    holds_for_every_map(&ScaleFree);
}

/// Transposed, with gaps, with the bias apart, in one flat slice: the same numbers give the same bits.
#[test]
fn gradients_may_lie_in_memory_as_they_like() {
    struct AnyLayout;
    impl Promise for AnyLayout {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            when_ready(entry, |kfac: &mut Preconditioner<'_, T, M, K>, scratch| {
                let v = gradients::<T>(10);
                let (want, report) = precondition(kfac, &v, scratch).unwrap();

                let mut flat = v.concat();
                assert_eq!(kfac.precondition_flat(&mut flat, scratch).unwrap(), report, "{}", entry.name);
                assert_eq!(bits(&flat), bits(&want.concat()), "{}: flat", entry.name);

                for (layer, shape) in NET.into_iter().enumerate() {
                    let (m, n) = (shape.outputs(), shape.inputs());
                    // Columns one after the other, every second place.
                    let gap = T::from_f64(0.125);
                    let mut strided = vec![gap; 2 * m * n];
                    let mut view = MatMut::with_strides(&mut strided, [m, n], [2, 2 * m]).unwrap();
                    view.copy_from(MatRef::row_major(&v[layer], m, n).unwrap()).unwrap();
                    let gradient = LayerGradient::joint(layer, view);
                    kfac.precondition(&mut [gradient], scratch).unwrap();
                    let found: Vec<T> = (0..m * n).map(|at| strided[2 * (at % n * m + at / n)]).collect();
                    assert_eq!(bits(&found), bits(&want[layer]), "{}: strided {layer}", entry.name);
                    let gaps = strided.iter().skip(1).step_by(2);
                    assert!(gaps.copied().all(|x| x == gap), "{}: gaps {layer}", entry.name);

                    if shape.has_bias() {
                        let rows = v[layer].chunks(n);
                        let mut weights: Vec<T> =
                            rows.clone().flat_map(|row| row[..n - 1].to_vec()).collect();
                        let mut bias: Vec<T> = rows.map(|row| row[n - 1]).collect();
                        let view = MatMut::row_major(&mut weights, m, n - 1).unwrap();
                        let gradient = LayerGradient::with_bias(layer, view, &mut bias);
                        kfac.precondition(&mut [gradient], scratch).unwrap();
                        let row = |i: usize| [&weights[i * (n - 1)..][..n - 1], &[bias[i]]].concat();
                        let found: Vec<T> = (0..m).flat_map(row).collect();
                        assert_eq!(bits(&found), bits(&want[layer]), "{}: bias {layer}", entry.name);
                    }
                }
            });
        }
    }
    holds_for_every_map(&AnyLayout);
}

#[test]
fn layers_may_come_in_any_order_and_those_that_are_absent_are_not_used() {
    struct AnySubset;
    impl Promise for AnySubset {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            when_ready(entry, |kfac: &mut Preconditioner<'_, T, M, K>, scratch| {
                let v = gradients::<T>(10);
                let (want, _) = precondition(kfac, &v, scratch).unwrap();
                let [mut last, mut first] = [v[3].clone(), v[0].clone()];
                let views = &mut [
                    LayerGradient::joint(3, MatMut::row_major(&mut last, 4, 1).unwrap()),
                    LayerGradient::joint(0, MatMut::row_major(&mut first, 3, 6).unwrap()),
                ];
                let report = kfac.precondition(views, scratch).unwrap();
                assert_eq!(bits(&last), bits(&want[3]), "{}", entry.name);
                assert_eq!(bits(&first), bits(&want[0]), "{}", entry.name);
                let squares = inner(&v[..1], &v[..1]) + inner(&v[3..4], &v[3..4]);
                let found = [report.gradient_squares.unwrap().to_f64()];
                assert_close(&entry.name, &found, &[squares], tolerance::<T>());
                let nothing = kfac.precondition(&mut [], scratch).unwrap();
                assert_eq!(
                    (nothing.inner, nothing.gradient_squares.unwrap()),
                    (T::ZERO, T::ZERO),
                    "{}",
                    entry.name
                );
            });
        }
    }
    holds_for_every_map(&AnySubset);
}

#[test]
fn a_zero_gradient_stays_zero() {
    struct Zero;
    impl Promise for Zero {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            when_ready(entry, |kfac: &mut Preconditioner<'_, T, M, K>, scratch| {
                let zeros: Vec<Vec<T>> = NET.iter().map(|shape| vec![T::ZERO; shape.weights()]).collect();
                let (u, report) = precondition(kfac, &zeros, scratch).unwrap();
                assert!(u.concat().iter().all(|&u| u == T::ZERO), "{}: {u:?}", entry.name);
                assert_eq!(
                    (report.inner, report.gradient_squares.unwrap()),
                    (T::ZERO, T::ZERO),
                    "{}",
                    entry.name
                );
            });
        }
    }
    holds_for_every_map(&Zero);
}

#[test]
fn a_layer_without_statistics_or_inverse_is_refused_and_never_the_identity() {
    struct NotReady;
    impl Promise for NotReady {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            let mut room = Room::new::<M, K>(&NET);
            let (mut kfac, scratch) = room.precondition(&NET, entry.map, entry.kernel);
            let v = gradients::<T>(10);
            let error = |kind, layer| Err(LayerError { layer, kind });
            let [unseen, not_ready] = [LayerErrorKind::NoStatistics, LayerErrorKind::NotReady];
            // Neither statistics nor refresh, then statistics of all layers but 2, then its own without a refresh.
            assert_eq!(precondition(&mut kfac, &v, scratch), error(unseen, 0), "{}", entry.name);
            assert!(!kfac.is_ready(), "{}", entry.name);
            for layer in [0, 1, 3, 4, 5] {
                observe(&mut kfac, layer, NET[layer], scratch);
            }
            assert!(!kfac.is_ready(), "{}", entry.name);
            assert_eq!(precondition(&mut kfac, &v, scratch), error(not_ready, 0), "{}", entry.name);
            let report = kfac.refresh(scratch).unwrap();
            assert_eq!(report.without_statistics as usize, M::UNIT.sides().len(), "{}", entry.name);
            // Another optimizer may have the layer without statistics.
            assert!(kfac.is_ready(), "{}", entry.name);
            assert_eq!(precondition(&mut kfac, &v, scratch), error(unseen, 2), "{}", entry.name);
            observe(&mut kfac, 2, NET[2], scratch);
            assert!(!kfac.is_ready(), "{}", entry.name);
            assert_eq!(precondition(&mut kfac, &v, scratch), error(not_ready, 2), "{}", entry.name);
            kfac.refresh(scratch).unwrap();
            assert!(kfac.is_ready(), "{}", entry.name);
            precondition(&mut kfac, &v, scratch).unwrap();
        }
    }
    holds_for_every_map(&NotReady);
}

/// `Factored` has the damping of its last refresh baked in, `Eigenbasis` uses the current one; both report it.
#[test]
fn the_damping_in_force_is_the_one_reported() {
    struct InForce;
    impl Promise for InForce {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            when_ready(entry, |kfac: &mut Preconditioner<'_, T, M, K>, scratch| {
                let v = gradients::<T>(10);
                let other = T::from_f64(3.0);
                kfac.set_damping(other).unwrap();
                // A layer that has never been refreshed has no damping in force but the current one.
                let mut room = Room::new::<M, K>(&NET);
                let (fresh, _) = room.precondition(&NET, entry.map, entry.kernel);
                let current = (M::DAMPING == DampingInForce::Current).then(|| fresh.damping().to_f64());
                assert_eq!(fresh.layer_report(0).unwrap().damping_in_force, current, "{}", entry.name);
                let expected = match M::DAMPING {
                    DampingInForce::LastRefresh => T::from_f64(LAMBDA),
                    DampingInForce::Current => other,
                };
                let check = |kfac: &mut Preconditioner<'_, T, M, K>, lambda: T, scratch: &mut [T]| {
                    let (u, _) = precondition(kfac, &v, scratch).unwrap();
                    for layer in 0..NET.len() {
                        let what = format!("{}, layer {layer}, lambda {lambda}", entry.name);
                        let reported = kfac.layer_report(layer).unwrap().damping_in_force;
                        assert_eq!(reported, Some(lambda.to_f64()), "{what}");
                        let want = dense_solution(entry.map, layer, lambda.to_f64(), &v[layer]);
                        assert_close(&what, &widened(&u[layer]), &want, tolerance::<T>());
                    }
                };
                check(kfac, expected, scratch);
                kfac.refresh(scratch).unwrap();
                check(kfac, other, scratch);
            });
        }
    }
    holds_for_every_map(&InForce);
}

#[test]
fn l2_weight_decay_is_added_to_the_damping() {
    struct Decayed;
    impl Promise for Decayed {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            let v = gradients::<T>(10);
            // Powers of two: the sum is exact.
            let [u, with_l2] = [(0.75, 0.0), (0.25, 0.5)].map(|(lambda, l2)| {
                let mut room = Room::new::<M, K>(&NET);
                let (kfac, scratch) = room.precondition(&NET, entry.map, entry.kernel);
                let mut kfac = kfac.with_l2(T::from_f64(l2)).unwrap();
                for (layer, shape) in NET.into_iter().enumerate() {
                    observe(&mut kfac, layer, shape, scratch);
                }
                kfac.set_damping(T::from_f64(lambda)).unwrap();
                kfac.refresh(scratch).unwrap();
                let in_force = kfac.layer_report(0).unwrap().damping_in_force;
                assert_eq!(in_force, Some(0.75), "{}", entry.name);
                precondition(&mut kfac, &v, scratch).unwrap().0
            });
            assert_eq!(bits(&u.concat()), bits(&with_l2.concat()), "{}", entry.name);
        }
    }
    holds_for_every_map(&Decayed);
}

/// A layer that never sees a gradient, or never a signal: `√λ I` takes the place of both factors, `U = V / λ`.
#[test]
fn a_factor_that_vanishes_leaves_v_over_lambda_and_is_counted() {
    struct Vanished;
    impl Promise for Vanished {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            let net = [LayerShape::dense(3, 2).without_bias()];
            let ones: Vec<T> = random(CASES * 3, 1);
            let zeros = vec![T::ZERO; CASES * 3];
            for (a, g) in [(&ones, &zeros), (&zeros, &ones), (&zeros, &zeros)] {
                let mut room = Room::new::<M, K>(&net);
                let (mut kfac, scratch) = room.precondition(&net, entry.map, entry.kernel);
                let a = MatRef::row_major(a, CASES, 3).unwrap();
                let g = MatRef::row_major(g, CASES, 2).unwrap();
                kfac.observe(CASES).add(0, &Rows(a), OutputGradients::per_case(g), scratch).unwrap();
                kfac.set_damping(T::from_f64(0.25)).unwrap();
                assert!(kfac.refresh(scratch).unwrap().zero_traces > 0, "{}", entry.name);
                let v: Vec<T> = random(6, 2);
                let mut u = v.clone();
                kfac.precondition_flat(&mut u, scratch).unwrap();
                let want: Vec<f64> = v.iter().map(|v| v.to_f64() / 0.25).collect();
                assert_close(&entry.name, &widened(&u), &want, tolerance::<T>());
            }
        }
    }
    holds_for_every_map(&Vanished);
}

/// A unit that has died: its gradients fade from the average until they are subnormal, where a decay of 0.95 rounds to
/// no decay. What they leave is next to nothing, which is not a failure: `U = V / λ`, as if they had vanished.
#[test]
fn a_layer_whose_output_has_died_is_preconditioned_for_good() {
    fn check<M: FactorMap<f32>>(map: M) {
        let net = [LayerShape::dense(4, 24)];
        let mut room = Room::<f32>::new::<M, Reproducible>(&net);
        let (mut kfac, scratch) = room.precondition(&net, map, Reproducible);
        let (a, mut g) = (random(CASES * 4, 1), vec![0.0; CASES * 24]);
        g.iter_mut().step_by(24).zip(random::<f32>(CASES, 2)).for_each(|(g, alive)| *g = alive);
        kfac.set_damping(0.25).unwrap();
        for update in 0..2_600 {
            let a = MatRef::row_major(&a, CASES, 4).unwrap();
            let gradients = OutputGradients::per_case(MatRef::row_major(&g, CASES, 24).unwrap());
            kfac.observe(CASES).add(0, &Rows(a), gradients, scratch).unwrap();
            let report = kfac.refresh(scratch).unwrap();
            assert_eq!(report.failures, 0, "{}: update {update}", M::NAME);
            g.fill(0.0);
        }
        let v: Vec<f32> = random(5 * 24, 3);
        let mut u = v.clone();
        kfac.precondition_flat(&mut u, scratch).unwrap();
        let want: Vec<f64> = v.iter().map(|&v| f64::from(v) / 0.25).collect();
        assert_close(M::NAME, &widened(&u), &want, tolerance::<f32>());
    }
    check(Factored);
    check(Eigenbasis::full());
    check(Shifted::full());
    check(Embedding::full());
    check(Diagonal);
    check(ChainSymmetric::full());
    check(ChainLimit::full());
}

/// A preconditioner that owns its memory computes what one in lent memory does.
#[cfg(feature = "alloc")]
#[test]
fn owned_storage_gives_the_same_bits_as_borrowed() {
    struct Owned;
    impl Promise for Owned {
        fn check<T: Scalar, M: Subject<T>, K: Kernel<T>>(&self, entry: &Entry<M, K>) {
            when_ready(entry, |kfac: &mut Preconditioner<'_, T, M, K>, scratch| {
                let v = gradients::<T>(10);
                let (want, _) = precondition(kfac, &v, scratch).unwrap();
                let mut owned = Preconditioner::on_heap(&NET, entry.map, entry.kernel).unwrap();
                assert_eq!(owned.scratch_len(), scratch.len(), "{}", entry.name);
                for (layer, shape) in NET.into_iter().enumerate() {
                    observe(&mut owned, layer, shape, scratch);
                }
                owned.set_damping(T::from_f64(LAMBDA)).unwrap();
                owned.refresh(scratch).unwrap();
                let (found, _) = precondition(&mut owned, &v, scratch).unwrap();
                assert_eq!(bits(&found.concat()), bits(&want.concat()), "{}", entry.name);
            });
        }
    }
    holds_for_every_map(&Owned);
}
