//! What the kernel says of time and of this boot.

use std::fs;
use std::time::Duration;

use crate::model::Timestamp;

/// The wall clock.
pub(super) fn wall() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks")]
    let now = std::time::SystemTime::now();
    let since = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Timestamp(match now.duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => since(after),
        Err(before) => -since(before.duration()),
    })
}

/// How long the machine has been up, suspended or not: the same count for every process, and no step touches it.
#[cfg_attr(
    target_pointer_width = "64",
    expect(clippy::useless_conversion, reason = "it is 32 bits on armv7")
)]
pub(super) fn uptime() -> Option<Duration> {
    // SAFETY: `timespec` is plain data for which all zeroes is valid, and the call only writes into it.
    #[expect(unsafe_code, reason = "no safe wrapper of clock_gettime is in the tree")]
    let (state, time) = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        let state = libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time);
        (state, time)
    };
    let seconds = u64::try_from(i64::from(time.tv_sec)).ok()?;
    let nanos = u32::try_from(i64::from(time.tv_nsec)).ok()?;
    (state == 0).then(|| Duration::new(seconds, nanos))
}

/// The kernel's id of this boot, where it tells one.
pub(super) fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = id.trim_end();
    (!id.is_empty()).then(|| id.to_owned())
}

/// Whether the kernel reports the clock as synchronised: `adjtimex(2)` without `STA_UNSYNC`.
pub(super) fn is_synchronised() -> bool {
    // SAFETY: `timex` is plain data for which all zeroes is valid, and with `modes` 0 the call only writes into it.
    #[expect(unsafe_code, reason = "no safe wrapper of adjtimex is in the tree")]
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        let state = libc::adjtimex(&raw mut timex);
        (state, timex.status)
    };
    state != -1 && status & libc::STA_UNSYNC == 0
}
