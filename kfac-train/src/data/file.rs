//! A file of the user, plain or gzip as its first two bytes say, read without trusting it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use super::DataError;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// An open file and how much of its content has been read.
pub(super) struct DataFile {
    path: PathBuf,
    content: Content,
    /// Bytes handed out so far, decoded.
    read: u64,
}

enum Content {
    Plain(BufReader<File>),
    Gzip(Box<GzDecoder<BufReader<File>>>),
}

impl DataFile {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let unopened = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => DataError::Missing { file: path.to_owned() },
            reason => DataError::Unreadable { file: path.to_owned(), reason },
        };
        let mut plain = BufReader::new(File::open(path).map_err(unopened)?);
        let content = if plain.fill_buf().map_err(unopened)?.starts_with(&GZIP) {
            Content::Gzip(Box::new(GzDecoder::new(plain)))
        } else {
            Content::Plain(plain)
        };
        Ok(DataFile { path: path.to_owned(), content, read: 0 })
    }

    /// The next `limit` bytes, fewer only where the content ends.
    ///
    /// Memory grows with what is there, not with `limit`, which may come from a header.
    pub(super) fn take(&mut self, limit: u64) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        let outcome = match &mut self.content {
            Content::Plain(file) => file.take(limit).read_to_end(&mut bytes),
            Content::Gzip(file) => file.take(limit).read_to_end(&mut bytes),
        };
        self.read += bytes.len() as u64;
        outcome.map_err(|error| self.failure(&error))?;
        Ok(bytes)
    }

    /// Reads to the end, which also verifies the checksum of gzip, and returns the length of the whole
    /// content.
    pub(super) fn finish(mut self) -> Result<u64, DataError> {
        while self.skip()? > 0 {}
        if let Content::Gzip(decoder) = self.content {
            let bytes = io::copy(&mut decoder.into_inner(), &mut io::sink())
                .map_err(|error| DataError::Unreadable { file: self.path.clone(), reason: error.kind() })?;
            if bytes > 0 {
                return Err(DataError::GzipTrailing { file: self.path, bytes });
            }
        }
        Ok(self.read)
    }

    fn skip(&mut self) -> Result<usize, DataError> {
        let mut buffer = [0; 4096];
        loop {
            let outcome = match &mut self.content {
                Content::Plain(file) => file.read(&mut buffer),
                Content::Gzip(file) => file.read(&mut buffer),
            };
            match outcome {
                Ok(count) => {
                    self.read += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(&error)),
            }
        }
    }

    fn failure(&self, error: &io::Error) -> DataError {
        let (file, decoded) = (self.path.clone(), self.read);
        match (&self.content, error.kind()) {
            (Content::Gzip(_), io::ErrorKind::UnexpectedEof) => DataError::GzipTruncated { file, decoded },
            (Content::Gzip(_), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                DataError::GzipCorrupt { file, decoded }
            }
            (_, reason) => DataError::Unreadable { file, reason },
        }
    }
}
