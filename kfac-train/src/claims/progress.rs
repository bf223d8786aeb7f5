//! How a claim tells whoever waits for it how far it is.

/// Receives progress while a claim runs, possibly from several threads at once.
pub trait Progress: Sync {
    /// A stage begins that consists of `runs` runs.
    fn stage(&self, name: &str, runs: usize);
    /// One run of the current stage has ended; `line` says how, in a few words.
    fn run_done(&self, line: &str);
}

/// Reports nothing: for tests.
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _name: &str, _runs: usize) {}
    fn run_done(&self, _line: &str) {}
}
