//! MNIST and Fashion-MNIST, from the files that their authors publish.

use std::path::{Path, PathBuf};

use super::{DataError, Dataset, Targets, idx};

/// Both sets have ten classes.
const CLASSES: usize = 10;
/// Rows and columns of an image.
const SIZE: [usize; 2] = [28, 28];

/// Which of the two sets of the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Handwritten digits.
    Mnist,
    /// Articles of clothing.
    Fashion,
}

impl Which {
    /// Name of its folder, and of the data set in reports.
    pub fn name(self) -> &'static str {
        match self {
            Which::Mnist => "mnist",
            Which::Fashion => "fashion-mnist",
        }
    }
}

/// Reads training and test set, in the order of the files, from `folder/mnist` or `folder/fashion-mnist`:
/// four IDX files (`train-images-idx3-ubyte` and so on), plain or with `.gz` at the end of the name; a plain
/// one wins.
///
/// # Shapes
/// Inputs of 784 = 28 x 28 pixels, row by row; one class of 10 per case.
/// # Scale
/// Pixels are divided by 255, so that they lie in `[0, 1]`.
/// # Errors
/// Those of [`idx`], [`DataError::WrongImageSize`], [`DataError::LabelOutOfRange`].
/// # Source
/// LeCun, Bottou, Bengio and Haffner 1998; Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747.
pub fn load(folder: &Path, which: Which) -> Result<(Dataset, Dataset), DataError> {
    let folder = folder.join(which.name());
    let part = |part, name| {
        let images = plain_or_gzip(&folder, &format!("{part}-images-idx3-ubyte"));
        let labels = plain_or_gzip(&folder, &format!("{part}-labels-idx1-ubyte"));
        dataset(&images, &labels, format!("{} {name}", which.name()))
    };
    Ok((part("train", "training")?, part("t10k", "test")?))
}

/// The plain path, unless only the compressed file is there.
fn plain_or_gzip(folder: &Path, name: &str) -> PathBuf {
    let (plain, gzip) = (folder.join(name), folder.join(format!("{name}.gz")));
    if !plain.exists() && gzip.exists() { gzip } else { plain }
}

fn dataset(image_file: &Path, label_file: &Path, name: String) -> Result<Dataset, DataError> {
    let (images, labels) = idx::labelled_images(image_file, label_file)?;
    let found = [images.rows, images.columns];
    if found != SIZE {
        return Err(DataError::WrongImageSize { file: image_file.to_owned(), expected: SIZE, found });
    }
    if let Some(case) = labels.iter().position(|&label| usize::from(label) >= CLASSES) {
        return Err(DataError::LabelOutOfRange {
            file: label_file.to_owned(),
            case,
            label: u32::from(labels[case]),
            classes: CLASSES,
        });
    }
    Ok(Dataset {
        name,
        input_len: SIZE[0] * SIZE[1],
        inputs: images.pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect(),
        targets: Targets::Classes(labels.iter().map(|&label| u32::from(label)).collect()),
        target_len: CLASSES,
    })
}
