//! The embedded digits are the published ones.

use kfac_train::data::{Targets, digits};

fn classes() -> Vec<u32> {
    match digits::load().targets {
        Targets::Classes(classes) => classes,
        Targets::Values(_) => panic!("digits have classes"),
    }
}

/// Polynomial hash, computed for the file by an `awk` line: `h = (31 h + x) mod 1000000007` over all numbers
/// in order.
fn checksum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, |hash, number| (hash * 31 + number) % 1_000_000_007)
}

#[test]
fn there_are_1797_cases_with_the_published_class_counts() {
    let digits = digits::load();
    assert_eq!((digits.cases(), digits.input_len, digits.target_len), (1797, 64, 10));
    let mut counts = [0; 10];
    for class in classes() {
        counts[class as usize] += 1;
    }
    // optdigits.names, table of class distribution, column of the test part.
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
}

#[test]
fn pixels_are_sixteenths_between_0_and_1() {
    let inputs = digits::load().inputs;
    assert!(inputs.iter().all(|x| (0.0..=1.0).contains(x) && (x * 16.0).fract() == 0.0));
    assert!(inputs.contains(&0.0) && inputs.contains(&1.0));
}

#[test]
fn every_pixel_and_label_is_that_of_the_file() {
    let digits = digits::load();
    let pixels = || digits.inputs.iter().map(|&x| (x * 16.0) as u64);
    assert_eq!(pixels().sum::<u64>(), 561_718);
    assert_eq!(checksum(pixels()), 808_564_004);
    assert_eq!(checksum(classes().into_iter().map(u64::from)), 767_788_317);
}
