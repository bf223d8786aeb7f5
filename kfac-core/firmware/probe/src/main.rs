//! Runs the job in a program that has no allocator, and prints one hash for each map and number type.
//!
//! The lines must equal `expected.txt`, in debug and in release. `kfac-core/tests/probe.rs` runs the same `job.rs`
//! with `std` against the same file, so the two programs agree to the bit.
//!
//! That nothing allocates is a fact of the link: `std` and `alloc` are not there, and no allocator is defined, so a
//! call of one would not resolve. The symbols say it again, on a host with binutils:
//!
//! ```sh
//! cargo build --release --manifest-path kfac-core/firmware/probe/Cargo.toml
//! cd kfac-core/firmware/probe/target/release
//! # Prints nothing: neither Rust's allocator nor C's.
//! nm probe | grep -E '__rust_(alloc|dealloc|realloc)|__rdl_|\b(malloc|calloc|realloc|free|posix_memalign)\b'
//! # Prints nothing: a map that is not named is not linked.
//! nm factored_only | grep -E '4eigh(6jacobi|2qr)'
//! # Prints something: the line above would have found it.
//! nm probe | grep -E '4eigh(6jacobi|2qr)'
//! ```
#![no_std]
#![no_main]

mod cases;
mod chain;
mod host;
mod job;
mod tensors;

use cases::{for_each_case, for_each_tensor_case};
use chain::chain_room;
use core::ffi::c_int;
use job::{Room, room};
use kfac_core::linalg::eigh::{Jacobi, Qr};
use kfac_core::map::{ChainLimit, ChainSymmetric, Diagonal, Eigenbasis, Ekfac, Embedding, Factored, Shifted};
use kfac_core::tensor::{BasisRefresh, Shampoo, Soap};
use tensors::tensor_room;

/// What the C runtime calls.
// SAFETY: no other function of this program is called `main`.
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    let mut status = 0;
    macro_rules! run {
        ($name:literal, $float:ty, $type:ty, $map:expr) => {{
            static mut ROOM: room!($float, $type) = Room::new();
            // SAFETY: there is one thread, it comes here once, and nothing else names this static.
            let room = unsafe { &mut *&raw mut ROOM };
            status |= host::print($name, job::run($map, room));
        }};
    }
    for_each_case!(run);
    macro_rules! run_chain {
        ($name:literal, $float:ty) => {{
            static mut ROOM: chain_room!($float) = chain::Room::new();
            // SAFETY: as above.
            let room = unsafe { &mut *&raw mut ROOM };
            status |= host::print($name, chain::run(room));
        }};
    }
    run_chain!("tridiagonal-f32", f32);
    run_chain!("tridiagonal-f64", f64);
    macro_rules! run_tensors {
        ($name:literal, $float:ty, $type:ty, $map:expr) => {{
            const MAP: $type = $map;
            static mut ROOM: tensor_room!($float, MAP) = tensors::Room::new();
            // SAFETY: as above.
            let room = unsafe { &mut *&raw mut ROOM };
            status |= host::print($name, tensors::run(MAP, room));
        }};
    }
    for_each_tensor_case!(run_tensors);
    status
}
