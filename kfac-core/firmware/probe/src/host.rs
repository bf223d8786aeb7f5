//! What a program without `std` takes from the host's C library: printing a line, and stopping.

use crate::job::Failed;
use core::ffi::{c_char, c_int};

#[link(name = "c")]
unsafe extern "C" {
    fn printf(format: *const c_char, ...) -> c_int;
    fn abort() -> !;
}

/// Prints `name hash`; an error as a line of its own, and as a status that is not 0.
pub fn print(name: &str, outcome: Result<u64, Failed>) -> c_int {
    let (len, text) = (name.len() as c_int, name.as_ptr());
    match outcome {
        Ok(hash) => {
            // SAFETY: the format is nul-terminated; `%.*s` reads `len` bytes of a live string, `%016llx` takes the
            // 64-bit integer that is passed.
            unsafe { printf(c"%.*s %016llx\n".as_ptr(), len, text, hash) };
            0
        }
        Err(failed) => {
            let (error_len, error) = (failed.text().len() as c_int, failed.text().as_ptr());
            // SAFETY: as above, for two strings.
            unsafe { printf(c"%.*s: %.*s\n".as_ptr(), len, text, error_len, error) };
            1
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: `abort` takes nothing and does not return.
    unsafe { abort() }
}

/// The name that the precompiled `core` was built to refer to. Panics abort, so nobody calls it.
// SAFETY: `std`, which would define this symbol, is not part of the program.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
