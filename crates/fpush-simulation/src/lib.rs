//! Chance and the time of day in the hands of a test, so that the same seed is the same run.
//!
//! On a thread that has called [`begin`], libc's `getrandom` draws from a generator with a seed, and its wall clock
//! goes with tokio's, which a test may have paused. So keys of hash tables, ids, jitter and the order in which `select!`
//! polls are the seed's too, in all crates, without a line in the program. Other threads notice nothing.

#![cfg(target_os = "linux")]

use std::{
    cell::Cell,
    ffi::{c_int, c_long, c_uint, c_void},
};

use tokio::time::Instant;

/// What the wall clock says.
#[derive(Clone, Copy)]
enum Wall {
    /// What the machine says.
    Real,
    /// It is stopped, at these milliseconds since 1970.
    Stopped(u64),
    /// It goes with tokio's clock since that said so.
    Goes(Instant, u64),
}

thread_local! {
    // Nothing that has to be made or dropped: all are used while a thread begins and ends.
    static OPERATIONS: Cell<u64> = const { Cell::new(0) };
    static CHANCE: Cell<Option<u64>> = const { Cell::new(None) };
    static WALL: Cell<Wall> = const { Cell::new(Wall::Real) };
}

/// From now on chance has this seed on this thread, and the wall clock is stopped at these milliseconds since 1970. To be
/// called first on a new thread: what was drawn before was drawn.
pub fn begin(seed: u64, millis: u64) {
    CHANCE.set(Some(seed));
    WALL.set(Wall::Stopped(millis));
}

/// The wall clock is stopped at these milliseconds since 1970.
pub fn stop_wall_at(millis: u64) {
    WALL.set(Wall::Stopped(millis));
}

/// The wall clock says this, and goes with tokio's clock from now on. To be called on tokio's runtime.
pub fn set_wall(millis: u64) {
    WALL.set(Wall::Goes(Instant::now(), millis));
}

/// The wall clock is stopped, because the runtime ends. To be called on it.
pub fn stop_wall() {
    if let Some(millis) = wall() {
        WALL.set(Wall::Stopped(millis));
    }
}

fn wall() -> Option<u64> {
    match WALL.try_with(Cell::get).ok()? {
        Wall::Real => None,
        Wall::Stopped(millis) => Some(millis),
        Wall::Goes(since, millis) => {
            let passed = Instant::now().duration_since(since).as_millis();
            Some(millis + u64::try_from(passed).unwrap_or(0))
        }
    }
}

/// How many blocks of code this thread has run so far: what a decision costs, which virtual time does not see, on whichever
/// machine. Always 0, unless the program was compiled so that they are counted, as `cargo xtask simulate` does it.
#[must_use]
pub fn operations() -> u64 {
    OPERATIONS.get()
}

/// Steele, Lea and Flood's `SplitMix64`.
#[must_use]
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// In the place of libc's.
///
/// # Safety
///
/// As libc has it: there are so many bytes at `buffer`.
#[expect(unsafe_code, reason = "it takes the place of a function of libc")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    let Ok(Some(mut state)) = CHANCE.try_with(Cell::get) else {
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize };
    };
    for at in 0..length {
        let byte = split_mix(&mut state) as u8;
        unsafe { buffer.cast::<u8>().add(at).write(byte) };
    }
    CHANCE.set(Some(state));
    length.cast_signed()
}

/// What the compiler has each block of code call, where blocks are counted. This crate is compiled without that.
#[expect(unsafe_code, reason = "the compiler knows it by this name")]
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_pc_guard(_: *mut u32) {
    let _ = OPERATIONS.try_with(|operations| operations.set(operations.get() + 1));
}

/// Called before `main`; there is nothing to prepare.
#[expect(unsafe_code, reason = "the compiler knows it by this name")]
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_pc_guard_init(_: *mut u32, _: *mut u32) {}

/// In the place of libc's.
///
/// # Safety
///
/// As libc has it: `time` can be written to.
#[expect(unsafe_code, reason = "it takes the place of a function of libc")]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let simulated = if clock == libc::CLOCK_REALTIME {
        wall()
    } else {
        None
    };
    match simulated {
        Some(millis) => {
            let spec = libc::timespec {
                tv_sec: (millis / 1_000).cast_signed(),
                tv_nsec: (millis % 1_000 * 1_000_000) as c_long,
            };
            unsafe { time.write(spec) };
            0
        }
        None => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::hash_map::RandomState,
        hash::BuildHasher as _,
        thread,
        time::{Duration, SystemTime},
    };

    use super::*;

    #[test]
    fn chance_and_the_wall_clock_are_those_of_the_test() {
        let drawn = |seed| {
            let draw = move || {
                begin(seed, 5_000);
                let hash = RandomState::new().hash_one("a");
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .start_paused(true)
                    .build()
                    .expect("a runtime");
                runtime.block_on(async {
                    set_wall(7_000);
                    tokio::time::sleep(Duration::from_secs(3)).await;
                    stop_wall();
                });
                drop(runtime);
                let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                (hash, passed.ok())
            };
            thread::spawn(draw).join().expect("it ends")
        };
        let (hash, time) = drawn(1);
        assert_eq!(time, Some(Duration::from_secs(10)));
        assert_eq!(drawn(1).0, hash);
        assert_ne!(drawn(2).0, hash);
        let real = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        assert!(real.is_ok_and(|real| real.as_secs() > 1_000_000_000));
    }
}
