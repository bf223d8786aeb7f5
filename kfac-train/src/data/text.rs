//! A text as symbols, and windows of it for next-symbol prediction.

use std::path::Path;

use kfac_linalg::Scalar;
use rand_chacha::ChaCha8Rng;

use super::file::DataFile;
use super::{Batch, DataError, Dataset, Source};
use crate::random::{Stream, below, generator};

/// A text as numbers of its symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    name: String,
    vocabulary: Vec<char>,
    ids: Vec<u32>,
}

impl Text {
    /// Reads a text file, plain or gzip.
    ///
    /// # Errors
    /// [`DataError::Missing`], [`DataError::Unreadable`], [`DataError::EmptyText`], [`DataError::NotUtf8`],
    /// and for gzip [`DataError::GzipCorrupt`], [`DataError::GzipTruncated`], [`DataError::GzipTrailing`].
    pub fn read(file: &Path) -> Result<Text, DataError> {
        let mut content = DataFile::open(file)?;
        let bytes = content.take(u64::MAX)?;
        content.finish()?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| DataError::NotUtf8 { file: file.to_owned(), offset: error.valid_up_to() })?;
        if text.is_empty() {
            return Err(DataError::EmptyText { file: file.to_owned() });
        }
        Ok(Text::new(&file.display().to_string(), text))
    }

    /// The symbols of `text`; the vocabulary is its characters (Unicode scalar values) in ascending order.
    pub fn new(name: &str, text: &str) -> Text {
        let mut vocabulary: Vec<char> = text.chars().collect();
        vocabulary.sort_unstable();
        vocabulary.dedup();
        // There are fewer characters than 2^21, and each is in the vocabulary.
        let id = |symbol: char| vocabulary.partition_point(|&other| other < symbol) as u32;
        let ids = text.chars().map(id).collect();
        Text { name: name.into(), vocabulary, ids }
    }

    /// Name: the path that was given, for a text that was read.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All symbols, ascending; the number of a symbol is its place here.
    pub fn vocabulary(&self) -> &[char] {
        &self.vocabulary
    }

    /// The text as places in [`vocabulary`](Text::vocabulary).
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The first `symbols` symbols and the rest, both with the vocabulary of the whole, for training and
    /// validation.
    pub fn split_at(&self, symbols: usize) -> (Text, Text) {
        let part = |ids: &[u32]| Text { ids: ids.to_vec(), ..self.without_ids() };
        let (first, rest) = self.ids.split_at(symbols.min(self.ids.len()));
        (part(first), part(rest))
    }

    fn without_ids(&self) -> Text {
        Text { name: self.name.clone(), vocabulary: self.vocabulary.clone(), ids: Vec::new() }
    }
}

/// Windows of T + 1 symbols that begin anywhere in a text, each equally likely: stream 3 of the seed.
///
/// The first T symbols are the input, the last T the targets: at each step the symbol that comes next.
///
/// # Shapes
/// Input `T x vocabulary`, one-hot (1 at the symbol, 0 elsewhere), time-major; T classes per case.
#[derive(Clone, Debug)]
pub struct Windows<'t> {
    text: &'t Text,
    steps: usize,
    generator: ChaCha8Rng,
}

impl<'t> Windows<'t> {
    /// Windows of `steps` inputs and as many targets.
    ///
    /// # Errors
    /// [`DataError::TooFewSteps`] for no steps, [`DataError::TextTooShort`] below `steps + 1` symbols.
    pub fn new(text: &'t Text, steps: usize, seed: u64) -> Result<Self, DataError> {
        Self::on_stream(text, steps, seed, Stream::Windows)
    }

    /// A fixed set, for validation: stream 4 of the seed.
    ///
    /// # Errors
    /// As for [`new`](Windows::new).
    pub fn fixed(text: &'t Text, steps: usize, cases: usize, seed: u64) -> Result<Dataset, DataError> {
        let mut batch = Batch::<f32>::default();
        let mut windows = Self::on_stream(text, steps, seed, Stream::WindowsFixed)?;
        windows.next_batch(cases, &mut batch);
        Ok(Dataset {
            name: format!("{}, windows of {steps}", text.name),
            input_len: Source::<f32>::input_len(&windows),
            inputs: batch.inputs,
            targets: batch.targets,
            target_len: text.vocabulary.len(),
        })
    }

    fn on_stream(text: &'t Text, steps: usize, seed: u64, stream: Stream) -> Result<Self, DataError> {
        let (name, symbols) = (|| text.name.clone(), text.ids.len());
        if steps == 0 {
            return Err(DataError::TooFewSteps { name: name(), steps, least: 1 });
        }
        if symbols <= steps {
            return Err(DataError::TextTooShort { name: name(), symbols, needed: steps.saturating_add(1) });
        }
        Ok(Windows { text, steps, generator: generator(seed, stream) })
    }
}

impl<T: Scalar> Source<T> for Windows<'_> {
    fn input_len(&self) -> usize {
        self.steps * self.text.vocabulary.len()
    }

    fn next_batch(&mut self, cases: usize, batch: &mut Batch<T>) {
        let (ids, width) = (&self.text.ids, self.text.vocabulary.len());
        let (inputs, classes) = batch.begin_classes();
        inputs.resize(cases * self.steps * width, T::ZERO);
        for input in inputs.chunks_exact_mut(self.steps * width) {
            let start = below(&mut self.generator, ids.len() - self.steps);
            for (row, &id) in input.chunks_exact_mut(width).zip(&ids[start..]) {
                row[id as usize] = T::ONE;
            }
            classes.extend_from_slice(&ids[start + 1..=start + self.steps]);
        }
        batch.cases = cases;
    }
}
