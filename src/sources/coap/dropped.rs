use std::mem;
use std::os::fd::AsRawFd;

/// How many datagrams the kernel has dropped at this socket since it was opened, modulo 2^32, mostly because its queue
/// was full (`SK_MEMINFO_DROPS`, Linux 4.12 and newer); `None` where the kernel does not tell.
pub(super) fn dropped(socket: &impl AsRawFd) -> Option<u32> {
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut told = [0_u32; DROPS + 1];
    let mut length = libc::socklen_t::try_from(mem::size_of_val(&told)).ok()?;
    // SAFETY: `told` has the `length` bytes that are said, of which any pattern is an array of u32, and both outlive
    // the call.
    #[expect(unsafe_code, reason = "no safe wrapper of SO_MEMINFO is in the tree")]
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            told.as_mut_ptr().cast(),
            &mut length,
        )
    };
    (result == 0 && length as usize == mem::size_of_val(&told)).then(|| told[DROPS])
}
