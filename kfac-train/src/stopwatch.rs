//! Time that one run takes, while others run beside it.

use std::time::Duration;

/// What the seconds of a [`Point`](crate::trainer::Point) are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Time that the training thread has spent on a processor, whatever else the machine does.
    Cpu,
    /// Time on the wall, where the system does not tell the other.
    Wall,
}

impl Clock {
    /// The clock of this system.
    pub const HERE: Self = here::CLOCK;

    /// As it is printed.
    pub fn words(self) -> &'static str {
        match self {
            Self::Cpu => "CPU time",
            Self::Wall => "wall time",
        }
    }
}

/// Measures the time of the current thread by [`Clock::HERE`].
#[derive(Debug)]
pub(crate) struct Stopwatch {
    start: Duration,
    total: Duration,
}

impl Stopwatch {
    /// Starts at zero, running. Must be read from the thread that starts it.
    pub(crate) fn start() -> Self {
        Self { start: here::now(), total: Duration::ZERO }
    }

    /// Stops, and returns the seconds so far.
    pub(crate) fn pause(&mut self) -> f64 {
        self.total += here::now().saturating_sub(self.start);
        self.total.as_secs_f64()
    }

    /// Goes on.
    pub(crate) fn resume(&mut self) {
        self.start = here::now();
    }
}

/// Systems that tell a thread its time, to the nanosecond.
#[cfg(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))]
mod here {
    use rustix::time::{ClockId, clock_gettime};
    use std::time::Duration;

    pub(super) const CLOCK: super::Clock = super::Clock::Cpu;

    pub(super) fn now() -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "freebsd")))]
mod here {
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    pub(super) const CLOCK: super::Clock = super::Clock::Wall;

    pub(super) fn now() -> Duration {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        ORIGIN.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn spin(duration: Duration) {
        let start = Instant::now();
        while start.elapsed() < duration {
            std::hint::spin_loop();
        }
    }

    /// Five updates of a small net take less than a tick of the scheduler.
    #[test]
    fn a_time_far_below_a_tick_of_the_scheduler_is_seen() {
        let mut watch = Stopwatch::start();
        let mut last = watch.pause();
        for _ in 0..100 {
            watch.resume();
            spin(Duration::from_micros(20));
            let now = watch.pause();
            // However often the thread was interrupted, some of the work was its own.
            assert!(now > last, "{now} s after {last} s");
            last = now;
        }
    }

    #[cfg(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))]
    #[test]
    fn a_thread_that_sleeps_takes_no_time() {
        let mut watch = Stopwatch::start();
        std::thread::sleep(Duration::from_millis(50));
        assert!(watch.pause() < 0.04 && Clock::HERE == Clock::Cpu);
    }
}
