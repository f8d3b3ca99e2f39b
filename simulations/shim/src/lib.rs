//! The safety net below a simulation: `getrandom` and `clock_gettime` of the C library, defined once more in the
//! executable, so that the linker takes these instead. After [`freeze`] the standard library's `RandomState`, `Instant`
//! and `SystemTime`, and every crate that draws by way of the C library, depend on the seed alone. Before it, both pass on
//! to the kernel.
//!
//! It is a net and not the way: what runs in a simulation is handed its clock and its draws. [`calls`] counts what came
//! past them. It does not know what is simulated. Not caught: a crate that makes the system call itself, and whatever
//! depends on addresses, which the kernel draws anew for each process.
//!
//! All state is in atomics: the C library's functions may be called before `main` and while a thread ends, when there
//! are no thread-locals. The order of draws is that of the calls, so it is determined within one thread only.
//!
//! A frozen reading lies decades past the kernel's own monotonic clock. A wait with a deadline computed from it, such as
//! `Condvar::wait_timeout`, ends when it is notified and in no other way.

#[cfg(not(target_os = "linux"))]
compile_error!("the shim knows the system calls of Linux only");

use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What the clocks show after [`freeze`], until [`set_now`]: the start of 2026, in nanoseconds.
pub const FROZEN_AT: u64 = 1_767_225_600 * 1_000_000_000;

const NANOSECONDS: u64 = 1_000_000_000;
/// What splitmix64 adds to its state for each draw.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

static FROZEN: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0);
static NOW: AtomicU64 = AtomicU64::new(FROZEN_AT);
static RANDOM_CALLS: AtomicU64 = AtomicU64::new(0);
static CLOCK_CALLS: AtomicU64 = AtomicU64::new(0);

/// How often the overridden functions were called after [`freeze`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// Calls of `getrandom`.
    pub random: u64,
    /// Calls of `clock_gettime` for a clock that stands still.
    pub clock: u64,
}

/// Makes this process depend on the seed from here on; a second call starts the draws over from another seed. The clocks
/// show [`FROZEN_AT`] and the counts are zero.
///
/// `RandomState` draws its keys once per thread: what a thread drew before, it keeps.
pub fn freeze(seed: u64) {
    RANDOM.store(seed, Ordering::SeqCst);
    NOW.store(FROZEN_AT, Ordering::SeqCst);
    RANDOM_CALLS.store(0, Ordering::SeqCst);
    CLOCK_CALLS.store(0, Ordering::SeqCst);
    FROZEN.store(true, Ordering::SeqCst);
}

/// What every clock shows from now on: nanoseconds since the Unix epoch, for `Instant` as well. It moves only by this.
pub fn set_now(nanoseconds: u64) {
    NOW.store(nanoseconds, Ordering::SeqCst);
}

/// How often the overridden functions were called since [`freeze`].
pub fn calls() -> Calls {
    Calls { random: RANDOM_CALLS.load(Ordering::SeqCst), clock: CLOCK_CALLS.load(Ordering::SeqCst) }
}

/// Whether the process is frozen and the standard library reads the frozen clocks. A linker that left this crate's
/// functions out would show here. The look itself is not counted.
pub fn takes_effect() -> bool {
    let counted = calls();
    let now = NOW.load(Ordering::SeqCst);
    let still = Instant::now() == Instant::now();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|since| since.as_nanos() == u128::from(now));
    CLOCK_CALLS.store(counted.clock, Ordering::SeqCst);
    FROZEN.load(Ordering::SeqCst) && still && wall
}

/// The next eight bytes (splitmix64).
fn draw() -> [u8; 8] {
    let mut mixed = RANDOM.fetch_add(GAMMA, Ordering::SeqCst).wrapping_add(GAMMA);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).to_le_bytes()
}

/// The C library's `getrandom`: fills the buffer, and returns how many bytes it filled or -1 with `errno`.
///
/// # Safety
/// `buffer` is valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    if !FROZEN.load(Ordering::SeqCst) {
        // SAFETY: the system call has the same contract as this function, which its caller keeps.
        let filled = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return filled as isize;
    }
    RANDOM_CALLS.fetch_add(1, Ordering::SeqCst);
    let mut filled = 0;
    while filled < length {
        let bytes = draw();
        let part = bytes.len().min(length - filled);
        // SAFETY: `filled` is below `length`, so this stays within the buffer.
        let to = unsafe { buffer.cast::<u8>().add(filled) };
        // SAFETY: `part` bytes from `to` on lie within the buffer, which is not on this stack frame.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, part) };
        filled += part;
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// The C library's `clock_gettime`: writes what the clock shows, and returns 0, or -1 with `errno`. Clocks of the
/// processor pass on to the kernel also in a frozen process.
///
/// # Safety
/// `time` is valid for writes of a `timespec`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let stands = matches!(
        clock,
        libc::CLOCK_REALTIME
            | libc::CLOCK_REALTIME_COARSE
            | libc::CLOCK_MONOTONIC
            | libc::CLOCK_MONOTONIC_RAW
            | libc::CLOCK_MONOTONIC_COARSE
            | libc::CLOCK_BOOTTIME
            | libc::CLOCK_TAI
    );
    if !stands || !FROZEN.load(Ordering::SeqCst) {
        // SAFETY: the system call has the same contract as this function, which its caller keeps.
        let outcome = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
        return outcome as c_int;
    }
    CLOCK_CALLS.fetch_add(1, Ordering::SeqCst);
    let now = NOW.load(Ordering::SeqCst);
    let reading =
        libc::timespec { tv_sec: (now / NANOSECONDS) as libc::time_t, tv_nsec: (now % NANOSECONDS) as libc::c_long };
    // SAFETY: the caller hands in a place for a `timespec`.
    unsafe { time.write(reading) };
    0
}
