//! `cargo xtask reproduce`: runs the claims of `kfac_train::claims` and reports them.
//!
//! Nothing is measured here. A claim that does not hold is a result, printed as such, with exit code 0; a claim
//! that cannot be measured (a damaged data file) ends the run, leaves an older report as it was and keeps the
//! claims that were finished.

use crate::Outcome;
use crate::progress::Bars;
use crate::report::files::{self, WriteError};
use crate::report::head::{Head, Timing};
use crate::report::{self, Report};
use crate::resume::{self, Finished, Store};
use kfac_train::claims::{self, Claim, ClaimError, Profile, Progress, Settings};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Folders of `--data` that claims know; at least one must be there.
const DATA_SETS: [&str; 1] = ["mnist"];

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long it may take: minutes on two cores, or a search from many starts for every row
    #[arg(long, value_enum, default_value = "quick")]
    profile: ProfileName,
    /// Run this claim only (may be given several times)
    #[arg(long = "claim", value_name = "NAME")]
    claims: Vec<String>,
    /// Folder with mnist/ (IDX files, plain or .gz): adds the rows on them
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Seeds per contender
    #[arg(long, value_name = "N", default_value = "3", value_parser = at_least_one)]
    seeds: usize,
    /// Runs that go on at the same time [default: available cores]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,
    /// Where report.html, results.json and results.md go
    #[arg(long, value_name = "DIR", default_value = "report")]
    out: PathBuf,
    /// Measure every claim again, also those that an interrupted run has finished
    #[arg(long)]
    fresh: bool,
}

/// The profile on the command line.
#[derive(Clone, Copy, clap::ValueEnum)]
enum ProfileName {
    Quick,
    Full,
}

/// More runs at a time than this is a typing error: each has threads and buffers of its own.
const MOST: usize = 1024;

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) if number > MOST => Err(format!("must be at most {MOST}")),
        Ok(number) => Ok(number),
        Err(_) => Err("must be a whole number, at least 1".into()),
    }
}

/// Why there is no report.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum ReproduceError {
    /// `--claim` with a name that no claim has.
    UnknownClaim { name: String, known: Vec<&'static str> },
    /// `--data` with something that is not a folder.
    NoSuchFolder(PathBuf),
    /// `--data` with a folder that has none of the data sets.
    NoDataSet(PathBuf),
    /// A data file is missing or damaged.
    Data(ClaimError),
    /// A claim could not be measured.
    Claim { name: &'static str, source: ClaimError },
    /// A file of the report could not be written.
    Write(WriteError),
}

impl fmt::Display for ReproduceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownClaim { name, known } => {
                write!(f, "there is no claim `{name}`; the claims are {}", known.join(", "))
            }
            Self::NoSuchFolder(path) => write!(f, "--data {}: there is no such folder", path.display()),
            Self::NoDataSet(path) => {
                write!(f, "--data {}: the folder has none of {}/", path.display(), DATA_SETS.join("/, "))
            }
            Self::Data(source) => write!(f, "{source}; nothing was run"),
            Self::Claim { name, source } => write!(f, "claim `{name}`: {source}; no report was written"),
            Self::Write(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReproduceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Claim { source, .. } | Self::Data(source) => Some(source),
            Self::Write(error) => Some(error),
            _ => None,
        }
    }
}

impl From<WriteError> for ReproduceError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

/// The claims with their summaries, for `--help`.
pub(crate) fn help_on_claims() -> String {
    let claims = claims::all();
    let width = claims.iter().map(|claim| claim.name.len()).max().unwrap_or(0);
    let lines = claims.iter().map(|claim| format!("\n  {:width$}  {}", claim.name, claim.summary));
    if claims.is_empty() { String::new() } else { format!("Claims:{}", lines.collect::<String>()) }
}

/// The command.
///
/// # Errors
/// [`ReproduceError`]; then no report has been written.
pub(crate) fn run(options: &Options) -> Result<Outcome, ReproduceError> {
    let bars = Bars::new();
    let report = reproduce(&claims::all(), options, &bars)?;
    print(&report, &options.out);
    Ok(Outcome::Good)
}

