//! Files of the user: read back as written, and every way they can be wrong has its own name.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use kfac_train::data::idx::{self, Images};
use kfac_train::data::mnist::{self, Which};
use kfac_train::data::text::Text;
use kfac_train::data::{DataError, Targets};

/// A folder of its own for one test, removed at the end, also when the test fails.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("kfac-train-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let file = self.0.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, bytes).unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing depends on it, and a second panic would hide the first.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Magic number and dimensions, then the payload.
fn idx_file(magic: u32, dimensions: &[u32], payload: &[u8]) -> Vec<u8> {
    let words = [magic].into_iter().chain(dimensions.iter().copied());
    words.flat_map(u32::to_be_bytes).chain(payload.iter().copied()).collect()
}

/// `count` images of `rows x columns` whose bytes count up.
fn image_file(count: u32, rows: u32, columns: u32) -> Vec<u8> {
    let payload: Vec<u8> = (0..count * rows * columns).map(|pixel| pixel as u8).collect();
    idx_file(0x803, &[count, rows, columns], &payload)
}

fn label_file(labels: &[u8]) -> Vec<u8> {
    idx_file(0x801, &[labels.len() as u32], labels)
}

/// The error of reading `bytes` as images, from a plain file and from gzip: the same but for the name.
#[track_caller]
fn image_error(folder: &Folder, bytes: &[u8], expected: impl Fn(PathBuf) -> DataError) {
    let plain = folder.write("images", bytes);
    assert_eq!(idx::images(&plain), Err(expected(plain)));
    let compressed = folder.write("images.gz", &gzip(bytes));
    assert_eq!(idx::images(&compressed), Err(expected(compressed)));
}

/// One sentence that names the file.
#[track_caller]
fn says(error: &DataError, file: &Path, rest: &str) {
    assert_eq!(error.to_string(), format!("{}{rest}", file.display()));
}

#[test]
fn images_and_labels_come_back_as_written_plain_and_gzip() {
    let folder = Folder::new("round-trip");
    let images = Images { count: 3, rows: 2, columns: 5, pixels: (0..30).collect() };
    let bytes = image_file(3, 2, 5);
    assert_eq!(idx::images(&folder.write("images", &bytes)), Ok(images.clone()));
    // Gzip is told by the bytes, not by the name.
    let compressed = folder.write("images-without-suffix", &gzip(&bytes));
    assert_eq!(idx::images(&compressed), Ok(images.clone()));
    let labels = folder.write("labels", &gzip(&label_file(&[7, 0, 9])));
    assert_eq!(idx::labels(&labels), Ok(vec![7, 0, 9]));
    assert_eq!(idx::labelled_images(&compressed, &labels), Ok((images, vec![7, 0, 9])));
}

#[test]
fn a_missing_file_is_named() {
    let folder = Folder::new("missing");
    let file = folder.0.join("train-images-idx3-ubyte");
    let error = idx::images(&file).unwrap_err();
    assert_eq!(error, DataError::Missing { file: file.clone() });
    says(&error, &file, " does not exist");
    assert_eq!(Text::read(&file), Err(error));
}

#[test]
fn a_folder_in_place_of_a_file_is_unreadable() {
    let folder = Folder::new("unreadable");
    let error = idx::images(&folder.0).unwrap_err();
    assert!(matches!(&error, DataError::Unreadable { file, .. } if *file == folder.0), "{error:?}");
    let error = DataError::Unreadable { file: "a".into(), reason: ErrorKind::PermissionDenied };
    assert_eq!(error.to_string(), "a cannot be read: permission denied");
}

#[test]
fn the_magic_number_is_checked_before_the_length() {
    let folder = Folder::new("magic");
    let wrong = |found| move |file| DataError::WrongMagic { file, expected: 0x803, found };
    image_error(&folder, &label_file(&[1, 2, 3]), wrong(0x801));
    image_error(&folder, b"<!DOCTYPE html>", wrong(0x3c21_444f));
    image_error(&folder, &[0, 0, 8, 4], wrong(0x804));
    let file = folder.write("labels", &image_file(1, 1, 1));
    let error = idx::labels(&file).unwrap_err();
    says(&error, &file, " starts with the magic number 0x00000803 instead of 0x00000801");
}

#[test]
fn every_truncation_of_a_file_is_noticed() {
    let folder = Folder::new("truncated");
    let whole = image_file(2, 3, 2);
    for found in 0..whole.len() {
        let expected = if found < 16 { 16 } else { 28 };
        image_error(&folder, &whole[..found], |file| DataError::Truncated {
            file,
            expected,
            found: found as u64,
        });
    }
    let file = folder.write("images", &whole[..20]);
    says(&idx::images(&file).unwrap_err(), &file, " is truncated: it holds 20 bytes of 28");
}

