//! Steps of `cargo xtask test` and `check`: values that are run in turn and counted.

use crate::{Outcome, workspace};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// One thing to run or to look at.
pub(crate) struct Step {
    pub(crate) name: String,
    /// What must be there; a step that lacks something is skipped.
    pub(crate) needs: Vec<Need>,
    pub(crate) action: Action,
}

/// What a step does.
pub(crate) enum Action {
    /// A command that must succeed.
    Run(Cmd),
    /// A command that must print what stands in a file of the workspace.
    Prints(Cmd, &'static str),
    /// A rule of our own; each complaint says how to mend it.
    Rule(Box<dyn Fn() -> Result<(), Vec<String>>>),
}

/// Something a step cannot do without.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// The standard library's `core` for a target.
    Target(&'static str),
    /// A cargo subcommand of the toolchain, as `rustup component add` names it.
    Component { name: &'static str, command: &'static str },
    /// A file of the workspace, relative to its root.
    File(&'static str),
    /// A program, and the package that brings it.
    Program { name: &'static str, package: &'static str },
    /// A folder of the user's data files, within the one that [`DATA_VARIABLE`] names. Nobody else can be asked to have it.
    Data(&'static str),
}

/// Environment variable with the folder of the data files.
pub(crate) const DATA_VARIABLE: &str = "KFAC_DATA_DIR";

/// The folder of the data files, as every working directory sees it.
pub(crate) fn data_folder() -> Option<PathBuf> {
    std::path::absolute(std::env::var_os(DATA_VARIABLE)?).ok()
}

/// What is missing and the command that brings it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    reason: String,
    install: Option<String>,
    /// Does `--all` insist on it?
    is_asked_for: bool,
}

impl Need {
    fn missing(self) -> Option<Missing> {
        match self {
            Self::Target(target) => {
                let folder =
                    Cmd::new(workspace::rustc(), ["--print", "target-libdir", "--target", target]).capture();
                let there = folder.is_ok_and(|output| output.success && has_core(output.stdout.trim()));
                (!there).then(|| Missing {
                    reason: format!("target {target} is not installed"),
                    install: Some(format!("rustup target add {target}")),
                    is_asked_for: true,
                })
            }
            Self::Component { name, command } => {
                let there = Cmd::cargo([command, "--version"]).capture().is_ok_and(|output| output.success);
                (!there).then(|| Missing {
                    reason: format!("{name} is not installed"),
                    install: Some(format!("rustup component add {name}")),
                    is_asked_for: true,
                })
            }
            Self::Program { name, package } => {
                let there = Cmd::new(name, ["--version"]).capture().is_ok_and(|output| output.success);
                (!there).then(|| Missing {
                    reason: format!("{name} is not installed"),
                    install: Some(format!("apt-get install {package}")),
                    is_asked_for: true,
                })
            }
            Self::File(path) => (!workspace::root().join(path).exists()).then(|| Missing {
                reason: format!("{path} does not exist"),
                install: None,
                is_asked_for: true,
            }),
            Self::Data(name) => {
                let there = data_folder().is_some_and(|folder| folder.join(name).is_dir());
                (!there).then(|| Missing {
                    reason: format!("{DATA_VARIABLE} names no folder with {name}/ (not part of --all)"),
                    install: None,
                    is_asked_for: false,
                })
            }
        }
    }
}

fn has_core(folder: &str) -> bool {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with("libcore-"))
}

/// A command line with its environment, run in the root of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Cmd {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

/// What a command left behind.
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Cmd {
    pub(crate) fn new<S: Into<String>>(
        program: impl Into<String>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program: program.into(), arguments, environment: Vec::new() }
    }

