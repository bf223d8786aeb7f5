//! The report of a reproduction: run information and the records of the claims, as HTML, JSON and Markdown.
//!
//! Everything is rendered in memory before the first file is touched, so a report is whole or is not there.

mod figures;
pub(crate) mod files;
pub(crate) mod head;
mod html;
pub(crate) mod json;
mod markdown;
mod text;

use files::WriteError;
use head::Head;
use kfac_train::claims::{ClaimRecord, Verdict};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The files of a report, in the order in which they appear: whoever waits for report.html finds all three.
pub(crate) const FILES: [&str; 3] = ["results.json", "results.md", "report.html"];

/// One reproduction, measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// When, where and with what it was run.
    pub(crate) head: Head,
    /// The claims, in the order of the report.
    pub(crate) claims: Vec<ClaimRecord>,
}

impl Report {
    /// Writes [`FILES`] into `out`, over those of an older report.
    ///
    /// # Errors
    /// [`WriteError`] with the path; then every older file is as it was, unless the disk itself fails between
    /// two renames.
    pub(crate) fn write(&self, out: &Path) -> Result<(), WriteError> {
        let contents = [json::render(self), markdown::render(self), html::render(self)];
        let files: Vec<(&str, &str)> = FILES.into_iter().zip(contents.iter().map(String::as_str)).collect();
        files::write_together(out, &files)
    }

    /// Number of rows with this verdict.
    fn rows_that(&self, verdict: Verdict) -> usize {
        self.claims.iter().flat_map(|claim| &claim.rows).filter(|row| row.verdict == verdict).count()
    }

    /// `3 rows: holds 2, does not hold 1`: only what occurs.
    pub(crate) fn tally(&self) -> String {
        let all = [Verdict::Holds, Verdict::HoldsInPart, Verdict::DoesNotHold, Verdict::NotMeasured];
        let counts = all.map(|verdict| (self.rows_that(verdict), verdict.words()));
        let parts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, words)| format!("{words} {count}"))
            .collect();
        let rows: usize = counts.iter().map(|(count, _)| count).sum();
        match rows {
            0 => "no row was measured".into(),
            1 => format!("1 row: {}", parts.join(", ")),
            _ => format!("{rows} rows: {}", parts.join(", ")),
        }
    }
}

#[cfg(test)]
pub(crate) mod made_up;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::files::tests::Folder;

    fn read(folder: &Folder, name: &str) -> String {
        std::fs::read_to_string(folder.path().join(name)).unwrap()
    }

    #[test]
    fn a_report_is_three_files_and_nothing_else() {
        let folder = Folder::new("three-files");
        made_up::report().write(&folder.path().join("new")).unwrap();
        let mut names = folder.names("new");
        names.sort();
        assert_eq!(names, ["report.html", "results.json", "results.md"]);
    }

    #[test]
    fn an_older_report_survives_a_failing_write() {
        let folder = Folder::new("survives");
        for name in ["results.json", "results.md"] {
            std::fs::write(folder.path().join(name), "old").unwrap();
        }
        std::fs::create_dir(folder.path().join("report.html")).unwrap();
        let error = made_up::report().write(folder.path()).unwrap_err().to_string();
        assert!(error.contains("report.html"), "{error}");
        assert_eq!(
            (read(&folder, "results.json"), read(&folder, "results.md")),
            ("old".into(), "old".into())
        );
        let mut names = folder.names(".");
        names.sort();
        assert_eq!(names, ["report.html", "results.json", "results.md"], "no temporary file is left");
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_an_error_with_its_name() {
        let folder = Folder::new("file-as-folder");
        let out = folder.path().join("out");
        std::fs::write(&out, "mine").unwrap();
        let error = made_up::report().write(&out).unwrap_err().to_string();
        assert!(error.contains("out"), "{error}");
        assert_eq!(read(&folder, "out"), "mine");
    }

    #[test]
    fn a_newer_report_replaces_an_older_one() {
        let folder = Folder::new("replaces");
        std::fs::write(folder.path().join("report.html"), "old").unwrap();
        made_up::report().write(folder.path()).unwrap();
        assert!(read(&folder, "report.html").starts_with("<!doctype html>"));
    }

    #[test]
    fn the_tally_counts_rows_by_verdict() {
        assert_eq!(
            made_up::report().tally(),
            "5 rows: holds 2, holds in part 1, does not hold 1, not measured 1"
        );
        let empty = Report { claims: Vec::new(), ..made_up::report() };
        assert_eq!(empty.tally(), "no row was measured");
    }

    #[test]
    fn the_report_does_not_change_on_the_way_through_json() {
        let mut report = made_up::report();
        report.claims.push(made_up::hostile());
        let again: Report = json::parse(&json::render(&report)).unwrap();
        for render in [html::render, markdown::render] {
            let (before, after) = (render(&report), render(&again));
            for (line, expected) in after.lines().zip(before.lines()) {
                assert_eq!(line, expected);
            }
            assert_eq!(before.len(), after.len());
        }
    }

    #[test]
    fn the_head_says_which_clock_the_times_are_of() {
        let report = made_up::report();
        for page in [html::render(&report), markdown::render(&report)] {
            assert!(page.contains("made-up time, evaluation excluded"), "{page}");
        }
    }

    /// `cargo test -p xtask -- --ignored --nocapture look`: to see what a change of the layout does.
    #[test]
    #[ignore = "leaves a folder behind"]
    fn a_report_to_look_at() {
        let folder = std::env::temp_dir().join("xtask-look");
        let mut report = made_up::report();
        report.write(&folder).unwrap();
        report.claims.extend([made_up::hostile(), made_up::empty()]);
        report.write(&folder.join("hostile")).unwrap();
        println!("{}", folder.display());
    }
}
