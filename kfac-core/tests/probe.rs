//! The job of the no-allocator probe, with `std`: its hashes are those that the probe must print.

#[path = "../firmware/probe/src/cases.rs"]
mod cases;
#[path = "../firmware/probe/src/chain.rs"]
#[allow(unreachable_pub)] // It is a module of another program.
mod chain;
#[path = "../firmware/probe/src/job.rs"]
#[allow(unreachable_pub)] // It is a module of another program.
mod job;
#[path = "../firmware/probe/src/tensors.rs"]
#[allow(unreachable_pub)]
mod tensors;

use cases::{for_each_case, for_each_tensor_case};
use chain::chain_room;
use job::{Failed, Room, room};
use kfac_core::linalg::eigh::{Jacobi, Qr};
use kfac_core::map::{ChainLimit, ChainSymmetric, Diagonal, Eigenbasis, Ekfac, Embedding, Factored, Shifted};
use kfac_core::tensor::{BasisRefresh, Shampoo, Soap};
use tensors::tensor_room;

const EXPECTED: &str = include_str!("../firmware/probe/expected.txt");

fn line(name: &str, outcome: Result<u64, Failed>) -> String {
    match outcome {
        Ok(hash) => format!("{name} {hash:016x}\n"),
        Err(failed) => format!("{name}: {}\n", failed.text()),
    }
}

#[test]
fn with_std_the_job_has_the_bits_of_the_program_without_an_allocator() {
    let mut found = String::new();
    macro_rules! run {
        ($name:literal, $float:ty, $type:ty, $map:expr) => {
            found += &line($name, job::run($map, &mut <room!($float, $type)>::new()));
        };
    }
    for_each_case!(run);
    found += &line("tridiagonal-f32", chain::run(&mut <chain_room!(f32)>::new()));
    found += &line("tridiagonal-f64", chain::run(&mut <chain_room!(f64)>::new()));
    macro_rules! run_tensors {
        ($name:literal, $float:ty, $type:ty, $map:expr) => {{
            const MAP: $type = $map;
            let mut room: tensor_room!($float, MAP) = tensors::Room::new();
            found += &line($name, tensors::run(MAP, &mut room));
        }};
    }
    for_each_tensor_case!(run_tensors);
    assert_eq!(found, EXPECTED);
}

/// Memory is used again without being cleared by hand: `new` does that.
#[test]
fn a_second_run_in_the_same_memory_has_the_same_bits() {
    let mut room: room!(f64, Eigenbasis<Jacobi>) = Room::new();
    let [first, second] = [(); 2].map(|()| line("", job::run(Eigenbasis::bounded(3), &mut room)));
    assert_eq!(first, second);
}
