//! Where the workspace lies and what cargo says about it.

use crate::step::Cmd;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The folder of the workspace's Cargo.toml.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The cargo that runs this program, so that the toolchain does not change on the way.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// The compiler that this cargo calls.
pub(crate) fn rustc() -> String {
    std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into())
}

/// What `cargo metadata --no-deps` says.
pub(crate) struct Metadata(Value);

impl Metadata {
    /// # Errors
    /// A sentence when cargo refuses, or answers something that is not JSON.
    pub(crate) fn read() -> Result<Self, String> {
        Self::of("Cargo.toml")
    }

    /// The same for a package outside the workspace.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub(crate) fn of(manifest: &str) -> Result<Self, String> {
        let arguments = ["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest];
        let output = Cmd::cargo(arguments).capture()?;
        if !output.success {
            return Err(format!("cargo metadata failed: {}", output.stderr));
        }
        let json = serde_json::from_str(&output.stdout)
            .map_err(|error| format!("cargo metadata printed something else than JSON: {error}"))?;
        Ok(Self(json))
    }

    /// The folder cargo builds in.
    pub(crate) fn target_directory(&self) -> PathBuf {
        self.0["target_directory"].as_str().map_or_else(|| root().join("target"), PathBuf::from)
    }

    fn package(&self, name: &str) -> Option<&Value> {
        self.0["packages"].as_array()?.iter().find(|package| package["name"] == name)
    }

    /// Does the package have this feature?
    pub(crate) fn has_feature(&self, package: &str, feature: &str) -> bool {
        self.package(package).is_some_and(|package| package["features"].get(feature).is_some())
    }

    /// Names of everything the package is built from, tests apart; `None` when there is no such package.
    pub(crate) fn dependencies(&self, package: &str) -> Option<Vec<String>> {
        let dependencies = self.package(package)?["dependencies"].as_array()?;
        let built_in = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
        Some(built_in.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)).collect())
    }
}
