//! The job under `Factored` alone: a program links the one map that it names, and no eigensolver. See `main.rs` for
//! the check.
#![no_std]
#![no_main]

#[path = "../host.rs"]
mod host;
#[path = "../job.rs"]
mod job;

use core::ffi::c_int;
use job::{Room, room};
use kfac_core::map::Factored;

static mut ROOM: room!(f32, Factored) = Room::new();

/// What the C runtime calls.
// SAFETY: no other function of this program is called `main`.
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    let room = &raw mut ROOM;
    // SAFETY: there is one thread, it comes here once, and nothing else names this static.
    let room = unsafe { &mut *room };
    host::print("factored-f32", job::run(Factored, room))
}
