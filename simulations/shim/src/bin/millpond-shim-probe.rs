//! Shows what a process sees of randomness and clocks: `millpond-shim-probe free`, or `frozen SEED`. The tests of the
//! shim run it, since a process cannot be thawed. It prints one fact a line, `name value`.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["free"] => {}
        ["frozen", seed] => {
            let Ok(seed) = seed.parse() else { return ExitCode::from(2) };
            millpond_shim::freeze(seed);
        }
        _ => return ExitCode::from(2),
    }
    show();
    ExitCode::SUCCESS
}

fn show() {
    println!("effect {}", millpond_shim::takes_effect());
    println!("named {}", named());
    let map: HashMap<u32, ()> = (0..64).map(|key| (key, ())).collect();
    println!("order {:?}", map.keys().collect::<Vec<_>>());
    let elsewhere = std::thread::spawn(|| (0..64).collect::<std::collections::HashSet<u32>>());
    println!("elsewhere {:?}", elsewhere.join().expect("collecting numbers does not panic").iter().collect::<Vec<_>>());
    let began = Instant::now();
    let mut processor = processor_time();
    // Work until the processor's clock, which never stands still, has moved.
    let worked = (0..1_000_000).any(|_| std::mem::replace(&mut processor, processor_time()) != processor);
    println!("processor {worked}");
    println!("elapsed {}", began.elapsed().as_nanos());
    println!("wall {}", wall());
    millpond_shim::set_now(millpond_shim::FROZEN_AT + 5);
    println!("set {} {}", began.elapsed().as_nanos(), wall());
    println!("calls {:?}", millpond_shim::calls());
}

/// Whether `getrandom` looked up by its name, as the crate of that name does, is the shim's.
fn named() -> bool {
    // SAFETY: the name ends in a zero byte, and nothing is called.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"getrandom".as_ptr()) };
    std::ptr::eq(found, millpond_shim::getrandom as *const std::ffi::c_void)
}

fn wall() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

fn processor_time() -> (i64, i64) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for a `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    (time.tv_sec, time.tv_nsec)
}
