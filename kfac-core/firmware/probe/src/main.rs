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
//! nm factored_only | grep -E 'jacobi.*(cold|warm|sweep)'
//! # Prints something: the line above would have found it.
//! nm probe | grep -E 'jacobi.*(cold|warm|sweep)'
//! ```
#![no_std]
#![no_main]

mod host;
mod job;

use core::ffi::c_int;
use job::{Eigenbasis32, Eigenbasis64, Factored32, Factored64};
use kfac_core::map::{Eigenbasis, Factored};

static mut FACTORED_32: Factored32 = Factored32::new();
static mut FACTORED_64: Factored64 = Factored64::new();
static mut EIGENBASIS_32: Eigenbasis32 = Eigenbasis32::new();
static mut EIGENBASIS_64: Eigenbasis64 = Eigenbasis64::new();

/// What the C runtime calls.
// SAFETY: no other function of this program is called `main`.
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    let (factored_32, factored_64) = (&raw mut FACTORED_32, &raw mut FACTORED_64);
    let (eigenbasis_32, eigenbasis_64) = (&raw mut EIGENBASIS_32, &raw mut EIGENBASIS_64);
    // SAFETY: there is one thread, it comes here once, and nothing else names these statics.
    let (factored_32, factored_64, eigenbasis_32, eigenbasis_64) =
        unsafe { (&mut *factored_32, &mut *factored_64, &mut *eigenbasis_32, &mut *eigenbasis_64) };
    host::print("factored-f32", job::run(Factored, factored_32))
        | host::print("factored-f64", job::run(Factored, factored_64))
        | host::print("eigenbasis-f32", job::run(Eigenbasis::bounded(3), eigenbasis_32))
        | host::print("eigenbasis-f64", job::run(Eigenbasis::bounded(3), eigenbasis_64))
}