    /// Cargo, the same that runs this program.
    pub(crate) fn cargo<S: Into<String>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self::new(workspace::cargo(), arguments)
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(workspace::root()).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it and keeps its output.
    ///
    /// # Errors
    /// A sentence when the program cannot be started.
    pub(crate) fn capture(&self) -> Result<Output, String> {
        let output = self.command().output().map_err(|error| self.not_started(&error))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Output {
            success: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }

    /// Runs it on our own terminal; did it succeed?
    ///
    /// # Errors
    /// A sentence when the program cannot be started.
    pub(crate) fn show(&self) -> Result<bool, String> {
        self.command().status().map(|status| status.success()).map_err(|error| self.not_started(&error))
    }

    fn not_started(&self, error: &std::io::Error) -> String {
        format!("cannot start {}: {error}", self.program)
    }

    /// The line to type to run it by hand.
    fn line(&self) -> String {
        let environment = self.environment.iter().map(|(name, value)| format!("{name}='{value}'"));
        let program = Path::new(&self.program).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        environment.chain([program]).chain(self.arguments.iter().cloned()).collect::<Vec<_>>().join(" ")
    }
}

/// How one step ended.
#[derive(Debug)]
enum Ending {
    /// With a few words, possibly none.
    Passed(String),
    /// With all there is to say.
    Failed(String),
    Skipped(Missing),
}

impl Step {
    fn end(&self) -> Ending {
        if let Some(missing) = self.needs.iter().find_map(|need| need.missing()) {
            return Ending::Skipped(missing);
        }
        let result = match &self.action {
            Action::Run(command) => succeed(command).map(|stdout| tests_in(&stdout)),
            Action::Prints(command, file) => prints(command, file),
            Action::Rule(rule) => rule().map(|()| String::new()).map_err(|complaints| complaints.join("\n")),
        };
        result.map_or_else(Ending::Failed, Ending::Passed)
    }
}

/// Standard output of a command that succeeds; else everything it printed.
pub(crate) fn succeed(command: &Cmd) -> Result<String, String> {
    let output = command.capture()?;
    if output.success {
        return Ok(output.stdout);
    }
    Err(format!("{}{}command: {}", output.stderr, output.stdout, command.line()))
}

fn prints(command: &Cmd, file: &str) -> Result<String, String> {
    let printed = succeed(command)?;
    let path = workspace::root().join(file);
    let expected = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {file}: {error}"))?;
    // Line by line: a checkout may have changed the line ends.
    if printed.lines().eq(expected.lines()) {
        return Ok(format!("{} lines as in {file}", expected.lines().count()));
    }
    Err(format!(
        "the output differs from {file}\nprinted:\n{printed}\nexpected:\n{expected}\ncommand: {}",
        command.line()
    ))
}

/// `143 tests`, from what the test harness prints; nothing when no harness ran.
fn tests_in(stdout: &str) -> String {
    let results = stdout.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    let passed: Vec<u64> = results.filter_map(|rest| rest.split(' ').next()?.parse().ok()).collect();
    if passed.is_empty() { String::new() } else { format!("{} tests", passed.iter().sum::<u64>()) }
}

/// How many steps ended in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// What becomes of a step that lacks something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skips {
    Allowed,
    /// On a machine that is meant to have everything but data files.
    Failures,
}

impl Skips {
    /// What `--all` asks for.
    pub(crate) fn unless_all(all: bool) -> Self {
        if all { Self::Failures } else { Self::Allowed }
    }
}

/// Runs all steps, a line each, and prints the count as the last line.
pub(crate) fn run(steps: &[Step], skips: Skips) -> Outcome {
    let mut count = Count::default();
    for (index, step) in steps.iter().enumerate() {
        print!("[{}/{}] {} ... ", index + 1, steps.len(), step.name);
        let _ = std::io::stdout().flush();
        let begun = Instant::now();
        let ending = step.end();
        println!("{}", count.add(ending, skips, begun.elapsed().as_secs_f64()));
    }
    println!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    if count.failed == 0 { Outcome::Good } else { Outcome::Bad }
}

impl Count {
    /// Counts the ending and says it.
    fn add(&mut self, ending: Ending, skips: Skips, seconds: f64) -> String {
        match ending {
            Ending::Passed(words) => {
                self.passed += 1;
                let words = if words.is_empty() { words } else { format!("{words}, ") };
                format!("ok ({words}{seconds:.1} s)")
            }
            Ending::Failed(report) => {
                self.failed += 1;
                format!("FAILED ({seconds:.1} s)\n{}", indented(&report))
            }
            Ending::Skipped(Missing { reason, install, is_asked_for }) => {
                let install = install.map(|line| format!("; install it with `{line}`")).unwrap_or_default();
                if skips == Skips::Failures && is_asked_for {
                    self.failed += 1;
                    format!("FAILED: with --all nothing may be skipped, but {reason}{install}")
                } else {
                    self.skipped += 1;
                    format!("skipped: {reason}{install}")
                }
            }
        }
    }
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(action: Action) -> Step {
        Step { name: "a step".into(), needs: Vec::new(), action }
    }

