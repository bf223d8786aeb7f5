//! Generated tasks: what defines each case, and its statistics.

use kfac_train::data::adding::Adding;
use kfac_train::data::{Batch, DataError, Dataset, Source, Targets, curves};

fn values(targets: &Targets<f32>) -> &[f32] {
    match targets {
        Targets::Values(values) => values,
        Targets::Classes(_) => panic!("values expected"),
    }
}

/// (u, mark) of each step of one case, and its target.
fn cases(adding: &Dataset) -> impl Iterator<Item = (Vec<[f32; 2]>, f32)> {
    let steps = |case: &[f32]| case.as_chunks().0.to_vec();
    adding.inputs.chunks(adding.input_len).map(steps).zip(values(&adding.targets).iter().copied())
}

#[test]
fn adding_marks_one_step_of_each_half_and_adds_what_is_marked() {
    for steps in [2, 3, 7, 30] {
        for (case, target) in cases(&Adding::fixed(steps, 200, 5).unwrap()) {
            assert_eq!(case.len(), steps);
            assert!(case.iter().all(|&[u, mark]| (0.0..1.0).contains(&u) && (mark == 0.0 || mark == 1.0)));
            let marks = |half: &[[f32; 2]]| half.iter().map(|step| step[1]).sum::<f32>();
            let (first, second) = case.split_at(steps / 2);
            assert_eq!((marks(first), marks(second)), (1.0, 1.0), "{steps} steps: {case:?}");
            let sum: f64 = case.iter().map(|&[u, mark]| f64::from(u) * f64::from(mark)).sum();
            assert_eq!(f64::from(target), sum - 1.0, "{steps} steps: {case:?}");
        }
    }
}

#[test]
fn adding_marks_every_step_about_equally_often() {
    // 15 steps in each half, 3,000 cases: 200 marks expected per step, standard deviation 13.7; four of them.
    let mut marks = [0.0_f32; 30];
    for (case, _) in cases(&Adding::fixed(30, 3000, 1).unwrap()) {
        case.iter().zip(&mut marks).for_each(|(step, marks)| *marks += step[1]);
    }
    assert!(marks.iter().all(|&count| (count - 200.0).abs() <= 55.0), "{marks:?}");
}

#[test]
fn adding_targets_have_mean_0_and_the_variance_of_two_uniform_numbers() {
    let adding = Adding::fixed(30, 20_000, 2).unwrap();
    let targets = values(&adding.targets);
    let mean_of = |f: fn(f64) -> f64| targets.iter().map(|&t| f(f64::from(t))).sum::<f64>() / 20_000.0;
    let (mean, square) = (mean_of(|t| t), mean_of(|t| t * t));
    // Variance 1/6. The square has variance 1/15 - 1/36 = 7/180.
    let standard_error = |variance: f64| (variance / 20_000.0).sqrt();
    assert!(mean.abs() <= 3.0 * standard_error(1.0 / 6.0), "mean {mean:e}");
    assert!((square - 1.0 / 6.0).abs() <= 3.0 * standard_error(7.0 / 180.0), "mean square {square:e}");
}

#[test]
fn adding_is_the_same_task_in_both_precisions() {
    let (mut single, mut double) = (Batch::<f32>::default(), Batch::<f64>::default());
    Adding::new(30, 4).unwrap().next_batch(50, &mut single);
    Adding::new(30, 4).unwrap().next_batch(50, &mut double);
    let widened: Vec<f64> = single.inputs.iter().map(|&x| f64::from(x)).collect();
    assert_eq!(widened, double.inputs);
    let widened = values(&single.targets).iter().map(|&x| f64::from(x)).collect();
    assert_eq!(Targets::Values(widened), double.targets);
}

#[test]
fn adding_deals_out_fresh_cases_that_are_not_those_of_the_fixed_set() {
    let mut training = Adding::new(30, 0).unwrap();
    let (mut first, mut second) = (Batch::<f32>::default(), Batch::<f32>::default());
    training.next_batch(128, &mut first);
    training.next_batch(128, &mut second);
    assert_ne!(first, second);
    assert_ne!(first.inputs, Adding::fixed(30, 128, 0).unwrap().inputs);
    assert_ne!(Adding::fixed(30, 128, 0).unwrap(), Adding::fixed(30, 128, 1).unwrap());
    assert_eq!(Adding::fixed(30, 128, 0).unwrap(), Adding::fixed(30, 200, 0).unwrap().first(128));
}

#[test]
fn adding_refuses_fewer_than_two_steps() {
    for steps in [0, 1] {
        let error = Adding::new(steps, 0).map(|_| ()).unwrap_err();
        assert_eq!(error, DataError::TooFewSteps { name: "the adding problem".into(), steps, least: 2 });
        assert_eq!(
            error.to_string(),
            format!("the adding problem needs at least 2 steps, but {steps} were asked for")
        );
    }
}

