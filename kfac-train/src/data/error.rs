//! What can be wrong with data: one sentence per variant, with the file and the number.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Data that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataError {
    /// There is no such file.
    Missing {
        /// The path that was tried.
        file: PathBuf,
    },
    /// The operating system refused to open or read the file.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The operating system's reason.
        reason: io::ErrorKind,
    },
    /// The file begins like gzip, but its header, its stream or its checksum is damaged.
    GzipCorrupt {
        /// The file.
        file: PathBuf,
        /// Bytes decoded before the damage was noticed.
        decoded: u64,
    },
    /// The gzip stream ends before its end mark and checksum.
    GzipTruncated {
        /// The file.
        file: PathBuf,
        /// Bytes decoded up to there.
        decoded: u64,
    },
    /// Something follows the end of the gzip stream.
    GzipTrailing {
        /// The file.
        file: PathBuf,
        /// Number of bytes, as stored, after the end of the stream.
        bytes: u64,
    },
    /// The first four bytes are not those of the expected kind of IDX file.
    WrongMagic {
        /// The file.
        file: PathBuf,
        /// Magic number of this kind of file.
        expected: u32,
        /// The number found.
        found: u32,
    },
    /// The content is shorter than its header says, or than a header.
    Truncated {
        /// The file.
        file: PathBuf,
        /// Bytes (decoded) there should be.
        expected: u64,
        /// Bytes (decoded) there are.
        found: u64,
    },
    /// The content is longer than its header says.
    TooLong {
        /// The file.
        file: PathBuf,
        /// Bytes (decoded) there should be.
        expected: u64,
        /// Bytes (decoded) there are.
        found: u64,
    },
    /// The product of the dimensions in the header exceeds the address space.
    DimensionOverflow {
        /// The file.
        file: PathBuf,
        /// The dimensions of the header.
        dimensions: Vec<u32>,
    },
    /// A dimension in the header is zero: there is nothing to train on.
    ZeroDimension {
        /// The file.
        file: PathBuf,
        /// The dimensions of the header.
        dimensions: Vec<u32>,
    },
    /// An image file and its label file disagree on the number of cases.
    CountMismatch {
        /// The image file.
        images: PathBuf,
        /// Cases in it.
        image_count: usize,
        /// The label file.
        labels: PathBuf,
        /// Cases in it.
        label_count: usize,
    },
    /// The images are not of the size that this data set has.
    WrongImageSize {
        /// The image file.
        file: PathBuf,
        /// Rows and columns expected.
        expected: [usize; 2],
        /// Rows and columns found.
        found: [usize; 2],
    },
    /// A label is not the number of a class.
    LabelOutOfRange {
        /// The label file.
        file: PathBuf,
        /// Position of the label, from 0.
        case: usize,
        /// The label.
        label: u32,
        /// Number of classes; labels run from 0 to one less.
        classes: usize,
    },
    /// A text file without a single symbol.
    EmptyText {
        /// The file.
        file: PathBuf,
    },
    /// A text file that is not UTF-8.
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// Position of the first byte (decoded) that is not UTF-8, from 0.
        offset: usize,
    },
    /// A text too short for one window.
    TextTooShort {
        /// Name of the text.
        name: String,
        /// Symbols it has.
        symbols: usize,
        /// Symbols a window needs.
        needed: usize,
    },
    /// A sequence length for which the task does not exist.
    TooFewSteps {
        /// Name of the task.
        name: String,
        /// Steps asked for.
        steps: usize,
        /// Least number of steps.
        least: usize,
    },
    /// Images that are not square, or whose side is not a multiple of the pooling factor.
    NotPoolable {
        /// Name of the data set.
        name: String,
        /// Pixels of one image.
        input_len: usize,
        /// Pooling factor asked for.
        factor: usize,
    },
    /// A data set of no cases cannot be drawn from.
    NoCases {
        /// Name of the data set.
        name: String,
    },
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { file } => write!(f, "{} does not exist", file.display()),
            Self::Unreadable { file, reason } => write!(f, "{} cannot be read: {reason}", file.display()),
            Self::GzipCorrupt { file, decoded } => {
                write!(
                    f,
                    "{} is damaged: its gzip stream fails after {decoded} decoded bytes",
                    file.display()
                )
            }
            Self::GzipTruncated { file, decoded } => {
                write!(
                    f,
                    "{} is truncated: its gzip stream stops after {decoded} decoded bytes",
                    file.display()
                )
            }
            Self::GzipTrailing { file, bytes } => {
                write!(f, "{} has {bytes} bytes after the end of its gzip stream", file.display())
            }
            Self::WrongMagic { file, expected, found } => write!(
                f,
                "{} starts with the magic number {found:#010x} instead of {expected:#010x}",
                file.display()
            ),
            Self::Truncated { file, expected, found } => {
                write!(f, "{} is truncated: it holds {found} bytes of {expected}", file.display())
            }
            Self::TooLong { file, expected, found } => write!(
                f,
                "{} is longer than its header says: it holds {found} bytes instead of {expected}",
                file.display()
            ),
            Self::DimensionOverflow { file, dimensions } => write!(
                f,
                "{} claims dimensions {dimensions:?}, more bytes than this machine can address",
                file.display()
            ),
            Self::ZeroDimension { file, dimensions } => {
                write!(f, "{} is empty: its dimensions are {dimensions:?}", file.display())
            }
            Self::CountMismatch { images, image_count, labels, label_count } => write!(
                f,
                "{} holds {image_count} images, but {} holds {label_count} labels",
                images.display(),
                labels.display()
            ),
            Self::WrongImageSize { file, expected, found } => write!(
                f,
                "{} holds images of {}x{} pixels instead of {}x{}",
                file.display(),
                found[0],
                found[1],
                expected[0],
                expected[1]
            ),
            Self::LabelOutOfRange { file, case, label, classes } => {
                write!(f, "{} has label {label} at case {case}, but only {classes} classes", file.display())
            }
            Self::EmptyText { file } => write!(f, "{} contains no text", file.display()),
            Self::NotUtf8 { file, offset } => {
                write!(f, "{} is not UTF-8 text: byte {offset} is invalid", file.display())
            }
            Self::TextTooShort { name, symbols, needed } => {
                write!(f, "the text {name} has {symbols} symbols, but a window needs {needed}")
            }
            Self::TooFewSteps { name, steps, least } => {
                write!(f, "{name} needs at least {least} steps, but {steps} were asked for")
            }
            Self::NotPoolable { name, input_len, factor } => {
                write!(f, "images of {input_len} pixels ({name}) cannot be pooled by {factor}x{factor}")
            }
            Self::NoCases { name } => write!(f, "the data set {name} has no cases to draw from"),
        }
    }
}

impl core::error::Error for DataError {}
