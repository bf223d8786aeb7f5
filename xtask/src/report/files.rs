//! Files that are whole or not there: written under a temporary name, synced, renamed.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file or folder that could not be written.
#[derive(Debug)]
pub(crate) struct WriteError {
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, WriteError> {
    result.map_err(|source| WriteError { path: path.to_owned(), source })
}

/// Writes `(name, contents)` into `folder`, all or none: the first rename comes after the last sync.
///
/// # Errors
/// [`WriteError`] with the path. Older files of these names are untouched, except when a rename fails that
/// [`ready`] could not foresee.
pub(crate) fn write_together(folder: &Path, files: &[(&str, &str)]) -> Result<(), WriteError> {
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    ready(folder, &names)?;
    let mut temporaries = Temporaries(Vec::new());
    for (name, contents) in files {
        let path = folder.join(format!(".{name}.{}.tmp", std::process::id()));
        temporaries.0.push(path.clone());
        at(&path, write_synced(&path, contents))?;
    }
    for (temporary, name) in temporaries.0.iter().zip(&names) {
        let path = folder.join(name);
        at(&path, fs::rename(temporary, &path))?;
    }
    sync_folder(folder);
    Ok(())
}

/// Creates `folder` and makes sure that files of these names can be written there.
///
/// # Errors
/// [`WriteError`] with the path that stands in the way.
pub(crate) fn ready(folder: &Path, names: &[&str]) -> Result<(), WriteError> {
    if folder.exists() && !folder.is_dir() {
        return at(folder, Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory")));
    }
    at(folder, fs::create_dir_all(folder))?;
    for name in names {
        let path = folder.join(name);
        if path.is_dir() {
            return at(&path, Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory")));
        }
    }
    let probe = Temporaries(vec![folder.join(format!(".probe.{}.tmp", std::process::id()))]);
    at(folder, write_synced(&probe.0[0], ""))
}

fn write_synced(path: &Path, contents: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()
}

/// Makes the renames durable where folders can be synced; elsewhere there is nothing to do.
fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// Temporary files, removed on every way out. After a successful rename there is nothing left to remove.
struct Temporaries(Vec<PathBuf>);

impl Drop for Temporaries {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder of one test, removed at its end.
    pub(crate) struct Folder(PathBuf);

    impl Folder {
        pub(crate) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }

        pub(crate) fn names(&self, sub: &str) -> Vec<String> {
            let entries = fs::read_dir(self.0.join(sub)).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_failing_second_file_leaves_the_first_as_it_was() {
        let folder = Folder::new("second-fails");
        fs::write(folder.path().join("a"), "old").unwrap();
        let error = write_together(folder.path(), &[("a", "new"), ("missing/b", "new")]).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("a")).unwrap(), "old");
        assert_eq!(folder.names("."), ["a"]);
    }

    #[test]
    fn the_folder_is_made_when_it_is_missing() {
        let folder = Folder::new("made");
        write_together(&folder.path().join("x/y"), &[("a", "1"), ("b", "2")]).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("x/y/b")).unwrap(), "2");
    }
}
