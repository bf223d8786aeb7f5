//! The job of the no-allocator probe, with `std`: its hashes are those that the probe must print.

#[path = "../firmware/probe/src/job.rs"]
#[allow(unreachable_pub)] // It is a module of another program.
mod job;

use job::{Eigenbasis32, Eigenbasis64, Factored32, Factored64, Failed};
use kfac_core::map::{Eigenbasis, Factored};

const EXPECTED: &str = include_str!("../firmware/probe/expected.txt");

fn line(name: &str, outcome: Result<u64, Failed>) -> String {
    match outcome {
        Ok(hash) => format!("{name} {hash:016x}\n"),
        Err(failed) => format!("{name}: {}\n", failed.text()),
    }
}

#[test]
fn with_std_the_job_has_the_bits_of_the_program_without_an_allocator() {
    let found = [
        line("factored-f32", job::run(Factored, &mut Factored32::new())),
        line("factored-f64", job::run(Factored, &mut Factored64::new())),
        line("eigenbasis-f32", job::run(Eigenbasis::bounded(3), &mut Eigenbasis32::new())),
        line("eigenbasis-f64", job::run(Eigenbasis::bounded(3), &mut Eigenbasis64::new())),
    ];
    assert_eq!(found.concat(), EXPECTED);
}

/// Memory is used again without being cleared by hand: `new` does that.
#[test]
fn a_second_run_in_the_same_memory_has_the_same_bits() {
    let mut room = Eigenbasis64::new();
    let [first, second] = [(); 2].map(|()| line("", job::run(Eigenbasis::bounded(3), &mut room)));
    assert_eq!(first, second);
}
