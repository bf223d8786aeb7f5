//! 1,797 handwritten digits, embedded: real data without a file.

use std::io::Read;

use flate2::read::GzDecoder;

use super::{Dataset, Targets};

/// See `kfac-train/data/README.md` for attribution and licence (CC BY 4.0).
const COMPRESSED: &[u8] = include_bytes!("../../data/digits.csv.gz");

/// Pixels of an 8 x 8 image.
const PIXELS: usize = 64;
/// The largest pixel value in the file.
const WHITE: f32 = 16.0;

/// The digits, in the order of the file.
///
/// # Shapes
/// 1,797 inputs of 64 = 8 x 8 pixels, row by row; one class of 10 per case.
/// # Scale
/// Pixels 0 to 16 are divided by 16 (exactly), so that they lie in `[0, 1]`.
/// # Source
/// Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, CC
/// BY 4.0.
///
/// # Example
/// ```
/// let digits = kfac_train::data::digits::load();
/// assert_eq!((digits.cases(), digits.input_len, digits.target_len), (1797, 64, 10));
/// ```
pub fn load() -> Dataset {
    // The file is part of this program, not input: a test reads it, nothing else can change it.
    let mut text = String::new();
    GzDecoder::new(COMPRESSED).read_to_string(&mut text).expect("the embedded digits are intact");

    let (mut inputs, mut classes) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let numbers =
            line.split(',').map(|cell| cell.parse::<u8>().expect("the embedded digits are numbers"));
        for (column, number) in numbers.enumerate() {
            if column < PIXELS {
                inputs.push(f32::from(number) / WHITE);
            } else {
                classes.push(u32::from(number));
            }
        }
    }
    Dataset {
        name: "digits".into(),
        input_len: PIXELS,
        inputs,
        targets: Targets::Classes(classes),
        target_len: 10,
    }
}