/// Sum of all ink, and ink times row, times column: any change of a curve moves them.
fn moments(image: &[f32], side: usize) -> [f64; 3] {
    image.iter().enumerate().fold([0.0; 3], |[ink, down, right], (pixel, &x)| {
        let x = f64::from(x);
        [ink + x, down + x * (pixel / side) as f64, right + x * (pixel % side) as f64]
    })
}

#[test]
fn curves_are_pinned() {
    let curves = curves::generate(3, 14, 0);
    let lines: Vec<String> = curves
        .inputs
        .chunks(196)
        .map(|image| moments(image, 14).map(|moment| format!("{moment:.9e}")).join(" "))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    7.845906585e0 7.974181995e1 7.400892827e1
    2.122373823e1 1.545904731e2 1.024386804e2
    1.545462012e1 1.446794738e2 6.637287249e1
    ");
}

#[test]
fn curves_have_the_variance_that_their_page_states() {
    // What predicting the mean image costs per case; 10.7 at 14 x 14 is printed in the module.
    let curves = curves::generate(10_000, 14, 0);
    let pixel_sums = |f: fn(f64) -> f64| -> Vec<f64> {
        let column = |pixel| curves.inputs.iter().skip(pixel).step_by(196).map(|&x| f(f64::from(x))).sum();
        (0..196).map(column).collect()
    };
    let (sums, squares) = (pixel_sums(|x| x), pixel_sums(|x| x * x));
    let variance: f64 =
        sums.iter().zip(squares).map(|(sum, square)| square / 1e4 - (sum / 1e4).powi(2)).sum();
    assert!((variance - 10.7).abs() < 0.05, "{variance:e}");
}

#[test]
fn curves_are_to_be_reproduced_and_lie_in_0_to_1_and_are_not_cut_off() {
    for side in [8, 14, 28] {
        let curves = curves::generate(200, side, 3);
        assert_eq!((curves.cases(), curves.input_len, curves.target_len), (200, side * side, side * side));
        assert_eq!(values(&curves.targets), curves.inputs);
        assert!(curves.inputs.iter().all(|x| (0.0..=1.0).contains(x)));
        for image in curves.inputs.chunks(side * side) {
            assert!(image.iter().any(|&x| x > 0.0), "an image without a curve");
            // Curves keep `half_width + 1/2` pixels from the border, so `half_width` from the centres next to
            // it.
            let on_border = |pixel: usize| {
                [pixel / side, pixel % side].iter().any(|&place| place == 0 || place == side - 1)
            };
            let border = (0..side * side).filter(|&pixel| on_border(pixel)).map(|pixel| image[pixel]);
            assert!(border.fold(0.0, f32::max) <= 0.5 + 4.0 * f32::EPSILON, "a curve that is cut off");
        }
    }
}

#[test]
fn curves_cover_the_image_evenly_and_show_the_same_shape_at_every_resolution() {
    let (small, large) = (curves::generate(2000, 14, 0), curves::generate(2000, 28, 0));
    let centres = |curves: &Dataset, side: usize| -> Vec<[f64; 2]> {
        let centre = |image: &[f32]| {
            let [ink, down, right] = moments(image, side);
            [down, right].map(|moment| (moment / ink + 0.5) / side as f64)
        };
        curves.inputs.chunks(side * side).map(centre).collect()
    };
    let (small, large) = (centres(&small, 14), centres(&large, 28));
    for axis in 0..2 {
        let mean = small.iter().map(|centre| centre[axis]).sum::<f64>() / 2000.0;
        let spread = (small.iter().map(|c| (c[axis] - mean).powi(2)).sum::<f64>() / 2000.0).sqrt();
        // By symmetry the mean is the middle of the image.
        assert!(
            (mean - 0.5).abs() <= 3.0 * spread / 2000.0_f64.sqrt(),
            "axis {axis}: {mean:e}, spread {spread:e}"
        );
    }
    // Margins of 2.4/28 and 1.9/28 of the side: positions shift by at most 1/56, and pixels blur the centre
    // by less than a tenth of a small one.
    let shift = small.iter().zip(&large).flat_map(|(s, l)| [s[0] - l[0], s[1] - l[1]]).map(f64::abs);
    let largest = shift.fold(0.0, f64::max);
    assert!(largest <= 1.0 / 56.0 + 0.1 / 14.0, "{largest:e}");
}

#[test]
fn curves_do_not_depend_on_how_many_follow_but_on_the_seed() {
    assert_eq!(curves::generate(5, 14, 9), curves::generate(8, 14, 9).first(5));
    assert_ne!(curves::generate(5, 14, 9), curves::generate(5, 14, 10));
    assert_eq!(curves::generate(0, 14, 0).cases(), 0);
    assert_eq!(curves::generate(4, 0, 0).cases(), 0);
    assert!(curves::generate(4, 1, 0).inputs.iter().all(|x| (0.0..=1.0).contains(x)));
}