#[test]
fn a_file_longer_than_its_header_says_is_refused() {
    let folder = Folder::new("too-long");
    let mut bytes = image_file(2, 3, 2);
    for extra in [1, 10_000] {
        bytes.resize(28 + extra, 0);
        let found = 28 + extra as u64;
        image_error(&folder, &bytes, |file| DataError::TooLong { file, expected: 28, found });
    }
    let file = folder.write("images", &bytes);
    says(
        &idx::images(&file).unwrap_err(),
        &file,
        " is longer than its header says: it holds 10028 bytes instead of 28",
    );
}

#[test]
fn a_header_is_not_believed_before_the_bytes_are_there() {
    let folder = Folder::new("header");
    let overflow = |dimensions: [u32; 3]| {
        move |file| DataError::DimensionOverflow { file, dimensions: dimensions.to_vec() }
    };
    let all = u32::MAX;
    image_error(&folder, &idx_file(0x803, &[all, all, all], &[1, 2]), overflow([all, all, all]));
    // 2^63 fits a u64 but no slice.
    image_error(&folder, &idx_file(0x803, &[1 << 31, 1 << 31, 2], &[]), overflow([1 << 31, 1 << 31, 2]));
    let file = folder.write("images", &idx_file(0x803, &[all, all, 2], &[]));
    let sentence = " claims dimensions [4294967295, 4294967295, 2], more bytes than this machine can address";
    says(&idx::images(&file).unwrap_err(), &file, sentence);
}

/// 2^60 bytes can be addressed but are not there: must fail without being allocated.
#[test]
#[cfg(target_pointer_width = "64")]
fn an_enormous_but_possible_header_is_a_truncated_file() {
    let folder = Folder::new("enormous");
    let bytes = idx_file(0x803, &[1 << 30, 1 << 15, 1 << 15], &[0; 100]);
    let expected = (1 << 60) + 16;
    image_error(&folder, &bytes, |file| DataError::Truncated { file, expected, found: 116 });
}

#[test]
fn a_dimension_of_zero_is_refused() {
    let folder = Folder::new("zero");
    for dimensions in [[0, 28, 28], [2, 0, 28], [u32::MAX, u32::MAX, 0]] {
        image_error(&folder, &idx_file(0x803, &dimensions, &[]), |file| DataError::ZeroDimension {
            file,
            dimensions: dimensions.to_vec(),
        });
    }
    let file = folder.write("labels", &label_file(&[]));
    says(&idx::labels(&file).unwrap_err(), &file, " is empty: its dimensions are [0]");
}

#[test]
fn images_and_labels_must_be_as_many() {
    let folder = Folder::new("count");
    let images = folder.write("images", &image_file(3, 2, 2));
    let labels = folder.write("labels", &label_file(&[1, 2]));
    let error = idx::labelled_images(&images, &labels).unwrap_err();
    let (image_count, label_count) = (3, 2);
    let (i, l) = (images.clone(), labels.clone());
    assert_eq!(error, DataError::CountMismatch { images: i, image_count, labels: l, label_count });
    says(&error, &images, &format!(" holds 3 images, but {} holds 2 labels", labels.display()));
}

#[test]
fn a_gzip_stream_cut_anywhere_is_truncated() {
    let folder = Folder::new("gzip-truncated");
    let whole = gzip(&image_file(5, 4, 3));
    // From the third byte on: below, the file does not begin like gzip.
    for cut in 2..whole.len() {
        let file = folder.write("images.gz", &whole[..cut]);
        let error = idx::images(&file).unwrap_err();
        assert!(matches!(error, DataError::GzipTruncated { decoded: 0..=76, .. }), "cut at {cut}: {error:?}");
    }
    let file = folder.write("images.gz", &whole[..whole.len() - 1]);
    says(
        &idx::images(&file).unwrap_err(),
        &file,
        " is truncated: its gzip stream stops after 76 decoded bytes",
    );
}

#[test]
fn a_damaged_gzip_stream_is_corrupt() {
    let folder = Folder::new("gzip-corrupt");
    let whole = gzip(&image_file(5, 4, 3));
    let damaged = |place: usize| {
        let mut bytes = whole.clone();
        bytes[place] ^= 0xff;
        folder.write("images.gz", &bytes)
    };
    // Compression method, checksum, stored length.
    for (place, decoded) in [(2, 0), (whole.len() - 8, 76), (whole.len() - 1, 76)] {
        let file = damaged(place);
        let error = idx::images(&file).unwrap_err();
        assert_eq!(error, DataError::GzipCorrupt { file, decoded }, "byte {place}");
    }
    let file = damaged(whole.len() - 8);
    let sentence = " is damaged: its gzip stream fails after 76 decoded bytes";
    says(&idx::images(&file).unwrap_err(), &file, sentence);
    // No damaged byte after the header of gzip goes unnoticed.
    for place in 10..whole.len() {
        assert!(idx::images(&damaged(place)).is_err(), "byte {place}");
    }
}

#[test]
fn bytes_after_the_gzip_stream_are_refused() {
    let folder = Folder::new("gzip-trailing");
    let bytes = image_file(5, 4, 3);
    for rest in [b"!".to_vec(), vec![0; 9000], gzip(b"a second member")] {
        let count = rest.len() as u64;
        let file = folder.write("images.gz", &[gzip(&bytes), rest].concat());
        let error = idx::images(&file).unwrap_err();
        assert_eq!(error, DataError::GzipTrailing { file: file.clone(), bytes: count });
        says(&error, &file, &format!(" has {count} bytes after the end of its gzip stream"));
    }
}

