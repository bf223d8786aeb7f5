//! Progress of a claim: bars on a terminal, a plain line now and then elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use kfac_train::claims::Progress;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines of the same stage in a log.
const QUIET: Duration = Duration::from_secs(10);

/// Shows one bar per stage on standard error, below the name of the stage.
pub(crate) struct Bars {
    terminal: bool,
    stage: Mutex<Option<Stage>>,
}

struct Stage {
    /// Runs that were announced; 0 when nobody knows beforehand.
    runs: usize,
    done: usize,
    begun: Instant,
    /// What the last run said.
    last: String,
    /// When a line was printed last, and for how many runs.
    printed: (Instant, usize),
    bar: Option<ProgressBar>,
}

impl Bars {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), stage: Mutex::new(None) }
    }

    /// Ends the current stage; a plain line takes the place of its bar.
    pub(crate) fn finish(&self) {
        let Some(stage) = self.lock().take() else { return };
        if let Some(bar) = &stage.bar {
            bar.finish_and_clear();
        }
        if stage.printed.1 < stage.done {
            eprintln!("{}", stage.line(Instant::now()));
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
        eprintln!("  {name}");
        *self.lock() = Some(Stage::new(runs, Instant::now(), self.terminal.then(|| bar(runs))));
    }

    fn run_done(&self, line: &str) {
        let mut guard = self.lock();
        let Some(stage) = guard.as_mut() else { return };
        stage.done += 1;
        stage.last = line.to_owned();
        if let Some(bar) = &stage.bar {
            bar.set_message(stage.last.clone());
            bar.inc(1);
        } else if let Some(text) = stage.line_if_due(Instant::now()) {
            eprintln!("{text}");
        }
    }
}

impl Stage {
    fn new(runs: usize, now: Instant, bar: Option<ProgressBar>) -> Self {
        Self { runs, done: 0, begun: now, last: String::new(), printed: (now, 0), bar }
    }

    /// The line for a log, when one is due: after the last run, else not more often than [`QUIET`].
    fn line_if_due(&mut self, now: Instant) -> Option<String> {
        if self.done != self.runs && now.duration_since(self.printed.0) < QUIET {
            return None;
        }
        self.printed = (now, self.done);
        Some(self.line(now))
    }

    fn line(&self, now: Instant) -> String {
        let seconds = now.duration_since(self.begun).as_secs();
        let of = if self.runs == 0 { " runs".to_owned() } else { format!("/{}", self.runs) };
        format!("    {}{of}, {seconds} s, {}", self.done, self.last)
    }
}

fn bar(runs: usize) -> ProgressBar {
    let (bar, template) = match runs {
        0 => (ProgressBar::no_length(), "    {spinner} {pos} runs {elapsed_precise} {wide_msg}"),
        _ => (ProgressBar::new(runs as u64), "    [{bar:24}] {pos}/{len} {elapsed_precise} {wide_msg}"),
    };
    let style =
        ProgressStyle::with_template(template).expect("the templates are constants").progress_chars("=> ");
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gets_a_line_every_ten_seconds_and_one_at_the_end() {
        let begun = Instant::now();
        let mut stage = Stage::new(3, begun, None);
        let mut line_after = |done, seconds, last: &str| {
            (stage.done, stage.last) = (done, last.to_owned());
            stage.line_if_due(begun + Duration::from_secs(seconds))
        };
        assert_eq!(line_after(1, 9, "a"), None);
        assert_eq!(line_after(2, 11, "b").as_deref(), Some("    2/3, 11 s, b"));
        assert_eq!(line_after(3, 12, "c").as_deref(), Some("    3/3, 12 s, c"));
    }

    #[test]
    fn a_stage_of_unknown_length_counts_its_runs_and_is_as_quiet() {
        let begun = Instant::now();
        let mut stage = Stage::new(0, begun, None);
        (stage.done, stage.last) = (7, "a".into());
        assert_eq!(stage.line_if_due(begun + Duration::from_secs(9)), None);
        assert_eq!(stage.line_if_due(begun + QUIET).as_deref(), Some("    7 runs, 10 s, a"));
    }

    #[test]
    fn runs_may_end_in_several_threads_and_outnumber_the_announcement() {
        let bars = Bars { terminal: false, stage: Mutex::new(None) };
        bars.run_done("no stage yet");
        bars.stage("one", 1);
        bars.run_done("the one");
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
