//! Rules of this workspace that no other tool knows. Every complaint says how to mend it.

use super::source::{code_only, lines_with_word};
use crate::step::{Action, Step};
use crate::workspace::{self, Metadata};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a crate without `std` may be built from.
const ALLOWED_DEPENDENCIES: [(&str, &[&str]); 2] =
    [("kfac-linalg", &["libm", "matrixmultiply"]), ("kfac-core", &["libm", "matrixmultiply", "kfac-linalg"])];

/// Where intrinsics live.
const UNSAFE_FOLDER: &str = "kfac-linalg/src/arch";

/// A peer of the benchmarks that has no safe entry point. Part of no crate that anyone depends on.
const UNSAFE_PEER: &str = "xtask/bench/src/peers/gemm.rs";

/// Crate roots that forbid unsafe code altogether.
const FORBIDS_UNSAFE: [&str; 3] = ["kfac-core/src/lib.rs", "kfac-train/src/lib.rs", "xtask/src/main.rs"];

/// What may lie at the top of the repository: the three crates, xtask, and the files that cargo, git or a reader looks for
/// there. Everything else has a crate to live in.
const TOP_LEVEL: [&str; 15] = [
    ".cargo",
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "kfac-core",
    "kfac-linalg",
    "kfac-train",
    "rustfmt.toml",
    "xtask",
];

/// The line of clippy.toml that `check` relies on.
const ARGUMENTS: &str = "too-many-arguments-threshold = 6";

/// Marks of unfinished work, in two halves so that this file does not hold them.
const UNFINISHED: [[&str; 2]; 3] = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]];

/// Looks at the workspace below a root and returns its complaints.
type Rule = fn(&Path) -> Vec<String>;

/// One step per rule.
pub(super) fn steps() -> Vec<Step> {
    let rules: [(&str, Rule); 5] = [
        ("rule: unsafe in one place", unsafe_code),
        ("rule: dependencies of the no_std crates", dependencies),
        ("rule: top-level entries", top_level),
        ("rule: at most 6 arguments", arguments),
        ("rule: nothing unfinished", unfinished),
    ];
    let step = |(name, rule): (&str, Rule)| Step {
        name: name.into(),
        needs: Vec::new(),
        action: Action::Rule(Box::new(move || {
            let complaints = rule(workspace::root());
            if complaints.is_empty() { Ok(()) } else { Err(complaints) }
        })),
    };
    rules.into_iter().map(step).collect()
}

/// Unsafe code stands in one folder. Tests and firmware are not looked at: a counting allocator and a vector
/// table cannot do without.
fn unsafe_code(root: &Path) -> Vec<String> {
    let mut complaints = Vec::new();
    for folder in ["kfac-linalg/src", "kfac-core/src", "kfac-train/src", "xtask/src", "xtask/bench/src"] {
        for path in files_below(&root.join(folder), &["rs"]) {
            let name = relative(root, &path);
            if Path::new(&name).starts_with(UNSAFE_FOLDER) || name == UNSAFE_PEER {
                continue;
            }
            let code = code_only(&read(&path));
            complaints.extend(lines_with_word(&code, "unsafe").map(|line| {
                format!("{name}:{line}: unsafe code; move it behind a safe function in {UNSAFE_FOLDER}")
            }));
        }
    }
    for name in FORBIDS_UNSAFE {
        if !code_only(&read(&root.join(name))).contains("#![forbid(unsafe_code)]") {
            complaints.push(format!("{name}: add `#![forbid(unsafe_code)]`"));
        }
    }
    complaints
}

fn dependencies(_root: &Path) -> Vec<String> {
    let metadata = match Metadata::read() {
        Ok(metadata) => metadata,
        Err(sentence) => return vec![sentence],
    };
    let mut complaints = Vec::new();
    for (package, allowed) in ALLOWED_DEPENDENCIES {
        let Some(dependencies) = metadata.dependencies(package) else {
            complaints.push(format!("{package}: cargo metadata does not know it; restore it in Cargo.toml"));
            continue;
        };
        let foreign = dependencies.iter().filter(|name| !allowed.contains(&name.as_str()));
        complaints.extend(foreign.map(|name| {
            let allowed = allowed.join(", ");
            format!(
                "{package} depends on {name}; it may depend on {allowed} only: write the few lines, or move the \
                 code to kfac-train"
            )
        }));
    }
    complaints
}

fn top_level(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let there: BTreeSet<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    compare_top_level(&there, &read(&root.join(".gitignore")))
}

