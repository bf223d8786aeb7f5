//! `cargo xtask check`: formatting, lints, documentation, builds, packaging, and the rules of this workspace.

mod source;
mod tidy;

use crate::step::{self, Action, Cmd, Need, Skips, Step};
use crate::test::{NO_STD, NO_STD_FEATURES, cargo};
use crate::workspace::Metadata;
use crate::{Outcome, probe};

/// The target without `std` and without an allocator that stands for firmware.
const BARE_METAL: &str = "thumbv7em-none-eabihf";

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Count a step that cannot be run here as a failure
    #[arg(long)]
    all: bool,
}

/// # Errors
/// A sentence when cargo cannot describe the workspace.
pub(crate) fn run(options: &Options) -> Result<Outcome, String> {
    Ok(step::run(&steps(&Metadata::read()?), Skips::unless_all(options.all)))
}

fn steps(metadata: &Metadata) -> Vec<Step> {
    let clippy = Need::Component { name: "clippy", command: "clippy" };
    let rustfmt = Need::Component { name: "rustfmt", command: "fmt" };
    // The threshold itself stands in clippy.toml; tidy looks that it does.
    let lints = "-- -D warnings -D clippy::too_many_arguments";
    let lint = |name: &str, what: &str| Step {
        needs: vec![clippy],
        ..cargo(&format!("lints, {name}"), &format!("clippy {what} --all-targets {lints}"))
    };
    let mut steps = vec![
        Step {
            needs: vec![rustfmt],
            ..cargo("formatting (mend with `cargo fmt --all`)", "fmt --all -- --check --files-with-diff")
        },
        lint("all features", "--workspace --all-features"),
        lint("no features", "-p kfac-linalg -p kfac-core --no-default-features"),
        documentation(),
    ];
    // The probe is a workspace of its own.
    steps.extend([
        Step {
            needs: vec![rustfmt],
            ..cargo("formatting of the probe", &format!("fmt --manifest-path {} -- --check", probe::MANIFEST))
        },
        Step {
            needs: vec![clippy],
            ..cargo(
                "lints of the probe",
                &format!("clippy --manifest-path {} --bins {lints}", probe::MANIFEST),
            )
        },
    ]);
    for package in NO_STD {
        let features = NO_STD_FEATURES.into_iter().filter(|feature| metadata.has_feature(package, feature));
        for feature in std::iter::once("").chain(features) {
            let (with, option) = match feature {
                "" => (String::new(), String::new()),
                _ => (format!(" with {feature}"), format!(" --features {feature}")),
            };
            steps.push(cargo(
                &format!("{package} without std{with}"),
                &format!("build -p {package} --no-default-features{option}"),
            ));
        }
    }
    steps.extend(bare_metal_builds());
    steps.push(cargo("benchmarks compile", "bench --no-run -p kfac-bench"));
    steps.push(cargo(
        "packaging",
        "package --quiet --allow-dirty --no-verify -p kfac-linalg -p kfac-core -p kfac-train",
    ));
    steps.extend(tidy::steps());
    steps
}

fn documentation() -> Step {
    let command =
        Cmd::cargo("doc --workspace --no-deps --all-features".split(' ')).env("RUSTDOCFLAGS", "-D warnings");
    Step { name: "documentation".into(), needs: Vec::new(), action: Action::Run(command) }
}

/// Builds for a target that has neither `std` nor a heap: a build on the host does not prove it.
fn bare_metal_builds() -> impl Iterator<Item = Step> {
    NO_STD.into_iter().map(|package| Step {
        needs: vec![Need::Target(BARE_METAL)],
        ..cargo(
            &format!("{package} for {BARE_METAL}"),
            &format!("build -p {package} --no-default-features --target {BARE_METAL}"),
        )
    })
}