/// Measures the chosen ones of `all` and writes the report.
fn reproduce(all: &[Claim], options: &Options, bars: &Bars) -> Result<Report, ReproduceError> {
    let chosen = choose(all, &options.claims)?;
    let settings = options.settings()?;
    // Better now than after an hour.
    claims::check_data(&settings).map_err(ReproduceError::Data)?;
    files::ready(&options.out, &report::FILES)?;
    let store = Store::new(&options.out, resume::digest(&settings, &own_bytes()));
    let mut records = Vec::new();
    let mut timings = Vec::new();
    for (index, claim) in chosen.iter().enumerate() {
        let kept = if options.fresh { None } else { store.load(claim.name) };
        let resumed = kept.is_some();
        let taken_over =
            if resumed { " (taken over from an interrupted run; --fresh measures it again)" } else { "" };
        eprintln!("[{}/{}] {}: {}{taken_over}", index + 1, chosen.len(), claim.name, claim.summary);
        let Finished { record, wall_seconds } = match kept {
            Some(finished) => finished,
            None => measure(claim, &settings, bars, &store)?,
        };
        timings.push(Timing { claim: claim.name.into(), wall_seconds, resumed });
        records.push(record);
    }
    let report = Report { head: Head::now(&settings, timings), claims: records };
    report.write(&options.out)?;
    store.clear();
    Ok(report)
}

/// Runs one claim and keeps its record.
fn measure(
    claim: &Claim,
    settings: &Settings,
    bars: &Bars,
    store: &Store,
) -> Result<Finished, ReproduceError> {
    let begun = Instant::now();
    let result = (claim.run)(settings, bars as &dyn Progress);
    bars.finish();
    let record = result.map_err(|source| ReproduceError::Claim { name: claim.name, source })?;
    let finished = Finished { record, wall_seconds: begun.elapsed().as_secs_f64() };
    store.save(claim.name, &finished)?;
    Ok(finished)
}

/// The claims of these names in the order of the report; all when there is no name.
fn choose<'a>(all: &'a [Claim], names: &[String]) -> Result<Vec<&'a Claim>, ReproduceError> {
    if let Some(name) = names.iter().find(|name| all.iter().all(|claim| claim.name != name.as_str())) {
        let known = all.iter().map(|claim| claim.name).collect();
        return Err(ReproduceError::UnknownClaim { name: name.clone(), known });
    }
    let chosen = |claim: &&Claim| names.is_empty() || names.iter().any(|name| name == claim.name);
    Ok(all.iter().filter(chosen).collect())
}

impl Options {
    fn settings(&self) -> Result<Settings, ReproduceError> {
        if let Some(folder) = &self.data {
            if !folder.is_dir() {
                return Err(ReproduceError::NoSuchFolder(folder.clone()));
            }
            if DATA_SETS.iter().all(|name| !folder.join(name).exists()) {
                return Err(ReproduceError::NoDataSet(folder.clone()));
            }
        }
        Ok(Settings {
            profile: match self.profile {
                ProfileName::Quick => Profile::Quick,
                ProfileName::Full => Profile::Full,
            },
            data: self.data.clone(),
            seeds: self.seeds,
            threads: self
                .threads
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        })
    }
}

/// This executable; empty where it cannot be read, so that only the version tells codes apart.
fn own_bytes() -> Vec<u8> {
    std::env::current_exe().and_then(std::fs::read).unwrap_or_default()
}

