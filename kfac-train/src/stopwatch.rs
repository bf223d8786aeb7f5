//! Time that one run takes, while others run beside it.

use std::time::Instant;

/// Measures the CPU time of the current thread where the system tells it, and wall time elsewhere.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    start: Reading,
    total: f64,
}

#[derive(Clone, Copy, Debug)]
enum Reading {
    Cpu(f64),
    Wall(Instant),
}

impl Stopwatch {
    /// Starts at zero, running. Must be read from the thread that starts it.
    pub(crate) fn start() -> Self {
        Self { start: Reading::now(), total: 0.0 }
    }

    /// Stops, and returns the seconds so far.
    pub(crate) fn pause(&mut self) -> f64 {
        self.total += self.start.seconds_until_now();
        self.total
    }

    /// Goes on.
    pub(crate) fn resume(&mut self) {
        self.start = Reading::now();
    }
}

impl Reading {
    fn now() -> Self {
        thread_seconds().map_or_else(|| Self::Wall(Instant::now()), Self::Cpu)
    }

    fn seconds_until_now(self) -> f64 {
        match (self, Self::now()) {
            (Self::Cpu(start), Self::Cpu(end)) => end - start,
            (Self::Wall(start), _) => start.elapsed().as_secs_f64(),
            (Self::Cpu(_), Self::Wall(_)) => 0.0,
        }
    }
}

/// CPU seconds of this thread, as Linux counts them: nanoseconds on a processor, the first number of the file.
fn thread_seconds() -> Option<f64> {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds as f64 * 1e-9)
}