/// The four files of a small MNIST: 3 training and 2 test cases; training images plain, the others gzip.
fn small_mnist(folder: &Folder, which: Which) {
    let file = |name: &str| format!("{}/{name}", which.name());
    folder.write(&file("train-images-idx3-ubyte"), &image_file(3, 28, 28));
    folder.write(&file("train-labels-idx1-ubyte.gz"), &gzip(&label_file(&[5, 0, 4])));
    folder.write(&file("t10k-images-idx3-ubyte.gz"), &gzip(&image_file(2, 28, 28)));
    folder.write(&file("t10k-labels-idx1-ubyte.gz"), &gzip(&label_file(&[7, 9])));
}

#[test]
fn mnist_is_read_from_plain_and_compressed_files() {
    for which in [Which::Mnist, Which::Fashion] {
        let folder = Folder::new(which.name());
        small_mnist(&folder, which);
        let (train, test) = mnist::load(&folder.0, which).unwrap();
        assert_eq!((train.cases(), train.input_len, train.target_len), (3, 784, 10));
        assert_eq!(train.name, format!("{} training", which.name()));
        assert_eq!(train.targets, Targets::Classes(vec![5, 0, 4]));
        assert_eq!((test.cases(), test.targets), (2, Targets::Classes(vec![7, 9])));
        assert_eq!(train.inputs[..3], [0.0, 1.0 / 255.0, 2.0 / 255.0]);
        assert_eq!((train.inputs[255], train.inputs[256]), (1.0, 0.0));
        assert_eq!(train.pooled(2).unwrap().input_len, 14 * 14);
    }
}

#[test]
fn mnist_names_the_file_that_is_missing() {
    let folder = Folder::new("mnist-missing");
    small_mnist(&folder, Which::Mnist);
    let labels = folder.0.join("mnist").join("t10k-labels-idx1-ubyte");
    fs::remove_file(labels.with_extension("gz")).unwrap();
    assert_eq!(mnist::load(&folder.0, Which::Mnist), Err(DataError::Missing { file: labels }));
    let file = folder.0.join("fashion-mnist").join("train-images-idx3-ubyte");
    assert_eq!(mnist::load(&folder.0, Which::Fashion), Err(DataError::Missing { file }));
}

#[test]
fn mnist_refuses_images_of_another_size_and_labels_without_a_class() {
    let folder = Folder::new("mnist-wrong");
    small_mnist(&folder, Which::Mnist);
    let file = folder.write("mnist/t10k-labels-idx1-ubyte", &label_file(&[3, 10]));
    let error = mnist::load(&folder.0, Which::Mnist).unwrap_err();
    assert_eq!(error, DataError::LabelOutOfRange { file: file.clone(), case: 1, label: 10, classes: 10 });
    says(&error, &file, " has label 10 at case 1, but only 10 classes");
    let file = folder.write("mnist/train-images-idx3-ubyte", &image_file(3, 14, 56));
    let error = mnist::load(&folder.0, Which::Mnist).unwrap_err();
    let (expected, found) = ([28, 28], [14, 56]);
    assert_eq!(error, DataError::WrongImageSize { file: file.clone(), expected, found });
    says(&error, &file, " holds images of 14x56 pixels instead of 28x28");
}

#[test]
fn text_is_read_plain_and_gzip() {
    let folder = Folder::new("text");
    let plain = Text::read(&folder.write("input.txt", "to be".as_bytes())).unwrap();
    assert_eq!((plain.vocabulary(), plain.ids()), (&[' ', 'b', 'e', 'o', 't'][..], &[4, 3, 0, 1, 2][..]));
    assert!(plain.name().ends_with("input.txt"));
    let compressed = Text::read(&folder.write("input.txt.gz", &gzip("to be".as_bytes()))).unwrap();
    assert_eq!(compressed.ids(), plain.ids());
}

#[test]
fn text_that_is_empty_or_not_utf8_is_refused() {
    let folder = Folder::new("text-wrong");
    for bytes in [Vec::new(), gzip(b"")] {
        let file = folder.write("input.txt", &bytes);
        let error = Text::read(&file).unwrap_err();
        assert_eq!(error, DataError::EmptyText { file: file.clone() });
        says(&error, &file, " contains no text");
    }
    for bytes in [b"caf\xe9 au lait".to_vec(), gzip(b"caf\xe9 au lait")] {
        let file = folder.write("input.txt", &bytes);
        let error = Text::read(&file).unwrap_err();
        assert_eq!(error, DataError::NotUtf8 { file: file.clone(), offset: 3 });
        says(&error, &file, " is not UTF-8 text: byte 3 is invalid");
    }
    let file = folder.write("input.txt", &gzip(b"some text")[..20]);
    assert!(matches!(Text::read(&file), Err(DataError::GzipTruncated { .. })));
}
