//! Progress of a claim: bars on a terminal, a plain line now and then elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use kfac_train::claims::Progress;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines of the same stage in a log.
const QUIET: Duration = Duration::from_secs(10);

/// Shows one bar per stage on standard error.
pub(crate) struct Bars {
    terminal: bool,
    stage: Mutex<Option<Stage>>,
}

struct Stage {
    name: String,
    runs: usize,
    done: usize,
    begun: Instant,
    printed: Instant,
    bar: Option<ProgressBar>,
}

impl Bars {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), stage: Mutex::new(None) }
    }

    /// Ends the current stage; a plain line takes the place of its bar.
    pub(crate) fn finish(&self) {
        if let Some(Stage { bar: Some(bar), name, runs, done, begun, .. }) = self.lock().take() {
            let last = bar.message();
            bar.finish_and_clear();
            eprintln!("{}", line(&name, [done, runs], begun.elapsed(), &last));
        }
    }

    /// A poisoned lock is taken all the same: the state is a display.
    fn lock(&self) -> MutexGuard<'_, Option<Stage>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Bars {
    fn stage(&self, name: &str, runs: usize) {
        self.finish();
        let now = Instant::now();
        let bar = self.terminal.then(|| bar(name, runs));
        if bar.is_none() {
            eprintln!("  {name}: {runs} run{}", if runs == 1 { "" } else { "s" });
        }
        *self.lock() = Some(Stage { name: name.into(), runs, done: 0, begun: now, printed: now, bar });
    }

    fn run_done(&self, line: &str) {
        let mut guard = self.lock();
        let Some(stage) = guard.as_mut() else { return };
        stage.done += 1;
        if let Some(bar) = &stage.bar {
            bar.set_message(line.to_owned());
            bar.inc(1);
        } else if let Some(text) = stage.plain_line(line, Instant::now()) {
            eprintln!("{text}");
        }
    }
}

impl Stage {
    /// The line for a log, when one is due: after the last run, else not more often than [`QUIET`].
    fn plain_line(&mut self, line: &str, now: Instant) -> Option<String> {
        if self.done < self.runs && now.duration_since(self.printed) < QUIET {
            return None;
        }
        self.printed = now;
        Some(self::line(&self.name, [self.done, self.runs], now.duration_since(self.begun), line))
    }
}

fn line(name: &str, [done, runs]: [usize; 2], elapsed: Duration, last: &str) -> String {
    format!("  {name}: {done}/{runs}, {} s, {last}", elapsed.as_secs())
}

fn bar(name: &str, runs: usize) -> ProgressBar {
    let style =
        ProgressStyle::with_template("  {prefix} [{bar:24}] {pos}/{len} {elapsed_precise} {wide_msg}")
            .expect("the template is a constant")
            .progress_chars("=> ");
    let bar = ProgressBar::new(runs as u64).with_style(style).with_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(runs: usize, begun: Instant) -> Stage {
        Stage { name: "grid".into(), runs, done: 0, begun, printed: begun, bar: None }
    }

    #[test]
    fn a_log_gets_a_line_every_ten_seconds_and_one_at_the_end() {
        let begun = Instant::now();
        let mut stage = stage(3, begun);
        stage.done = 1;
        assert_eq!(stage.plain_line("a", begun + Duration::from_secs(9)), None);
        stage.done = 2;
        let line = stage.plain_line("b", begun + Duration::from_secs(11));
        assert_eq!(line.as_deref(), Some("  grid: 2/3, 11 s, b"));
        stage.done = 3;
        let line = stage.plain_line("c", begun + Duration::from_secs(12));
        assert_eq!(line.as_deref(), Some("  grid: 3/3, 12 s, c"));
    }

    #[test]
    fn runs_may_end_in_several_threads_and_outnumber_the_announcement() {
        let bars = Bars { terminal: false, stage: Mutex::new(None) };
        bars.run_done("no stage yet");
        bars.stage("empty", 0);
        bars.run_done("one too many");
        bars.stage("many", 8);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2).for_each(|_| bars.run_done("ok")));
            }
        });
        assert_eq!(bars.lock().as_ref().map(|stage| stage.done), Some(8));
        bars.finish();
        assert!(bars.lock().is_none());
    }
}
