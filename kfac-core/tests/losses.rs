//! The losses against what defines them: gradients are derivatives of values, sampled gradients have the Fisher
//! matrix as their mean outer product, and nothing overflows at the ends.

mod common;

use common::dense::Matrix;
use common::random;
use kfac_core::linalg::{Scalar, ShapeError};
use kfac_core::losses::{Loss, LossError, Target};

const OUTPUTS: [f64; 3] = [0.7, -1.1, 0.2];
const VALUES: Target<'static, f64> = Target::Values(&[0.3, 1.0, 0.0]);

/// `vᵀ F w` for unit vectors: the Fisher matrix that the loss claims.
fn fisher(loss: Loss) -> Matrix {
    let unit = |i: usize| [0, 1, 2].map(|j| if i == j { 1.0 } else { 0.0 });
    Matrix::from_fn(3, 3, |i, j| loss.fisher_product(&OUTPUTS, &unit(i), &unit(j)).unwrap())
}

/// Mean of `g gᵀ` over a grid of integers, `per_draw[i]` values for the `i`-th integer of a draw: the midpoint rule
/// on the unit cube.
fn mean_outer_product(loss: Loss, per_draw: &[u64]) -> Matrix {
    let draws: u64 = per_draw.iter().product();
    let mut mean = Matrix::zeros(3, 3);
    for draw in 0..draws {
        let mut rest = draw;
        let integer = |&count: &u64| {
            let index = rest % count;
            rest /= count;
            ((2 * index + 1) * (1 << 31) / count) as u32
        };
        let bits: Vec<u32> = per_draw.iter().map(integer).collect();
        let mut g = [0.0; 3];
        loss.sampled_gradient(&OUTPUTS, &bits, &mut g).unwrap();
        mean.add_outer(1.0 / draws as f64, &g, &g);
    }
    mean
}

#[test]
fn the_mean_outer_product_of_sampled_gradients_is_the_fisher_matrix() {
    // A step of the distribution falls between two grid points: off by 1/count. The square of a normal number is
    // unbounded at one end of the grid, which costs a few times that.
    for (loss, per_draw, tolerance) in [
        (Loss::Softmax, &[4096][..], 3.0 / 4096.0),
        (Loss::Bernoulli, &[64, 64, 64], 1.0 / 64.0),
        (Loss::Square, &[64, 8, 64, 8], 3.0 / 64.0),
    ] {
        let needed = loss.bits_needed(3);
        assert_eq!(needed, per_draw.len(), "{loss:?}");
        let (found, want) = (mean_outer_product(loss, per_draw), fisher(loss));
        let largest = found.data.iter().zip(&want.data).fold(0.0, |top: f64, (f, w)| top.max((f - w).abs()));
        assert!(largest <= tolerance, "{loss:?}: off by {largest:e}\n{found:?}\n{want:?}");
    }
}

#[test]
fn columns_of_the_root_make_the_hessian() {
    for loss in [Loss::Square, Loss::Softmax, Loss::Bernoulli] {
        let mut sum = Matrix::zeros(3, 3);
        for column in 0..3 {
            let mut root = [f64::NAN; 3];
            loss.hessian_column(&OUTPUTS, column, &mut root).unwrap();
            sum.add_outer(1.0, &root, &root);
        }
        common::dense::assert_close(&format!("{loss:?}"), &sum.data, &fisher(loss).data, 1e-15);
        let refused = loss.hessian_column(&OUTPUTS, 3, &mut [0.0; 3]);
        let error = ShapeError::new([3, 1], [3, 1]);
        assert_eq!(refused, Err(LossError::Shape(error)), "{loss:?}");
    }
}

