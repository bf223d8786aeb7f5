//! One subspace step from an old basis: orthonormality, Rayleigh quotients, and how good the estimates are.

mod common;

use common::{
    Numbers, identity, minus, minus_identity, norm, relu_factor, rounded, times, tolerance, transposed,
};
use common::{widened, with_spectrum};
use kfac_linalg::eigh::jacobi::{self, Budget};
use kfac_linalg::eigh::refresh::{self, Refresh, Refreshed, Settings};
use kfac_linalg::eigh::{Eigensolver, EighError, Jacobi, Qr};
use kfac_linalg::product::Accumulate;
use kfac_linalg::{
    Fast, InstructionSet, Kernel, MatMut, MatRef, Reproducible, ReproducibleOn, Scalar, ScratchError,
    ShapeError,
};

/// A basis with its eigenvalues.
#[derive(Clone, Debug, PartialEq)]
struct Basis<T> {
    q: Vec<T>,
    d: Vec<T>,
}

impl<T: Scalar> Basis<T> {
    /// Of a matrix, in double precision, rounded.
    fn of(a: &[f64], n: usize) -> Self {
        let (mut q, mut d) = (vec![0.0; n * n], vec![0.0; n]);
        let scratch = &mut vec![0.0; jacobi::scratch_len::<f64>(n)];
        let (a, view) = (MatRef::row_major(a, n, n).unwrap(), MatMut::row_major(&mut q, n, n).unwrap());
        jacobi::cold(Reproducible, a, view, &mut d, Budget::FULL, scratch).unwrap();
        Self { q: rounded(&q), d: rounded(&d) }
    }

    /// One step; scratch is as short as promised and full of NaN.
    fn step<K: Kernel<T>>(&mut self, kernel: K, a: &[T], lambda: T) -> Result<Refreshed, EighError> {
        let n = self.d.len();
        let scratch = &mut vec![common::nan(); refresh::step_scratch_len::<T>(n)];
        let (a, q) = (MatRef::row_major(a, n, n).unwrap(), MatMut::row_major(&mut self.q, n, n).unwrap());
        refresh::step(kernel, a, q, &mut self.d, lambda, scratch)
    }

    /// `||QᵀQ - I||_F`.
    fn deviation(&self) -> f64 {
        let (n, q) = (self.d.len(), widened(&self.q));
        norm(&minus_identity(&times(&transposed(&q, [n, n]), &q, [n, n, n]), n))
    }
}

/// A moving average, decay 0.95, over batches of vectors; rectified or not, their size falling as `i^-power`.
struct Moving {
    n: usize,
    batch: usize,
    power: f64,
    rectified: bool,
    a: Vec<f64>,
    numbers: Numbers,
}

impl Moving {
    fn new([n, batch]: [usize; 2], power: f64, rectified: bool) -> Self {
        let mut moving = Self { n, batch, power, rectified, a: vec![0.0; n * n], numbers: Numbers(n as u64) };
        (0..20).for_each(|_| moving.advance());
        moving
    }

    fn advance(&mut self) {
        let (n, batch) = (self.n, self.batch);
        let mut x = vec![0.0; batch * n];
        for (at, x) in x.iter_mut().enumerate() {
            let size = ((at % n + 1) as f64).powf(-self.power);
            let number = self.numbers.next();
            *x = size * if self.rectified { number.max(0.0) } else { number };
        }
        let mut gram = vec![0.0; n * n];
        let (x, view) =
            (MatRef::row_major(&x, batch, n).unwrap(), MatMut::row_major(&mut gram, n, n).unwrap());
        common::With(Fast::detect()).gemm(view, Accumulate::Replace(1.0), x.transposed(), x);
        for (a, x) in self.a.iter_mut().zip(&gram) {
            *a = 0.95 * *a + 0.05 * x / batch as f64;
        }
    }

    fn lambda(&self) -> f64 {
        1e-3 * (0..self.n).map(|i| self.a[i * self.n + i]).sum::<f64>() / self.n.max(1) as f64
    }
}

