//! How many files may be open. A connection is one.

use std::io;
use std::mem;

/// So many are left for everything else: the broker, the buffer, other sources.
pub(super) const SPARE: u64 = 64;

/// Takes as many as the system lets us have, and gives that number.
pub(super) fn most() -> u64 {
    let mut limit = match limit() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "how many files may be open is not known");
            return u64::MAX;
        }
    };
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: `raised` outlives the call, which only reads it.
        #[expect(unsafe_code, reason = "no safe wrapper of setrlimit is in the tree")]
        let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
        // Where that is forbidden, what there is has to do.
        if result == 0 {
            limit = raised;
        }
    }
    // On a 32-bit system it is a smaller number.
    #[allow(clippy::useless_conversion, reason = "it is none there")]
    limit.rlim_cur.into()
}

fn limit() -> io::Result<libc::rlimit> {
    // SAFETY: zeroes are a valid `rlimit`, which the kernel writes and which outlives the call.
    #[expect(unsafe_code, reason = "no safe wrapper of getrlimit is in the tree")]
    unsafe {
        let mut limit: libc::rlimit = mem::zeroed();
        match libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) {
            0 => Ok(limit),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
