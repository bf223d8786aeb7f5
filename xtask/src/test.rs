//! `cargo xtask test`: every suite that this machine can run.

use crate::Outcome;
use crate::step::{self, Action, Cmd, DATA_VARIABLE, Need, Skips, Step, data_folder};
use crate::workspace::Metadata;

/// The crates that must work without `std`.
pub(crate) const NO_STD: [&str; 2] = ["kfac-linalg", "kfac-core"];

/// Features of [`NO_STD`] crates that make sense without `std`.
pub(crate) const NO_STD_FEATURES: [&str; 2] = ["alloc", "matrixmultiply"];

const LIBRARIES: [&str; 3] = ["kfac-linalg", "kfac-core", "kfac-train"];

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Count a suite that cannot be run here as a failure, unless it is one on data files
    #[arg(long)]
    all: bool,
}

/// # Errors
/// A sentence when cargo cannot describe the workspace.
pub(crate) fn run(options: &Options) -> Result<Outcome, String> {
    Ok(step::run(&steps(&Metadata::read()?), Skips::unless_all(options.all)))
}

fn steps(metadata: &Metadata) -> Vec<Step> {
    // Of the default members. kfac-bench is none: its tests would build every peer that it compares with, which takes
    // longer than all the rest. `cargo test -p kfac-bench` runs them.
    let mut steps = vec![
        cargo(
            "unit and integration tests, all features",
            "test --all-features --tests --examples --no-fail-fast",
        ),
        cargo("doc tests, all features", &format!("test --all-features --doc -p {}", LIBRARIES.join(" -p "))),
    ];
    for package in NO_STD {
        let features = NO_STD_FEATURES.into_iter().filter(|feature| metadata.has_feature(package, feature));
        let plain = cargo(
            &format!("{package} without features"),
            &format!("test -p {package} --no-default-features"),
        );
        let with = features.map(|feature| {
            cargo(
                &format!("{package} with {feature} only"),
                &format!("test -p {package} --no-default-features --features {feature}"),
            )
        });
        steps.extend(std::iter::once(plain).chain(with));
    }
    steps.extend(crate::probe::steps());
    steps.extend(data_steps());
    steps
}

/// Folders of data files, and the test in kfac-train/tests/data_on_disk.rs that reads them.
const DATA_TESTS: [(&str, &str); 3] = [
    ("mnist", "mnist_has_60000_and_10000_cases"),
    ("fashion-mnist", "fashion_mnist_has_60000_and_10000_cases"),
    ("tinyshakespeare", "tinyshakespeare_has_65_symbols"),
];

/// The tests on real data files, where the user has them.
fn data_steps() -> impl Iterator<Item = Step> {
    DATA_TESTS.into_iter().map(|(folder, test)| {
        let line = format!("test -p kfac-train --test data_on_disk -- --ignored --exact {test}");
        let data = data_folder().unwrap_or_default();
        let command = Cmd::cargo(line.split(' ')).env(DATA_VARIABLE, data.to_string_lossy());
        Step {
            name: format!("data files, {folder}"),
            needs: vec![Need::Data(folder)],
            action: Action::Run(command),
        }
    })
}

/// A step that is one cargo command, its arguments separated by spaces.
pub(crate) fn cargo(name: &str, arguments: &str) -> Step {
    Step { name: name.into(), needs: Vec::new(), action: Action::Run(Cmd::cargo(arguments.split(' '))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter that matches no test would pass.
    #[test]
    fn the_tests_on_data_files_are_there() {
        let file = include_str!("../../kfac-train/tests/data_on_disk.rs");
        for (_, test) in DATA_TESTS {
            assert!(file.contains(&format!("fn {test}()")), "{test}");
        }
        assert_eq!(file.matches("#[test]").count(), DATA_TESTS.len());
    }
}
