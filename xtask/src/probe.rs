//! The probe: a program without an allocator that calls every verb of kfac-core.

use crate::step::{Action, Cmd, Need, Step};
use crate::workspace::Metadata;

/// Its package.
pub(crate) const MANIFEST: &str = "kfac-core/firmware/probe/Cargo.toml";

/// What it must print: `kfac-core/tests/probe.rs` compares the same job with `std` with this file.
const EXPECTED: &str = "kfac-core/firmware/probe/expected.txt";

/// Parts of the names of symbols.
const ALLOCATOR: [&str; 3] = ["__rust_alloc", "__rdl_alloc", "malloc"];
const EIGEN_SOLVERS: [&str; 2] = ["4eigh6jacobi", "4eigh2qr"];

/// Same bits as with `std`, no allocator linked, and no eigensolver in a program that names only `Factored`.
pub(crate) fn steps() -> impl Iterator<Item = Step> {
    let runs = [("debug", ""), ("release", " --release")].into_iter().map(|(profile, option)| {
        let command = format!("run --quiet --bin probe --manifest-path {MANIFEST}{option}");
        Step {
            name: format!("no-allocator probe, {profile}"),
            needs: vec![Need::File(MANIFEST)],
            action: Action::Prints(Cmd::cargo(command.split(' ')), EXPECTED),
        }
    });
    let symbols = Step {
        name: "no-allocator probe, symbols".into(),
        needs: vec![Need::File(MANIFEST), Need::Program { name: "nm", package: "binutils" }],
        action: Action::Rule(Box::new(|| check_symbols().map_err(|complaint| vec![complaint]))),
    };
    runs.chain([symbols])
}

fn check_symbols() -> Result<(), String> {
    let build = format!("build --quiet --release --bins --manifest-path {MANIFEST}");
    crate::step::succeed(&Cmd::cargo(build.split(' ')))?;
    let folder = Metadata::of(MANIFEST)?.target_directory().join("release");
    let symbols = |program: &str| {
        let path = folder.join(program);
        crate::step::succeed(&Cmd::new("nm", [path.to_string_lossy().into_owned()]))
    };
    let (probe, factored_only) = (symbols("probe")?, symbols("factored_only")?);
    if let Some(line) = find(&probe, &ALLOCATOR) {
        return Err(format!("the probe links an allocator: {line}"));
    }
    if let Some(line) = find(&factored_only, &EIGEN_SOLVERS) {
        return Err(format!("a program that names only `Factored` links an eigensolver: {line}"));
    }
    // Were a solver renamed, the rule above would hold for nothing.
    for solver in EIGEN_SOLVERS {
        find(&probe, &[solver]).ok_or_else(|| {
            format!("{solver} is in no symbol of the probe: look for the solver's new name")
        })?;
    }
    Ok(())
}

/// The first line that contains one of the parts.
fn find<'s>(symbols: &'s str, parts: &[&str]) -> Option<&'s str> {
    symbols.lines().find(|line| parts.iter().any(|part| line.contains(part)))
}
