//! `cargo xtask test`: every suite that this machine can run.

use crate::Outcome;
use crate::step::{self, Action, Cmd, Skips, Step};
use crate::workspace::Metadata;

/// The crates that must work without `std`.
pub(crate) const NO_STD: [&str; 2] = ["kfac-linalg", "kfac-core"];

/// Features of [`NO_STD`] crates that make sense without `std`.
pub(crate) const NO_STD_FEATURES: [&str; 2] = ["alloc", "matrixmultiply"];

const LIBRARIES: [&str; 3] = ["kfac-linalg", "kfac-core", "kfac-train"];

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Count a suite that cannot be run here as a failure
    #[arg(long)]
    all: bool,
}

/// # Errors
/// A sentence when cargo cannot describe the workspace.
pub(crate) fn run(options: &Options) -> Result<Outcome, String> {
    let skips = if options.all { Skips::Failures } else { Skips::Allowed };
    Ok(step::run(&steps(&Metadata::read()?), skips))
}

fn steps(metadata: &Metadata) -> Vec<Step> {
    let mut steps = vec![
        cargo(
            "unit and integration tests, all features",
            "test --all-features --tests --examples --no-fail-fast",
        ),
        cargo("doc tests, all features", &format!("test --all-features --doc -p {}", LIBRARIES.join(" -p "))),
    ];
    for package in NO_STD {
        let features =
            ["matrixmultiply"].into_iter().filter(|feature| metadata.has_feature(package, feature));
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
    steps
}

/// A step that is one cargo command, its arguments separated by spaces.
pub(crate) fn cargo(name: &str, arguments: &str) -> Step {
    Step { name: name.into(), needs: Vec::new(), action: Action::Run(Cmd::cargo(arguments.split(' '))) }
}