    #[test]
    fn a_step_that_lacks_something_is_skipped_or_failed() {
        let lacking = Step {
            needs: vec![Need::Target("no-such-target")],
            ..step(Action::Rule(Box::new(|| unreachable!("must not run"))))
        };
        let mut count = Count::default();
        let line = count.add(lacking.end(), Skips::Allowed, 0.0);
        assert_eq!(
            line,
            "skipped: target no-such-target is not installed; install it with `rustup target add no-such-target`"
        );
        count.add(lacking.end(), Skips::Failures, 0.0);
        assert_eq!(count, Count { passed: 0, failed: 1, skipped: 1 });
    }

    #[test]
    fn data_files_that_are_not_there_are_skipped_whatever_is_asked_for() {
        let lacking = Step {
            needs: vec![Need::Data("no-such-data-set")],
            ..step(Action::Rule(Box::new(|| unreachable!("must not run"))))
        };
        let mut count = Count::default();
        for skips in [Skips::Allowed, Skips::Failures] {
            let line = count.add(lacking.end(), skips, 0.0);
            let reason = "skipped: KFAC_DATA_DIR names no folder with no-such-data-set/ (not part of --all)";
            assert_eq!(line, reason);
        }
        assert_eq!(count, Count { passed: 0, failed: 0, skipped: 2 });
    }

    #[test]
    fn what_this_machine_has_is_not_missing() {
        let version = Cmd::new(workspace::rustc(), ["-vV"]).capture().unwrap().stdout;
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
        let there = [Need::Target(host.leak()), Need::File("Cargo.toml")];
        assert_eq!(there.map(Need::missing), [None, None]);
        let missing = Need::File("no/such/file").missing().unwrap();
        assert_eq!((missing.reason.as_str(), missing.install), ("no/such/file does not exist", None));
    }

    #[test]
    fn a_rule_that_complains_fails_with_its_words() {
        let complaining = step(Action::Rule(Box::new(|| Err(vec!["mend a".into(), "mend b".into()]))));
        let mut count = Count::default();
        let line = count.add(complaining.end(), Skips::Allowed, 0.0);
        assert!(line.starts_with("FAILED") && line.ends_with("    mend a\n    mend b"), "{line}");
    }

    #[test]
    fn an_output_is_compared_with_a_file() {
        let located = || Cmd::cargo(["locate-project", "--workspace", "--message-format", "plain"]);
        let ending = step(Action::Prints(located(), "rustfmt.toml")).end();
        assert!(
            matches!(&ending, Ending::Failed(report) if report.contains("differs from rustfmt.toml")),
            "{ending:?}"
        );
        let ending = step(Action::Prints(located(), "no/such/file")).end();
        assert!(matches!(&ending, Ending::Failed(report) if report.contains("cannot read")), "{ending:?}");
        let show = Cmd::new("git", ["show", ":rustfmt.toml"]);
        if show.capture().is_ok_and(|output| output.success) {
            assert!(matches!(step(Action::Prints(show, "rustfmt.toml")).end(), Ending::Passed(_)));
        }
    }

    #[test]
    fn a_failing_command_shows_what_it_printed_and_its_line() {
        let ending = step(Action::Run(Cmd::cargo(["no-such-command"]).env("A", "b"))).end();
        let Ending::Failed(report) = ending else { panic!("{ending:?}") };
        assert!(report.contains("no-such-command") && report.contains("command: A='b' cargo"), "{report}");
    }

    #[test]
    fn passed_tests_are_added_up() {
        let stdout =
            "test result: ok. 3 passed; 0 failed\nx\ntest result: ok. 40 passed; 0 failed; 1 ignored\n";
        assert_eq!((tests_in(stdout), tests_in("no harness")), ("43 tests".into(), String::new()));
    }
}
