//! What a reader must know of the run itself: when, on what, with which code and settings.

use crate::step::Cmd;
use crate::workspace;
use kfac_train::claims::{Profile, Settings};
use kfac_train::trainer::Clock;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// Run information, printed above the claims.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    /// When the report was written, e.g. `2026-05-01 12:30 UTC`.
    pub(crate) date: String,
    /// The command line, to run it again.
    pub(crate) command: String,
    /// `quick` or `full`.
    pub(crate) profile: String,
    /// Seeds per contender.
    pub(crate) seeds: usize,
    /// Runs that went on at the same time.
    pub(crate) threads: usize,
    /// Folder of the data files, when one was given.
    pub(crate) data: Option<String>,
    /// What the seconds of the rows are: CPU time of a thread, or wall time.
    pub(crate) clock: String,
    /// The machine.
    pub(crate) machine: Machine,
    /// The code.
    pub(crate) versions: Versions,
    /// Wall seconds of all claims, those measured before an interruption included.
    pub(crate) wall_seconds: f64,
    /// The same per claim.
    pub(crate) timings: Vec<Timing>,
}

/// The machine as the operating system describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) cpu: String,
    pub(crate) system: String,
}

/// The code as cargo, rustc and git describe it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Versions {
    pub(crate) workspace: String,
    /// Commit, with `-dirty` when files differ from it; `None` outside a repository.
    pub(crate) commit: Option<String>,
    pub(crate) rustc: String,
}

/// How long a claim took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Timing {
    pub(crate) claim: String,
    pub(crate) wall_seconds: f64,
    /// Taken over from an interrupted run with the same settings and the same executable.
    pub(crate) resumed: bool,
}

impl Head {
    /// Asks the system for everything but the timings.
    pub(crate) fn now(settings: &Settings, timings: Vec<Timing>) -> Self {
        Self {
            date: date(SystemTime::now()),
            command: command_line(std::env::args().skip(1)),
            profile: profile(settings.profile).into(),
            seeds: settings.seeds,
            threads: settings.threads,
            data: settings.data.as_ref().map(|folder| folder.display().to_string()),
            clock: Clock::HERE.words().into(),
            machine: Machine::this(),
            versions: Versions::this(),
            wall_seconds: timings.iter().fold(0.0, |sum, timing| sum + timing.wall_seconds),
            timings,
        }
    }
}

/// The profile as on the command line.
fn profile(profile: Profile) -> &'static str {
    match profile {
        Profile::Quick => "quick",
        Profile::Full => "full",
    }
}

impl Machine {
    pub(crate) fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let os = field(&read("/etc/os-release"), "PRETTY_NAME", '=')
            .unwrap_or_else(|| std::env::consts::OS.into());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: cpu_name(&read("/proc/cpuinfo")).unwrap_or_else(|| "unknown".into()),
            system: format!("{os}, {}", std::env::consts::ARCH),
        }
    }
}

impl Versions {
    pub(crate) fn this() -> Self {
        let first_line = |command: Cmd| {
            let output = command.capture().ok().filter(|output| output.success)?;
            output.stdout.lines().next().map(str::to_owned)
        };
        Self {
            workspace: env!("CARGO_PKG_VERSION").into(),
            commit: first_line(Cmd::new("git", ["describe", "--always", "--dirty", "--exclude", "*"])),
            rustc: first_line(Cmd::new(workspace::rustc(), ["--version"]))
                .unwrap_or_else(|| "unknown".into()),
        }
    }
}

/// Name of the processor in the text of /proc/cpuinfo, whose keys differ between architectures.
fn cpu_name(cpuinfo: &str) -> Option<String> {
    ["model name", "Model", "Hardware", "uarch", "cpu model"].iter().find_map(|key| field(cpuinfo, key, ':'))
}

/// Value of the first `key <separator> value` line, without quotes.
fn field(text: &str, key: &str, separator: char) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(separator)?;
        let value = value.trim().trim_matches('"');
        (name.trim() == key && !value.is_empty()).then(|| value.to_owned())
    })
}

/// The arguments as a shell takes them.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quoted = arguments.map(|argument| {
        if !argument.is_empty() && argument.chars().all(plain) {
            argument
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    });
    ["cargo".to_owned(), "xtask".to_owned()].into_iter().chain(quoted).collect::<Vec<_>>().join(" ")
}

/// `2026-05-01 12:30 UTC`.
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let minutes = seconds % 86_400 / 60;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// Year, month, day of the Gregorian calendar, from days since 1970-01-01.
///
/// Years are counted from March, so that the leap day is the last of its year; 400 years are one period of
/// 146,097 days.
///
/// # Source
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_799, "2000-02-29 23:59 UTC"),
            (1_764_000_000, "2025-11-24 16:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ];
        for (seconds, text) in cases {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn the_command_line_can_be_pasted_into_a_shell() {
        let arguments = ["reproduce", "--data", "my data", "it's"].map(str::to_owned);
        assert_eq!(command_line(arguments.into_iter()), r"cargo xtask reproduce --data 'my data' 'it'\''s'");
    }

    #[test]
    fn the_processor_is_found_by_its_name() {
        assert_eq!(cpu_name("processor\t: 0\nmodel name\t: A Chip\n").as_deref(), Some("A Chip"));
        assert_eq!(cpu_name("Model\t\t: A Board\n").as_deref(), Some("A Board"));
        assert_eq!(cpu_name(""), None);
        assert_eq!(field("NAME=x\nPRETTY_NAME=\"An OS\"\n", "PRETTY_NAME", '=').as_deref(), Some("An OS"));
    }
}