/// `[off_diagonal, inverse_error, worst relative error of a Rayleigh quotient]`, the long way.
fn truth<T: Scalar>(a: &[f64], basis: &Basis<T>, lambda: f64) -> [f64; 3] {
    let n = basis.d.len();
    let (q, d) = (widened(&basis.q), widened(&basis.d));
    let b = times(&transposed(&q, [n, n]), &times(a, &q, [n, n, n]), [n, n, n]);
    let off: Vec<f64> = (0..n * n).map(|at| if at / n == at % n { 0.0 } else { b[at] }).collect();
    let quotients = (0..n).map(|i| (d[i] - b[i * n + i]).abs() / (b[i * n + i] + lambda));
    let mut inverse: Vec<f64> =
        (0..n * n).map(|at| if at / n == at % n { a[at] + lambda } else { a[at] }).collect();
    common::With(Reproducible).inverse(&mut inverse, n).unwrap();
    let scaled: Vec<f64> = (0..n * n).map(|at| q[at] / (d[at % n] + lambda)).collect();
    let found = times(&scaled, &transposed(&q, [n, n]), [n, n, n]);
    [norm(&off) / norm(a), norm(&minus(&found, &inverse)) / norm(&inverse), quotients.fold(0.0, f64::max)]
}

/// A moving average, and what it was some batches ago.
struct Problem {
    name: String,
    n: usize,
    old: Basis<f64>,
    a: Vec<f64>,
    lambda: f64,
}

impl Problem {
    fn new([n, batch]: [usize; 2], (power, rectified, gap): (f64, bool, usize)) -> Self {
        let mut moving = Moving::new([n, batch], power, rectified);
        let old = Basis::<f64>::of(&moving.a, n);
        (0..gap).for_each(|_| moving.advance());
        let lambda = moving.lambda();
        Self { name: format!("n = {n}, power {power}, gap {gap}"), n, old, lambda, a: moving.a }
    }

    fn check<T: Scalar, K: Kernel<T>>(&self, kernel: K) {
        let Self { name, n, old, a, lambda } = self;
        let mut basis = Basis::<T> { q: rounded(&old.q), d: rounded(&old.d) };
        let found = basis.step(kernel, &rounded(a), T::from_f64(*lambda)).unwrap();
        let unit = *n as f64 * T::EPSILON.to_f64();
        let deviation = basis.deviation() / unit;
        assert!(deviation <= tolerance::STEP_ORTHOGONALITY, "{name}: {deviation:.2} n eps, {found:?}");
        assert!(basis.d.windows(2).all(|pair| pair[0] <= pair[1]), "{name}: not ascending");

        let ([off, error, quotients], stale) = (truth(a, &basis, *lambda), truth(a, old, *lambda));
        let floor = 10.0 * unit;
        let close = |estimate: f64, truth: f64, factor: f64| {
            estimate <= factor * truth + floor && truth <= factor * estimate + floor
        };
        assert!(close(found.off_diagonal, off, tolerance::STEP_ESTIMATES), "{name}: {found:?}, but {off:e}");
        assert!(
            close(found.inverse_error, error, tolerance::STEP_ESTIMATES),
            "{name}: {found:?}, but {error:e}"
        );
        assert!(
            quotients <= tolerance::STEP_QUOTIENTS,
            "{name}: a Rayleigh quotient is off by {quotients:e}"
        );
        assert!(error <= stale[1] + floor, "{name}: {error:e} was {:e}", stale[1]);
    }
}

#[test]
fn a_step_follows_a_moving_average() {
    for n in [1, 2, 3, 5, 31, 32, 33, 64, 80] {
        for history in [(0.5, true, 1), (0.5, true, 10), (1.0, false, 10), (1.0, false, 60)] {
            let problem = Problem::new([n, 4 * n], history);
            problem.check::<f32, _>(Reproducible);
            problem.check::<f64, _>(Reproducible);
            for set in InstructionSet::available() {
                problem.check::<f32, _>(Fast::on(set));
                problem.check::<f64, _>(Fast::on(set));
            }
        }
    }
}

fn small_pivots_take_a_second_pass<T: Scalar, K: Kernel<T>>(problem: &Problem, kernel: K) {
    let mut basis = Basis::<T> { q: rounded(&problem.old.q), d: rounded(&problem.old.d) };
    let found = basis.step(kernel, &rounded(&problem.a), T::from_f64(problem.lambda)).unwrap();
    assert!(found.passes == 2 && found.pivot < 0.1, "{found:?}");
    let deviation = basis.deviation() / (problem.n as f64 * T::EPSILON.to_f64());
    assert!(deviation <= 2.0, "{deviation:.2} n eps");
}

