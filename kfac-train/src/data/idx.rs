//! IDX files, plain or gzip: a magic number, dimensions, bytes.
//!
//! The magic number is `0x0000_08dd`: 8 for unsigned bytes, `dd` for the number of dimensions; it and the
//! dimensions are big-endian `u32`. Gzip is told by its first bytes, not by the name of the file.
//!
//! # Errors
//! All functions here: [`DataError::Missing`], [`DataError::Unreadable`], [`DataError::WrongMagic`],
//! [`DataError::Truncated`], [`DataError::TooLong`], [`DataError::DimensionOverflow`],
//! [`DataError::ZeroDimension`], and for gzip [`DataError::GzipCorrupt`], [`DataError::GzipTruncated`],
//! [`DataError::GzipTrailing`].
//!
//! # Source
//! LeCun, Cortes and Burges, "The MNIST database of handwritten digits", section "File formats".

use std::path::Path;

use super::DataError;
use super::file::DataFile;

/// Grey images of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Number of images.
    pub count: usize,
    /// Rows of an image.
    pub rows: usize,
    /// Columns of an image.
    pub columns: usize,
    /// `count x rows x columns`, 0 to 255.
    pub pixels: Vec<u8>,
}

/// Reads an image file (three dimensions: images, rows, columns).
pub fn images(file: &Path) -> Result<Images, DataError> {
    let ([count, rows, columns], pixels) = read(file)?;
    Ok(Images { count, rows, columns, pixels })
}

/// Reads a label file (one dimension).
pub fn labels(file: &Path) -> Result<Vec<u8>, DataError> {
    let ([_count], labels) = read(file)?;
    Ok(labels)
}

/// Reads images and their labels.
///
/// # Errors
/// Those of the module, and [`DataError::CountMismatch`].
pub fn labelled_images(image_file: &Path, label_file: &Path) -> Result<(Images, Vec<u8>), DataError> {
    let (images, labels) = (images(image_file)?, labels(label_file)?);
    if images.count != labels.len() {
        return Err(DataError::CountMismatch {
            images: image_file.to_owned(),
            image_count: images.count,
            labels: label_file.to_owned(),
            label_count: labels.len(),
        });
    }
    Ok((images, labels))
}

/// Dimensions and bytes of a file of `D` dimensions.
fn read<const D: usize>(path: &Path) -> Result<([usize; D], Vec<u8>), DataError> {
    let file = || path.to_owned();
    let header_len = 4 * (1 + D as u64);
    let mut content = DataFile::open(path)?;

    let header = content.take(header_len)?;
    let mut words = header.as_chunks().0.iter().map(|&bytes| u32::from_be_bytes(bytes));
    let expected = 0x0800 + D as u32;
    // The kind of file is judged before its length: a short file of another kind is of another kind.
    match words.next() {
        Some(found) if found != expected => {
            return Err(DataError::WrongMagic { file: file(), expected, found });
        }
        _ if (header.len() as u64) < header_len => {
            return Err(DataError::Truncated {
                file: file(),
                expected: header_len,
                found: header.len() as u64,
            });
        }
        _ => {}
    }

    let dimensions: Vec<u32> = words.collect();
    if dimensions.contains(&0) {
        return Err(DataError::ZeroDimension { file: file(), dimensions });
    }
    let product = dimensions.iter().try_fold(1_u64, |product, &d| product.checked_mul(u64::from(d)));
    // A Vec holds at most isize::MAX bytes, and `expected` below must not overflow.
    let Some(payload) = product.filter(|&bytes| isize::try_from(bytes).is_ok()) else {
        return Err(DataError::DimensionOverflow { file: file(), dimensions });
    };
    let bytes = content.take(payload)?;

    let (expected, found) = (header_len + payload, content.finish()?);
    if found < expected {
        return Err(DataError::Truncated { file: file(), expected, found });
    }
    if found > expected {
        return Err(DataError::TooLong { file: file(), expected, found });
    }
    // Each is at most the product, which fits.
    Ok((std::array::from_fn(|i| dimensions[i] as usize), bytes))
}
