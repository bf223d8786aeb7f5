//! The commands of the workspace: `cargo xtask reproduce`, `test`, `check` and `bench`.
//!
//! Each command is a file of the same name. A command that could not do its work returns one sentence, printed
//! as `error: ...` with exit code 1; a command that did its work and found something wrong (a failed test, a
//! broken rule) has said so already and exits 1 as well. Wrong usage is clap's business: exit code 2.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod probe;
mod progress;
mod report;
mod reproduce;
mod resume;
mod step;
mod test;
mod workspace;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The commands of this workspace", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Re-measure the literature's claims; leaves report.html, results.json and results.md
    Reproduce(reproduce::Options),
    /// Run every test suite this machine can run
    Test(test::Options),
    /// Formatting, lints, documentation, no_std builds, packaging and the rules of this workspace
    Check(check::Options),
    /// Run the benchmarks and print the ratios to the peers
    Bench(bench::Options),
}

/// What a command says of itself when it has run to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Good,
    /// Something failed, and has been printed.
    Bad,
}

fn main() -> ExitCode {
    let command = Cli::command()
        .mut_subcommand("reproduce", |reproduce| reproduce.after_help(reproduce::help_on_claims()));
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let outcome = match &cli.command {
        Command::Reproduce(options) => reproduce::run(options).map_err(|error| error.to_string()),
        Command::Test(options) => test::run(options),
        Command::Check(options) => check::run(options),
        Command::Bench(options) => bench::run(options).map_err(|error| error.to_string()),
    };
    match outcome {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {}", one_line(&message));
            ExitCode::FAILURE
        }
    }
}

/// The message without line breaks, so that whoever reads the log finds one line per error.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(one_line("file a:\n  wrong\tmagic\n"), "file a: wrong magic");
    }

    #[test]
    fn test_and_check_can_be_asked_for_everything() {
        for command in ["test", "check"] {
            assert!(Cli::try_parse_from(["cargo xtask", command, "--all"]).is_ok(), "{command}");
        }
    }

    #[test]
    fn zero_seeds_and_zero_threads_are_wrong_usage() {
        for option in ["--seeds", "--threads"] {
            let parsed = Cli::try_parse_from(["cargo xtask", "reproduce", option, "0"]);
            let message = parsed.err().expect("refused").to_string();
            assert!(message.contains("must be at least 1"), "{message}");
        }
    }
}