/// The verdicts and where the report lies.
fn print(report: &Report, out: &Path) {
    for claim in &report.claims {
        println!("{}", claim.title);
        for row in &claim.rows {
            let [method, baseline] = [&row.method, &row.baseline].map(|side| &side.name);
            println!("  {:<14} {}; {}", row.verdict.words(), row.task, row.target);
            println!("{:17}{method} against {baseline}, bar {}: {}", "", row.bar, row.remark);
        }
    }
    println!("{}", report.tally());
    println!("report: {}", out.join("report.html").display());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::files::tests::Folder;
    use crate::report::made_up;
    use clap::Parser;
    use kfac_train::claims::ClaimRecord;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(folder: &Folder, more: &[&str]) -> Options {
        let out = folder.path().join("out");
        let line = ["reproduce", "--out", out.to_str().unwrap(), "--threads", "1"];
        Line::parse_from(line.iter().chain(more)).options
    }

    fn good(name: &'static str) -> Claim {
        Claim { name, summary: "made up", run: |_, _| Ok(named("adding")) }
    }

    fn named(name: &str) -> ClaimRecord {
        ClaimRecord { name: name.into(), ..made_up::claim() }
    }

    fn bad() -> Claim {
        let run = |_: &Settings, _: &dyn Progress| -> Result<ClaimRecord, ClaimError> { Err(data_error()) };
        Claim { name: "bad", summary: "made up", run }
    }

    /// What a claim returns when its file is not there.
    fn data_error() -> ClaimError {
        ClaimError::Data(kfac_train::data::DataError::Missing { file: "mnist/file".into() })
    }

    #[test]
    fn a_failing_claim_leaves_the_older_report_and_keeps_the_finished_claims() {
        let folder = Folder::new("failing");
        let options = options(&folder, &[]);
        std::fs::create_dir(&options.out).unwrap();
        std::fs::write(options.out.join("report.html"), "old").unwrap();
        let error = reproduce(&[good("adding"), bad()], &options, &Bars::new()).unwrap_err().to_string();
        assert!(error.starts_with("claim `bad`: ") && error.ends_with("; no report was written"), "{error}");
        assert_eq!(std::fs::read_to_string(options.out.join("report.html")).unwrap(), "old");
        assert_eq!(folder.names("out/partial"), ["adding.json"]);
        let mut names = folder.names("out");
        names.sort();
        assert_eq!(names, ["partial", "report.html"]);
    }

    #[test]
    fn a_finished_claim_is_not_measured_again_unless_asked_to() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let counted = || Claim {
            name: "adding",
            summary: "made up",
            run: |_, progress| {
                progress.stage("grid", 1);
                progress.run_done("done");
                RUNS.fetch_add(1, Ordering::Relaxed);
                Ok(named("adding"))
            },
        };
        let folder = Folder::new("resumed");
        let bars = Bars::new();
        let run = |all: &[Claim], more: &[&str]| reproduce(all, &options(&folder, more), &bars);
        run(&[counted(), bad()], &[]).unwrap_err();
        run(&[counted(), bad()], &[]).unwrap_err();
        assert_eq!(RUNS.load(Ordering::Relaxed), 1);
        run(&[counted(), bad()], &["--seeds", "2"]).unwrap_err();
        assert_eq!(RUNS.load(Ordering::Relaxed), 2, "other settings");
        run(&[counted(), bad()], &["--seeds", "2", "--fresh"]).unwrap_err();
        assert_eq!(RUNS.load(Ordering::Relaxed), 3, "--fresh");
        let report = run(&[counted()], &["--seeds", "2"]).unwrap();
        assert_eq!((RUNS.load(Ordering::Relaxed), report.head.timings[0].resumed), (3, true));
        assert!(!folder.path().join("out/partial").exists(), "the report has the claims now");
        run(&[counted()], &["--seeds", "2"]).unwrap();
        assert_eq!(RUNS.load(Ordering::Relaxed), 4, "a report that was written is not resumed");
    }

    #[test]
    fn an_unknown_claim_is_refused_with_the_names_of_the_known_ones() {
        let folder = Folder::new("unknown");
        let all = [good("adding"), good("digits")];
        let error = reproduce(&all, &options(&folder, &["--claim", "digit"]), &Bars::new()).unwrap_err();
        assert_eq!(error.to_string(), "there is no claim `digit`; the claims are adding, digits");
        assert!(folder.names(".").is_empty(), "nothing was made");
    }

    #[test]
    fn claims_run_in_the_order_of_the_report_and_once() {
        let all = [good("a"), good("b"), good("c")];
        let names = ["c", "a", "c"].map(str::to_owned);
        let chosen: Vec<_> = choose(&all, &names).unwrap().iter().map(|claim| claim.name).collect();
        assert_eq!(chosen, ["a", "c"]);
        assert_eq!(choose(&all, &[]).unwrap().len(), 3);
    }

    #[test]
    fn a_data_folder_is_looked_at_before_anything_runs() {
        let folder = Folder::new("no-data");
        let missing = folder.path().join("missing");
        let cases = [(missing.as_path(), "there is no such folder"), (folder.path(), "has none of mnist/")];
        for (path, words) in cases {
            let options = options(&folder, &["--data", path.to_str().unwrap()]);
            let error = reproduce(&[bad()], &options, &Bars::new()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(folder.names(".").is_empty(), "nothing was made");
        }
    }

    #[test]
    fn an_out_that_is_a_file_is_refused_before_anything_runs() {
        let folder = Folder::new("out-file");
        std::fs::write(folder.path().join("out"), "mine").unwrap();
        let error = reproduce(&[bad()], &options(&folder, &[]), &Bars::new()).unwrap_err();
        assert!(matches!(error, ReproduceError::Write(_)), "{error}");
    }

    #[test]
    fn numbers_on_the_command_line_are_checked() {
        let texts = ["0", "-1", "many", "1025", "3"].map(|text| at_least_one(text).is_ok());
        assert_eq!(texts, [false, false, false, false, true]);
    }
}