#[test]
fn gradients_are_derivatives_of_values() {
    for (loss, target) in
        [(Loss::Square, VALUES), (Loss::Bernoulli, VALUES), (Loss::Softmax, Target::Class(1))]
    {
        let mut g = [0.0; 3];
        loss.gradient(&OUTPUTS, target, &mut g).unwrap();
        for i in 0..3 {
            let step = 1e-5;
            let at = |sign: f64| {
                let mut f = OUTPUTS;
                f[i] += sign * step;
                loss.value(&f, target).unwrap()
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
            // Truncation step² f'''/6 and rounding eps/step, both near 1e-11.
            assert!((slope - g[i]).abs() < 1e-9, "{loss:?}, output {i}: {slope} is not {}", g[i]);
        }
    }
}

/// The Fisher matrix is the second derivative of the loss, wherever the target enters linearly: in all three.
#[test]
fn fisher_matrices_are_second_derivatives() {
    for (loss, target) in
        [(Loss::Square, VALUES), (Loss::Bernoulli, VALUES), (Loss::Softmax, Target::Class(1))]
    {
        let want = fisher(loss);
        for j in 0..3 {
            let step = 1e-5;
            let at = |sign: f64| {
                let (mut f, mut g) = (OUTPUTS, [0.0; 3]);
                f[j] += sign * step;
                loss.gradient(&f, target, &mut g).unwrap();
                g
            };
            let (after, before) = (at(1.0), at(-1.0));
            for i in 0..3 {
                let slope = (after[i] - before[i]) / (2.0 * step);
                assert!((slope - want.at(i, j)).abs() < 1e-9, "{loss:?} at ({i}, {j}): {slope}");
            }
        }
    }
}

#[test]
fn outputs_far_out_stay_finite() {
    fn check<T: Scalar>() {
        let far = [1e4, -1e4, 0.0].map(T::from_f64);
        let ones = [T::ONE; 3];
        // Certain of the wrong answer, by the second output, or by the first class against the second.
        for (loss, target, want) in [
            (Loss::Bernoulli, Target::Values(&ones), 1e4 + 2_f64.ln()),
            (Loss::Softmax, Target::Class(1), 2e4),
        ] {
            let mut g = [T::ZERO; 3];
            let value = loss.value(&far, target).unwrap();
            assert!((value.to_f64() / want - 1.0).abs() <= 4.0 * T::EPSILON.to_f64(), "{loss:?}: {value}");
            loss.gradient(&far, target, &mut g).unwrap();
            assert!(g.iter().all(|g| g.abs() <= T::ONE), "{loss:?}: {g:?}");
            let product = loss.fisher_product(&far, &ones, &ones).unwrap();
            assert!(product >= T::ZERO && product <= T::ONE, "{loss:?}: {product}");
            for bits in [[0; 3], [u32::MAX; 3]] {
                loss.sampled_gradient(&far, &bits, &mut g).unwrap();
                assert!(g.iter().all(|g| g.abs() <= T::ONE), "{loss:?} from {bits:?}: {g:?}");
            }
        }
        let mut g = [T::ZERO; 3];
        for bits in [[0; 4], [u32::MAX; 4]] {
            Loss::Square.sampled_gradient(&far, &bits, &mut g).unwrap();
            assert!(g.iter().all(|g| g.is_finite()), "{g:?}");
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn targets_and_buffers_that_do_not_fit_are_refused() {
    let mut g = [0.0; 3];
    for loss in [Loss::Square, Loss::Bernoulli] {
        assert_eq!(loss.value(&OUTPUTS, Target::Class(0)), Err(LossError::WrongTarget));
        assert_eq!(loss.gradient(&OUTPUTS, Target::Class(0), &mut g), Err(LossError::WrongTarget));
        let short = LossError::Shape(ShapeError::vector("another slice", 3, 2));
        assert_eq!(loss.value(&OUTPUTS, Target::Values(&[0.0; 2])), Err(short));
        assert_eq!(loss.gradient(&OUTPUTS, Target::Values(&[0.0; 2]), &mut g), Err(short));
        assert_eq!(loss.gradient(&OUTPUTS, VALUES, &mut g[..2]), Err(short));
    }
    let none = LossError::NoSuchClass { class: 3, outputs: 3 };
    assert_eq!(Loss::Softmax.value(&OUTPUTS, Target::Class(3)), Err(none));
    assert_eq!(Loss::Softmax.gradient(&OUTPUTS, Target::Class(3), &mut g), Err(none));
    assert_eq!(Loss::Softmax.value(&OUTPUTS, VALUES), Err(LossError::WrongTarget));
    assert_eq!(none.to_string(), "class 3 is none of the 3 outputs");
    for target in [255.0, -1e-9, 1.0 + 1e-9, f64::INFINITY] {
        let pixels = [0.0, 1.0, target];
        let error = LossError::TargetRange { index: 2, target };
        assert_eq!(Loss::Bernoulli.value(&OUTPUTS, Target::Values(&pixels)), Err(error));
        assert_eq!(Loss::Bernoulli.gradient(&OUTPUTS, Target::Values(&pixels), &mut g), Err(error));
        assert!(Loss::Square.value(&OUTPUTS, Target::Values(&pixels)).is_ok());
    }
    let error = Loss::Bernoulli.value(&OUTPUTS, Target::Values(&[0.0, f64::NAN, 1.0])).unwrap_err();
    let sentence = "target 1 is NaN, a binary cross-entropy takes numbers from 0 to 1";
    assert_eq!(error.to_string(), sentence);
    let few = LossError::Shape(ShapeError::new([4, 1], [3, 1]));
    assert_eq!(Loss::Square.sampled_gradient(&OUTPUTS, &[0; 3], &mut g), Err(few));
    let v: Vec<f64> = random(2, 1);
    assert!(Loss::Square.fisher_product(&OUTPUTS, &v, &OUTPUTS).is_err());
    assert!(Loss::Square.fisher_product(&OUTPUTS, &OUTPUTS, &v).is_err());
}

/// The probabilities of single precision add up to a little less than 1, and the largest draw lies beyond: it goes to
/// the most probable class, not to a last one that has no probability at all.
#[test]
fn a_draw_beyond_all_probabilities_is_the_most_probable_class() {
    let mut beyond = 0;
    for classes in 4..400 {
        let mut outputs = vec![0.0_f32; classes];
        outputs[1] = 0.5;
        *outputs.last_mut().unwrap() = -200.0; // e^-200 is 0
        let mut g = vec![0.0; classes];
        Loss::Softmax.sampled_gradient(&outputs, &[u32::MAX], &mut g).unwrap();
        let drawn = g.iter().position(|&g| g < 0.0).unwrap();
        assert!(drawn < classes - 1, "{classes} classes: {drawn} was drawn, its probability is 0");
        // The largest draw lies far from this class's own share.
        beyond += u32::from(drawn == 1);
    }
    assert!(beyond > 10, "{beyond} draws lay beyond all probabilities");
}