#[test]
fn small_pivots_take_a_second_pass_which_ends_closer_than_any_first() {
    // Batches of few vectors: the basis has turned far.
    let problem = Problem::new([64, 16], (1.0, false, 60));
    small_pivots_take_a_second_pass::<f64, _>(&problem, Reproducible);
    small_pivots_take_a_second_pass::<f32, _>(&problem, Reproducible);
    InstructionSet::available()
        .for_each(|set| small_pivots_take_a_second_pass::<f32, _>(&problem, Fast::on(set)));
}

/// A step ends within `10 n eps` of orthonormal and says so, or it is lost and nothing was written. Gives its passes.
fn is_orthonormal_or_lost<T: Scalar>(name: &str, old: &Basis<T>, a: &[T], lambda: f64) -> Option<u8> {
    let (mut basis, unit) = (old.clone(), old.d.len() as f64 * T::EPSILON.to_f64());
    match basis.step(Reproducible, a, T::from_f64(lambda)) {
        Ok(found) => {
            let deviation = basis.deviation();
            assert!(
                deviation <= tolerance::STEP_ORTHOGONALITY * unit,
                "{name}: {:.2} n eps, {found:?}",
                deviation / unit
            );
            assert!(
                (found.deviation - deviation).abs() <= 0.8 * deviation + unit,
                "{name}: {found:?}, {deviation:e}"
            );
            Some(found.passes)
        }
        Err(EighError::SubspaceLost { pivot }) => {
            assert!((-1.0..=1.0).contains(&pivot) && basis == *old, "{name}: {pivot}");
            None
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

/// `A` and `V` with `A V = W`, where all pivots of `WᵀW` but the first are `pivot` (relative), and `W` is as nearly
/// singular as that allows: Kahan's matrix. `A = (W Wᵀ)^½`, `V` the orthogonal factor of `W`.
fn kahan(n: usize, pivot: f64) -> [Vec<f64>; 2] {
    let mut w = vec![0.0; n * n];
    for place in 0..n {
        let column = n - 1 - place;
        (0..place).for_each(|i| w[i * n + column] = -((1.0 - pivot) / place as f64).sqrt());
        w[place * n + column] = if place == 0 { 1.0 } else { pivot.sqrt() };
    }
    let Basis { q, d } = Basis::<f64>::of(&times(&w, &transposed(&w, [n, n]), [n, n, n]), n);
    let scaled: Vec<f64> = (0..n * n).map(|at| q[at] / d[at % n].abs().sqrt()).collect();
    let mut v = times(&times(&scaled, &transposed(&q, [n, n]), [n, n, n]), &w, [n, n, n]);
    for _ in 0..6 {
        // Newton and Schulz.
        let gram = times(&transposed(&v, [n, n]), &v, [n, n, n]);
        let half = times(&v, &gram, [n, n, n]);
        v = v.iter().zip(&half).map(|(v, h)| 1.5 * v - 0.5 * h).collect();
    }
    let a = times(&w, &transposed(&v, [n, n]), [n, n, n]);
    let mirrored = transposed(&a, [n, n]);
    [a.iter().zip(&mirrored).map(|(a, b)| 0.5 * (a + b)).collect(), v]
}

fn columns_that_depend_without_a_small_pivot<T: Scalar>() {
    let mut passes = Vec::new();
    for (n, pivot) in [(8, 0.05), (12, 0.09), (14, 0.05), (10, 0.02), (16, 0.02), (30, 0.09)]
        .into_iter()
        .chain([(40, 0.3), (64, 0.5), (100, 0.7), (100, 0.5), (8, 0.11), (16, 0.11), (20, 0.3), (40, 0.5)])
    {
        let [a, v] = kahan(n, pivot);
        let (old, a) = (Basis { q: rounded(&v), d: vec![T::ONE; n] }, rounded::<T>(&a));
        passes.push(is_orthonormal_or_lost(&format!("Kahan, n = {n}, pivot {pivot}"), &old, &a, 0.0));
    }
    assert!(passes.contains(&Some(2)) && passes.contains(&None), "{passes:?}");
}

#[test]
fn columns_that_depend_on_each_other_without_a_small_pivot_do_not_go_unnoticed() {
    columns_that_depend_without_a_small_pivot::<f32>();
    columns_that_depend_without_a_small_pivot::<f64>();
}

fn a_step_between_any_two<T: Scalar>(seed: u64) {
    let (mut numbers, mut passes) = (Numbers(seed), [0; 3]);
    for case in 0..4000 {
        let (n, decades) = (3 + case % 14, [1.0, 2.0, 4.0][case % 3]);
        let mut matrix = |seed: usize| {
            let d: Vec<f64> = (0..n).map(|_| 10_f64.powf(-decades * numbers.next().abs())).collect();
            with_spectrum(&d, seed as u64)
        };
        let (a, old) = (matrix(2 * case), Basis::<f64>::of(&matrix(5000 * case + 7), n));
        let old = Basis::<T> { q: rounded(&old.q), d: rounded(&old.d) };
        let found = is_orthonormal_or_lost(&format!("case {case}, n = {n}"), &old, &rounded(&a), 1e-3);
        passes[usize::from(found.unwrap_or(0))] += 1;
    }
    assert!(passes[1] > 1000 && passes[2] > 100, "lost, one, two: {passes:?}");
}

#[test]
fn a_step_between_any_two_matrices_is_orthonormal_or_lost() {
    a_step_between_any_two::<f32>(77);
    a_step_between_any_two::<f64>(78);
}

#[test]
fn a_basis_that_is_none_is_refused_and_replaced() {
    let n = 20;
    let a: Vec<f32> = rounded(&relu_factor(n, 5));
    let scaled = |factor: f32| identity::<f32>(n).iter().map(|x| factor * x).collect::<Vec<_>>();
    let mut twice = scaled(1.0);
    (0..n).for_each(|i| twice[i * n + 7] = twice[i * n + 4]);
    for (name, q) in
        [("zero", scaled(0.0)), ("1.3 I", scaled(1.3)), ("tiny", scaled(1e-30)), ("twice", twice)]
    {
        let old = Basis { q, d: vec![1.0; n] };
        let mut basis = old.clone();
        let refused = basis.step(Reproducible, &a, 0.1).unwrap_err();
        let truth = old.deviation();
        assert!(
            matches!(refused, EighError::NotOrthonormal { deviation } if deviation > 0.1 * truth && deviation < 3.0 * truth),
            "{name}: {refused:?}, {truth}"
        );
        assert!(basis == old, "{name}");

        let scratch = &mut vec![0.0; refresh::step_or_cold_scratch_len::<f32>(n, Qr::METHOD)];
        let (view, q) =
            (MatRef::row_major(&a, n, n).unwrap(), MatMut::row_major(&mut basis.q, n, n).unwrap());
        let settings = Settings::new(0.1, Qr);
        let found = refresh::step_or_cold(Reproducible, view, q, &mut basis.d, settings, scratch).unwrap();
        assert!(matches!(found, Refresh::Cold { cause, .. } if cause == refused), "{name}: {found:?}");
        assert!(basis.deviation() < 1e-4, "{name}");
    }
}

#[test]
fn a_damping_that_is_none_is_refused() {
    let old = Basis { q: identity::<f64>(3), d: vec![1.0; 3] };
    for lambda in [-1e-300, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        let mut basis = old.clone();
        let refused = basis.step(Reproducible, &identity(3), lambda).unwrap_err();
        let EighError::Damping { value } = refused else { panic!("{lambda}: {refused:?}") };
        assert!(
            (value.to_bits() == lambda.to_bits() || lambda.is_nan()) && basis == old,
            "{lambda}: {value}"
        );
    }
}

#[test]
fn the_pivot_of_a_lost_step_is_relative_and_nan_where_something_is_not_finite() {
    let lost = |a: [f32; 4], d: [f32; 2]| {
        let found = Basis { q: identity::<f32>(2), d: d.to_vec() }.step(Reproducible, &a, 0.0);
        let Err(EighError::SubspaceLost { pivot }) = found else { panic!("{found:?}") };
        pivot
    };
    // W = A here, of rank 1; its columns have norms of 1e5 and more.
    let relative = [0.1_f32, 0.7, 0.9, 1.0].map(|x| lost([1e5, 0.0, 1e5 * x, 1e5 * x * x], [1.0; 2]));
    assert!(relative.iter().all(|pivot| pivot.abs() < 1e-5), "{relative:?}");
    for bad in [f32::INFINITY, f32::NAN] {
        assert!(lost([1.0, 0.0, 0.0, 1.0], [1.0, bad]).is_nan());
    }
    assert!(lost([1e30, 0.0, 0.0, 1e30], [1e-3; 2]).is_nan(), "its square is beyond all numbers");
}

#[test]
fn a_matrix_that_has_not_changed_keeps_its_basis() {
    for n in [0, 1, 2, 5, 32, 40] {
        let a = relu_factor(n, 1);
        let old = Basis::<f64>::of(&a, n);
        let mut new = old.clone();
        let found = new.step(Fast::detect(), &a, 1e-3).unwrap();
        assert_eq!(found.passes, 1);
        let unit = 10.0 * n as f64 * f64::EPSILON;
        assert!(found.off_diagonal <= unit && found.inverse_error <= unit * 1e3, "{found:?}");
        // (A + λI) V (D + λI)⁻¹ is V itself, not -V.
        let error = norm(&minus(&new.q, &old.q));
        assert!(error <= 1e3 * unit, "n = {n}: {error:e}");
        assert!(norm(&minus(&new.d, &old.d)) <= unit * norm(&old.d), "n = {n}");
    }
}

#[test]
fn step_after_step_becomes_a_decomposition() {
    let n = 24;
    let d: Vec<f64> = (0..n).map(|i| 0.6_f64.powi(n as i32 - i as i32)).collect();
    let a = with_spectrum(&d, 2);
    let mut basis = Basis { q: identity::<f64>(n), d: vec![1.0; n] };
    let mut last = Refreshed { passes: 0, deviation: 1.0, pivot: 0.0, off_diagonal: 1.0, inverse_error: 1.0 };
    for _ in 0..100 {
        last = basis.step(Reproducible, &a, 1e-9).unwrap();
    }
    assert!(last.off_diagonal < 1e-12 && last.pivot > 0.99, "{last:?}");
    let error = norm(&minus(&basis.d, &d));
    assert!(error < 1e-12, "{error:e}");
}

#[test]
fn many_steps_stay_orthonormal() {
    let n = 33;
    let mut moving = Moving::new([n, 4 * n], 1.0, true);
    let mut basis = Basis::<f32>::of(&moving.a, n);
    for refresh in 0..200 {
        moving.advance();
        let lambda = moving.lambda() as f32;
        let found = basis.step(Fast::detect(), &rounded(&moving.a), lambda).unwrap();
        let deviation = basis.deviation() / (n as f64 * f64::from(f32::EPSILON));
        assert!(deviation <= tolerance::STEP_ORTHOGONALITY, "{refresh}: {deviation:.2} n eps, {found:?}");
    }
    let [off, ..] = truth(&moving.a, &basis, moving.lambda());
    assert!(off < 0.02, "{off:e}");
}

fn bits_are_those_of_every_register_and_view<T: Scalar>() {
    let n = 70;
    let mut moving = Moving::new([n, 4 * n], 0.5, true);
    let old = Basis::<T>::of(&moving.a, n);
    moving.advance();
    let (a, lambda): (Vec<T>, _) = (rounded(&moving.a), T::from_f64(moving.lambda()));
    let mut plain = old.clone();
    let found = plain.step(Reproducible, &a, lambda).unwrap();
    for set in InstructionSet::available() {
        let mut basis = old.clone();
        assert_eq!(basis.step(ReproducibleOn(set), &a, lambda).unwrap(), found, "{set}");
        assert!(basis == plain, "{set}");
    }
    // Only the lower triangle is read, through any strides, and columns of q may be neighbours down the rows.
    let mut hollow = a.clone();
    (0..n * n).filter(|at| at / n < at % n).for_each(|at| hollow[at] = common::nan());
    let upper = transposed(&widened(&hollow), [n, n]);
    let upper: Vec<T> = rounded(&upper);
    let (mut q, mut d) = (transposed(&widened(&old.q), [n, n]), old.d.clone());
    let mut q_of_t: Vec<T> = rounded(&q);
    let scratch = &mut vec![common::nan(); refresh::step_scratch_len::<T>(n)];
    let view = MatMut::row_major(&mut q_of_t, n, n).unwrap().transposed();
    let lower = MatRef::row_major(&upper, n, n).unwrap().transposed();
    assert_eq!(refresh::step(Reproducible, lower, view, &mut d, lambda, scratch).unwrap(), found);
    q = transposed(&widened(&q_of_t), [n, n]);
    assert!(rounded::<T>(&q) == plain.q && d == plain.d);
}

#[test]
fn bits_are_those_of_every_register_width_and_view() {
    bits_are_those_of_every_register_and_view::<f32>();
    bits_are_those_of_every_register_and_view::<f64>();
}

#[test]
fn a_lost_subspace_and_numbers_that_are_not_finite_leave_everything_untouched() {
    let n = 40;
    // A basis of nothing in particular for a spectrum that falls by a factor of four: all columns become the first.
    let d: Vec<f64> = (0..n).map(|i| 4_f64.powi(i - n)).collect();
    let n = d.len();
    let a: Vec<f32> = rounded(&with_spectrum(&d, 3));
    let old = Basis { q: identity::<f32>(n), d: vec![1.0; n] };
    let mut basis = old.clone();
    let lost = basis.step(Fast::detect(), &a, 1e-12).unwrap_err();
    assert!(matches!(lost, EighError::SubspaceLost { pivot } if pivot < 1e-4), "{lost:?}");
    assert!(basis == old);

    let fine: Vec<f32> = rounded(&relu_factor(n, 4));
    for bad in [f32::NAN, f32::INFINITY] {
        let mut broken = fine.clone();
        broken[7 * n + 3] = bad;
        let mut basis = old.clone();
        let lost = basis.step(Fast::detect(), &broken, 0.1).unwrap_err();
        assert_eq!(lost, EighError::NotFinite { row: 7, col: 3 });
        assert!(basis == old);

        let mut broken = old.clone();
        broken.q[5 * n] = bad;
        assert!(matches!(broken.step(Reproducible, &fine, 0.1), Err(EighError::SubspaceLost { .. })));
        let mut broken = old.clone();
        broken.d[5] = bad;
        assert!(
            matches!(broken.step(Reproducible, &fine, 0.1), Err(EighError::SubspaceLost { .. })),
            "{bad}"
        );
    }
    // Neither eigenvalue nor damping: nothing to divide by.
    let mut zero = Basis { q: identity::<f32>(n), d: vec![0.0; n] };
    for lambda in [0.0, 1e-45] {
        let refused = zero.step(Reproducible, &fine, lambda);
        assert_eq!(refused, Err(EighError::Damping { value: lambda.into() }));
    }
    // With damping, the zero matrix keeps every basis.
    let found = zero.step(Reproducible, &vec![0.0; n * n], 0.1).unwrap();
    assert_eq!((found.off_diagonal, found.inverse_error, zero.d), (0.0, 0.0, vec![0.0; n]));
}

fn a_lost_subspace_is_decomposed_cold<T: Scalar, S: Eigensolver>(fallback: S) {
    let n = 40;
    let spectrum: Vec<f64> = (0..n).map(|i| 4_f64.powi(i - 40)).collect();
    let n = spectrum.len();
    let a: Vec<T> = rounded(&with_spectrum(&spectrum, 3));
    let len = refresh::step_or_cold_scratch_len::<T>(n, S::METHOD);
    let scratch = &mut vec![common::nan(); len];
    let settings = Settings::new(T::from_f64(1e-30), fallback);
    let mut run = |basis: &mut Basis<T>, a: &[T]| {
        let (a, q) = (MatRef::row_major(a, n, n).unwrap(), MatMut::row_major(&mut basis.q, n, n).unwrap());
        refresh::step_or_cold(Reproducible, a, q, &mut basis.d, settings, scratch)
    };
    let mut basis = Basis { q: identity::<T>(n), d: vec![T::ONE; n] };
    let found = run(&mut basis, &a).unwrap();
    assert!(
        matches!(found, Refresh::Cold { cause: EighError::SubspaceLost { pivot }, outcome } if pivot < 1e-4 && outcome.converged),
        "{found:?}"
    );
    let error = norm(&minus(&widened(&basis.d), &spectrum));
    assert!(error <= tolerance::EIGENVALUES * n as f64 * T::EPSILON.to_f64() * 0.25, "{error:e}");
    // From there on a step will do, unless the matrix is at fault.
    let settled = basis.clone();
    let mut broken = a.clone();
    broken[7 * n + 3] = common::nan();
    assert_eq!(run(&mut basis, &broken).unwrap_err(), EighError::NotFinite { row: 7, col: 3 });
    assert!(basis == settled);
}

#[test]
fn a_lost_subspace_is_decomposed_cold_by_every_solver() {
    a_lost_subspace_is_decomposed_cold::<f32, _>(Qr);
    a_lost_subspace_is_decomposed_cold::<f64, _>(Qr);
    a_lost_subspace_is_decomposed_cold::<f32, _>(Jacobi::default());
}

impl<T: Scalar> Basis<T> {
    fn step_or_cold<S: Eigensolver>(
        &mut self,
        a: &[T],
        settings: Settings<T, S>,
    ) -> Result<Refresh, EighError> {
        let n = self.d.len();
        let scratch = &mut vec![common::nan(); refresh::step_or_cold_scratch_len::<T>(n, S::METHOD)];
        let (a, q) = (MatRef::row_major(a, n, n).unwrap(), MatMut::row_major(&mut self.q, n, n).unwrap());
        refresh::step_or_cold(Reproducible, a, q, &mut self.d, settings, scratch)
    }
}

fn a_step_of_too_large_an_error_is_a_cold_decomposition<T: Scalar>() {
    let n = 8;
    let d: Vec<f64> = (1..=n).map(|i| 1.0 / i as f64).collect();
    let (a, old) = (rounded::<T>(&with_spectrum(&d, 1)), Basis::<T>::of(&with_spectrum(&d, 77), n));
    let mut stepped = old.clone();
    let found = stepped.step(Reproducible, &a, T::from_f64(0.01)).unwrap();
    assert!(found.inverse_error > 0.35, "unrelated matrices: {found:?}");

    let settings = Settings::new(T::from_f64(0.01), Qr);
    for (largest_error, taken) in [
        (refresh::LARGEST_ERROR, false),
        (found.inverse_error * (1.0 - f64::EPSILON), false),
        (f64::NAN, false),
        (found.inverse_error, true),
        (f64::INFINITY, true),
    ] {
        let mut basis = old.clone();
        let outcome = basis.step_or_cold(&a, Settings { largest_error, ..settings }).unwrap();
        if taken {
            assert_eq!(outcome, Refresh::Step(found));
            assert!(basis == stepped);
        } else {
            let cause = EighError::Inaccurate { inverse_error: found.inverse_error };
            let Refresh::Cold { cause: why, outcome } = outcome else { panic!("{outcome:?}") };
            assert!(why == cause && outcome.converged, "{why:?}, {outcome:?}");
            let mut ascending = d.clone();
            ascending.reverse();
            let error = norm(&minus(&widened(&basis.d), &ascending));
            assert!(error <= tolerance::EIGENVALUES * n as f64 * T::EPSILON.to_f64(), "{error:e}");
        }
    }

    // From a basis that is not its own, a matrix that is negative definite goes the same way.
    let negative: Vec<T> = a.iter().map(|&x| -x).collect();
    let mut basis = old.clone();
    let outcome = basis.step_or_cold(&negative, settings).unwrap();
    let refused = matches!(outcome, Refresh::Cold { cause: EighError::Inaccurate { .. }, .. });
    assert!(refused && basis.d.iter().all(|&d| d < T::ZERO), "{outcome:?}");
}

#[test]
fn a_step_of_too_large_an_error_is_replaced_by_a_cold_decomposition() {
    a_step_of_too_large_an_error_is_a_cold_decomposition::<f32>();
    a_step_of_too_large_an_error_is_a_cold_decomposition::<f64>();
}

#[test]
fn a_moving_average_is_followed_in_steps_alone() {
    // The noisiest that the default is made for: a quarter as many vectors as numbers, a step every 20 batches.
    for (n, power, rectified) in [(32, 0.5, true), (32, 1.0, false), (64, 0.5, true)] {
        let mut moving = Moving::new([n, n / 4], power, rectified);
        let mut basis = Basis::<f64>::of(&moving.a, n);
        for refresh in 0..15 {
            (0..20).for_each(|_| moving.advance());
            let found = basis.step_or_cold(&moving.a, Settings::new(moving.lambda(), Qr)).unwrap();
            assert!(matches!(found, Refresh::Step(_)), "n = {n}, refresh {refresh}: {found:?}");
        }
    }
}

#[test]
fn neither_eigenvalue_nor_damping_is_a_cold_decomposition_with_that_cause() {
    let a = [2.0_f64, 0.0, 0.0, 0.0];
    let mut basis = Basis { q: identity(2), d: vec![0.0, 2.0] };
    let found = basis.step_or_cold(&a, Settings::new(0.0, Qr)).unwrap();
    let named = matches!(found, Refresh::Cold { cause: EighError::Damping { value: 0.0 }, .. });
    assert!(named && basis.d == [0.0, 2.0], "{found:?}, {basis:?}");
    for bad in [-1.0, f64::NAN] {
        let refused = basis.step_or_cold(&a, Settings::new(bad, Qr));
        assert!(matches!(refused, Err(EighError::Damping { .. })), "{bad}: {refused:?}");
    }
}

#[test]
fn wrong_shapes_and_short_scratch_are_refused() {
    let (a, mut q, mut d) = ([1.0_f64; 9], [7.0; 9], [7.0; 3]);
    let needed = refresh::step_scratch_len::<f64>(3);
    let mut scratch = vec![0.0; needed];
    let a = MatRef::row_major(&a, 3, 3).unwrap();
    let mut run = |a, d: &mut [f64], scratch: &mut [f64]| {
        let view = MatMut::row_major(&mut q, 3, 3).unwrap();
        refresh::step(Reproducible, a, view, d, 0.1, scratch).unwrap_err()
    };
    let short = EighError::Scratch(ScratchError { needed, found: 5 });
    assert_eq!(run(a, &mut d, &mut scratch[..5]), short);
    assert_eq!(run(a, &mut d[..2], &mut scratch), EighError::Shape(ShapeError::vector("d", 3, 2)));
    assert_eq!(
        run(a.block(0..3, 0..2).unwrap(), &mut d, &mut scratch),
        EighError::Shape(ShapeError::matrix("A", [3, 3], [3, 2]))
    );
    assert_eq!((q, d), ([7.0; 9], [7.0; 3]));
}

/// Columns whose eigenvalues have changed their order: sorted by [`refresh::step`], left where they were by the other.
fn columns_keep_their_places<T: Scalar, K: Kernel<T>>(kernel: K) {
    let n = 12;
    let size = |j: usize, flip: f64| 1.0 + j as f64 + if j == 4 { flip } else { 0.0 };
    // Element (4, 4) passes its neighbour; small elements elsewhere turn every column a little.
    let a: Vec<f64> = (0..n * n)
        .map(|at| if at % n == at / n { size(at % n, 2.25) } else { 1e-3 * ((at % n + at / n) as f64).cos() })
        .collect();
    let (a, lambda) = (rounded::<T>(&a), T::from_f64(0.125));
    let old = Basis { q: identity::<T>(n), d: (0..n).map(|j| T::from_f64(size(j, 0.0))).collect() };
    let (mut sorted, mut kept) = (old.clone(), old);
    let found = sorted.step(kernel, &a, lambda).unwrap();
    let scratch = &mut vec![common::nan(); refresh::step_scratch_len::<T>(n)];
    let (view, q) = (MatRef::row_major(&a, n, n).unwrap(), MatMut::row_major(&mut kept.q, n, n).unwrap());
    let outcome = refresh::step_in_place(kernel, view, q, &mut kept.d, lambda, scratch).unwrap();
    assert_eq!(outcome, found);

    let order = [0, 1, 2, 3, 5, 6, 4, 7, 8, 9, 10, 11];
    for (j, &from) in order.iter().enumerate() {
        assert_eq!(sorted.d[j], kept.d[from], "eigenvalue {j}");
        let columns = (0..n).all(|i| sorted.q[i * n + j] == kept.q[i * n + from]);
        assert!(columns, "column {j} is column {from}");
        assert!(kept.q[from * n + from].to_f64() > 0.9, "column {from} is still the one it was");
    }
}

#[test]
fn a_step_in_place_leaves_every_column_where_it_was() {
    columns_keep_their_places::<f32, _>(Reproducible);
    columns_keep_their_places::<f64, _>(Reproducible);
    columns_keep_their_places::<f32, _>(Fast::detect());
    columns_keep_their_places::<f64, _>(Fast::detect());
}
