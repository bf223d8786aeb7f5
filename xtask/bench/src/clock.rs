//! The clock: CPU time of this thread, which stays on one CPU.
//!
//! CPU time rather than the wall clock, because a benchmark is seldom alone on its machine: while the scheduler
//! runs somebody else, this clock stands still. Nothing is hidden by it, since every contender works on the calling
//! thread alone and waits for nothing. It cannot see what others do to caches, memory and clock rates; taking turns
//! is for that.

use std::fmt;
use std::time::Duration;

/// Where the thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On this CPU only.
    Pinned(usize),
    /// Wherever the operating system puts it, which could not be changed.
    Free,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned(cpu) => write!(f, "pinned to CPU {cpu}"),
            Self::Free => f.write_str("not pinned"),
        }
    }
}

/// Keeps the calling thread on one CPU: the last one allowed, since interrupts prefer the first.
#[cfg(target_os = "linux")]
pub fn pin() -> Placement {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return Placement::Free };
    let Some(cpu) = (0..CpuSet::MAX_CPU).rev().find(|&cpu| allowed.is_set(cpu)) else {
        return Placement::Free;
    };
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).map_or(Placement::Free, |()| Placement::Pinned(cpu))
}

/// Other systems have no such call.
#[cfg(not(target_os = "linux"))]
pub fn pin() -> Placement {
    Placement::Free
}

/// CPU time of the calling thread since it began.
pub fn now() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).expect("a timespec is normalised");
    Duration::new(u64::try_from(time.tv_sec).expect("CPU time is not negative"), nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn a_sleeping_thread_uses_no_time_and_a_working_one_does() {
        let start = now();
        std::thread::sleep(Duration::from_millis(50));
        let asleep = now() - start;
        assert!(asleep < Duration::from_millis(25), "{asleep:?}");
        let start = now();
        black_box((0..black_box(10_000_000_u64)).fold(0, |sum, x| black_box(sum ^ x)));
        assert!(now() - start > Duration::from_millis(1));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_pinned_thread_may_run_on_one_cpu() {
        std::thread::spawn(|| {
            assert!(matches!(pin(), Placement::Pinned(_)));
            assert_eq!(rustix::thread::sched_getaffinity(None).unwrap().count(), 1);
        })
        .join()
        .unwrap();
    }
}