fn compare_top_level(there: &BTreeSet<String>, gitignore: &str) -> Vec<String> {
    let ignored: BTreeSet<&str> = gitignore
        .lines()
        .filter_map(|line| line.strip_prefix('/'))
        .map(|name| name.trim_end_matches('/'))
        .collect();
    let allowed: BTreeSet<&str> = TOP_LEVEL.into();
    let extra = there.iter().map(String::as_str).filter(|name| !allowed.contains(name));
    let extra = extra.filter(|name| *name != ".git" && !ignored.contains(name));
    let extra = extra.map(|name| {
        format!(
            "{name}: nothing else lies at the top of the repository; move it into the crate it belongs to, or ignore it in \
             .gitignore"
        )
    });
    let missing = allowed.iter().filter(|name| !there.contains(**name));
    extra.chain(missing.map(|name| format!("{name} is missing; restore it"))).collect()
}

fn arguments(root: &Path) -> Vec<String> {
    let there = read(&root.join("clippy.toml")).lines().any(|line| line.trim() == ARGUMENTS);
    if there { Vec::new() } else { vec![format!("clippy.toml: add the line `{ARGUMENTS}`")] }
}

fn unfinished(root: &Path) -> Vec<String> {
    let marks = UNFINISHED.map(|halves| halves.concat());
    let mut complaints = Vec::new();
    for folder in ["kfac-linalg", "kfac-core", "kfac-train", "xtask", ".ci"] {
        for path in files_below(&root.join(folder), &["rs", "toml", "md", "css", "sh"]) {
            let text = read(&path);
            for mark in &marks {
                complaints.extend(lines_with_word(&text, mark).map(|line| {
                    let name = relative(root, &path);
                    format!("{name}:{line}: {mark}; do it, or open an issue and delete the remark")
                }));
            }
        }
    }
    complaints
}

/// Files with one of these extensions, in the order of their paths; build outputs are passed over.
fn files_below(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut entries: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name() != "target" {
                files.extend(files_below(&path, extensions));
            }
        } else if path.extension().is_some_and(|extension| extensions.iter().any(|e| extension == *e)) {
            files.push(path);
        }
    }
    files
}

/// The text of a file; empty when it cannot be read, which the rules then complain about.
fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::files::tests::Folder;

    fn workspace_with(name: &str, files: &[(&str, &str)]) -> Folder {
        let folder = Folder::new(name);
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn unsafe_code_is_found_outside_its_folder_only() {
        let forbids = "#![forbid(unsafe_code)]";
        let folder = workspace_with(
            "unsafe",
            &[
                ("kfac-linalg/src/arch/avx2.rs", "unsafe fn f() {}"),
                ("kfac-linalg/src/view.rs", "// unsafe\nunsafe fn f() {}"),
                ("kfac-core/src/lib.rs", forbids),
                ("kfac-train/src/lib.rs", "// #![forbid(unsafe_code)]"),
                ("xtask/src/main.rs", forbids),
                ("xtask/bench/src/peers/gemm.rs", "unsafe fn f() {}"),
                ("xtask/bench/src/peers/faer.rs", "unsafe fn f() {}"),
            ],
        );
        let complaints = unsafe_code(folder.path());
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(complaints[0].starts_with("kfac-linalg/src/view.rs:2: unsafe code; move it"));
        assert!(complaints[1].starts_with("xtask/bench/src/peers/faer.rs:1: unsafe code"));
        assert!(complaints[2].starts_with("kfac-train/src/lib.rs: add"));
    }

    #[test]
    fn entries_that_do_not_belong_there_and_entries_that_are_missing_are_named() {
        let mut there: BTreeSet<String> = TOP_LEVEL.map(String::from).into();
        there.extend([".git", "target", "notes.txt"].map(String::from));
        there.remove("README.md");
        let complaints = compare_top_level(&there, "/target\n*.tmp\n");
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(
            complaints[0].starts_with("notes.txt: ") && complaints[1].starts_with("README.md is missing")
        );
    }

    #[test]
    fn unfinished_work_is_found_in_comments_too() {
        let mark = UNFINISHED[0].concat();
        let text = format!("fn f() {{}}\n// {mark}: later\n// METHOD{mark}\n");
        let folder =
            workspace_with("unfinished", &[("kfac-core/src/a.rs", &text), ("xtask/target/b.rs", &text)]);
        let complaints = unfinished(folder.path());
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].starts_with("kfac-core/src/a.rs:2: "));
    }

    #[test]
    fn this_workspace_depends_on_what_it_may() {
        assert_eq!(dependencies(workspace::root()), Vec::<String>::new());
    }
}
