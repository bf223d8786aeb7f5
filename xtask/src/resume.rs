//! Finished claims of a reproduction that has not reached its report, kept in `OUT/partial/NAME.json`.
//!
//! A record is taken up again only by a run that would have measured the same thing: same settings, same data
//! files, same executable.

use crate::report::files::{self, WriteError};
use crate::report::json;
use kfac_train::claims::{ClaimRecord, Settings};
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// One finished claim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) record: ClaimRecord,
    pub(crate) wall_seconds: f64,
}

/// What a file of the folder holds.
#[derive(Serialize, Deserialize)]
struct Partial {
    claim: String,
    digest: String,
    finished: Finished,
}

/// The folder of the finished claims.
pub(crate) struct Store {
    folder: PathBuf,
    digest: String,
}

impl Store {
    pub(crate) fn new(out: &Path, digest: String) -> Self {
        Self { folder: out.join("partial"), digest }
    }

    /// The record of this claim, when one with the same digest was kept and can be read.
    pub(crate) fn load(&self, claim: &str) -> Option<Finished> {
        let text = std::fs::read_to_string(self.folder.join(file_name(claim))).ok()?;
        let partial: Partial = json::parse(&text).ok()?;
        (partial.digest == self.digest && partial.claim == claim).then_some(partial.finished)
    }

    /// Keeps a finished claim.
    ///
    /// # Errors
    /// [`WriteError`] with the path; an older record of the claim is then as it was.
    pub(crate) fn save(&self, claim: &str, finished: &Finished) -> Result<(), WriteError> {
        let partial =
            Partial { claim: claim.into(), digest: self.digest.clone(), finished: finished.clone() };
        files::write_together(&self.folder, &[(&file_name(claim), &json::render(&partial))])
    }

    /// Forgets all finished claims: the report has them now. What else lies in the folder stays.
    pub(crate) fn clear(&self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "json" || extension == "tmp") {
                let _ = std::fs::remove_file(path);
            }
        }
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// A claim's name as a file name; letters, digits and dashes stay.
fn file_name(claim: &str) -> String {
    let safe = claim.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' });
    format!("{}.json", safe.collect::<String>())
}

/// Digest of all that decides what a claim measures: settings, data files, code.
///
/// `executable` is this program itself: claims and everything below them are linked into it, so changed code
/// gives another digest.
pub(crate) fn digest(settings: &Settings, executable: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    executable.hash(&mut hasher);
    // The Debug form has every field, those added later included. How many runs go on at a time changes no result.
    format!("{:?}", Settings { threads: 1, ..settings.clone() }).hash(&mut hasher);
    if let Some(folder) = &settings.data {
        hash_folder(folder, &mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// Names, lengths and times of change of all files below `folder`, in the order of their names.
fn hash_folder(folder: &Path, hasher: &mut DefaultHasher) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        path.hash(hasher);
        // Links to files are followed, links to folders are not: a link upwards would never end.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            hash_folder(&path, hasher);
        } else if let Ok(metadata) = path.metadata() {
            metadata.len().hash(hasher);
            let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            changed.hash(hasher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::files::tests::Folder;
    use crate::report::made_up;
    use kfac_train::claims::Profile;

    fn finished() -> Finished {
        Finished { record: made_up::claim(), wall_seconds: 1.5 }
    }

    fn settings() -> Settings {
        Settings { profile: Profile::Quick, data: None, seeds: 3, threads: 2 }
    }

    #[test]
    fn the_digest_tells_settings_code_and_data_apart() {
        let folder = Folder::new("digest");
        std::fs::write(folder.path().join("a"), "1").unwrap();
        let with_data = Settings { data: Some(folder.path().to_owned()), ..settings() };
        let before = digest(&with_data, b"code");
        let all = [
            digest(&settings(), b"code"),
            digest(&settings(), b"changed code"),
            digest(&Settings { seeds: 4, ..settings() }, b"code"),
            digest(&Settings { profile: Profile::Full, ..settings() }, b"code"),
            before.clone(),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
        assert_eq!(digest(&with_data, b"code"), before);
        assert_eq!(
            digest(&Settings { threads: 1, ..settings() }, b"code"),
            all[0],
            "threads change no result"
        );
        std::fs::write(folder.path().join("a"), "12").unwrap();
        assert_ne!(digest(&with_data, b"code"), before, "a data file has changed");
    }

    #[test]
    fn a_record_is_taken_up_only_under_its_own_digest() {
        let folder = Folder::new("store");
        let store = Store::new(folder.path(), "d1".into());
        store.save("adding", &finished()).unwrap();
        assert_eq!(store.load("adding").map(|finished| finished.wall_seconds), Some(1.5));
        assert!(store.load("other").is_none());
        assert!(Store::new(folder.path(), "d2".into()).load("adding").is_none());
        store.clear();
        assert!(folder.names(".").is_empty(), "the folder is gone");
    }

    #[test]
    fn a_damaged_record_is_ignored() {
        let folder = Folder::new("damaged");
        let store = Store::new(folder.path(), "d".into());
        store.save("adding", &finished()).unwrap();
        let path = folder.path().join("partial/adding.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 20]).unwrap();
        assert!(store.load("adding").is_none());
    }

    #[test]
    fn foreign_files_in_the_folder_are_left_alone() {
        let folder = Folder::new("foreign");
        let store = Store::new(folder.path(), "d".into());
        store.save("adding", &finished()).unwrap();
        std::fs::write(folder.path().join("partial/mine.txt"), "x").unwrap();
        store.clear();
        assert_eq!(folder.names("partial"), ["mine.txt"]);
    }
}
