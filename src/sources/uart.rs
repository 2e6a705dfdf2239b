//! What the driver of a serial port does beside reading and writing: <linux/serial.h>, <linux/tty_flags.h>. A
//! pseudo-terminal does none of it.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use serde::Deserialize;

use crate::units;

/// `struct serial_struct`.
#[repr(C)]
struct Serial {
    kind: i32,
    line: i32,
    port: u32,
    irq: i32,
    flags: i32,
    xmit_fifo_size: i32,
    custom_divisor: i32,
    baud_base: i32,
    close_delay: u16,
    io_type: i8,
    reserved: i8,
    hub6: i32,
    closing_wait: u16,
    closing_wait2: u16,
    iomem_base: usize,
    iomem_reg_shift: u16,
    port_high: u32,
    iomap_base: libc::c_ulong,
}

/// `struct serial_rs485`.
#[repr(C)]
#[derive(Debug, Default)]
struct SerialRs485 {
    flags: u32,
    delay_rts_before_send: u32,
    delay_rts_after_send: u32,
    padding: [u32; 5],
}

/// `struct serial_icounter_struct`, whose counts may pass the end of an `int`.
#[repr(C)]
#[derive(Default)]
struct Counter {
    /// CTS, DSR, RNG, DCD, bytes received and sent.
    others: [u32; 6],
    frame: u32,
    overrun: u32,
    parity: u32,
    brk: u32,
    buf_overrun: u32,
    reserved: [u32; 9],
}

const ASYNC_LOW_LATENCY: i32 = 1 << 13;

const SER_RS485_ENABLED: u32 = 1;
const SER_RS485_RTS_ON_SEND: u32 = 1 << 1;
const SER_RS485_RTS_AFTER_SEND: u32 = 1 << 2;

/// How RTS switches the direction of an RS-485 line, and what stands between that and the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rs485 {
    /// The level of RTS while sending.
    pub rts_on_send: bool,
    /// And behind it.
    pub rts_after_send: bool,
    /// From RTS to the first byte, at most 100 ms.
    #[serde(deserialize_with = "units::duration")]
    pub delay_before_send: Duration,
    /// From the last byte to RTS, at most 100 ms.
    #[serde(deserialize_with = "units::duration")]
    pub delay_after_send: Duration,
}

impl Default for Rs485 {
    fn default() -> Self {
        Self {
            rts_on_send: true,
            rts_after_send: false,
            delay_before_send: Duration::ZERO,
            delay_after_send: Duration::ZERO,
        }
    }
}

/// The kernel allows no more.
const MAX_DELAY: Duration = Duration::from_millis(100);

impl Rs485 {
    /// What is wrong across keys, as (key, what and what to do).
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.rts_on_send == self.rts_after_send {
            let text =
                "`rts_after_send` is `rts_on_send`: the direction would never change, so change one of them";
            problems.push(("rs485.rts_after_send", text.to_owned()));
        }
        for (key, name, delay) in [
            ("rs485.delay_before_send", "delay_before_send", self.delay_before_send),
            ("rs485.delay_after_send", "delay_after_send", self.delay_after_send),
        ] {
            if delay > MAX_DELAY {
                problems.push((key, format!("`{name}` must be at most {}", units::show(MAX_DELAY))));
            }
        }
        problems
    }
}

/// Has the driver hand over bytes as they come, not when its timer ends.
pub(super) fn set_low_latency(port: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: it is plain data, for which all zeroes is valid.
    #[expect(unsafe_code, reason = "no safe wrapper of TIOCGSERIAL is in the tree")]
    let mut serial: Serial = unsafe { std::mem::zeroed() };
    call(port, libc::TIOCGSERIAL, &mut serial)?;
    serial.flags |= ASYNC_LOW_LATENCY;
    call(port, libc::TIOCSSERIAL, &mut serial)
}

/// Has the driver switch the line's direction by RTS.
pub(super) fn set_rs485(port: &impl AsRawFd, rs485: &Rs485) -> io::Result<()> {
    let flag = |set, flag| if set { flag } else { 0 };
    let ms = |delay: Duration| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
    let mut rs485 = SerialRs485 {
        flags: SER_RS485_ENABLED
            | flag(rs485.rts_on_send, SER_RS485_RTS_ON_SEND)
            | flag(rs485.rts_after_send, SER_RS485_RTS_AFTER_SEND),
        delay_rts_before_send: ms(rs485.delay_before_send),
        delay_rts_after_send: ms(rs485.delay_after_send),
        ..SerialRs485::default()
    };
    call(port, libc::TIOCSRS485, &mut rs485)
}

/// What went wrong on a line since its driver counts, each modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Errors {
    /// Bytes that came faster than the hardware, or the kernel, was read.
    pub(super) overruns: u32,
    /// Characters with a wrong parity or stop bit, and breaks.
    pub(super) damaged: u32,
}

impl Errors {
    /// What has come since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            overruns: self.overruns.wrapping_sub(before.overruns),
            damaged: self.damaged.wrapping_sub(before.damaged),
        }
    }
}

/// `None` where the driver does not count.
pub(super) fn errors(port: &impl AsRawFd) -> Option<Errors> {
    let mut counter = Counter::default();
    call(port, libc::TIOCGICOUNT, &mut counter).ok()?;
    let sum = |counts: &[u32]| counts.iter().fold(0, |sum: u32, count| sum.wrapping_add(*count));
    Some(Errors {
        overruns: sum(&[counter.overrun, counter.buf_overrun]),
        damaged: sum(&[counter.frame, counter.parity, counter.brk]),
    })
}

/// `T` must be what `request` reads or writes.
fn call<T>(port: &impl AsRawFd, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: each request above is called with the struct that <linux/serial.h> says, all of whose bit patterns are
    // valid, and which outlives the call.
    #[expect(unsafe_code, reason = "no safe wrapper of these requests is in the tree")]
    let result = unsafe { libc::ioctl(port.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structs_have_the_sizes_that_the_kernel_copies() {
        let pointer = size_of::<usize>();
        assert_eq!(size_of::<Serial>(), if pointer == 8 { 72 } else { 60 });
        assert_eq!(size_of::<SerialRs485>(), 32);
        assert_eq!(size_of::<Counter>(), 80);
    }

    #[test]
    fn what_came_since_is_right_over_the_counters_end() {
        let before = Errors { overruns: u32::MAX, damaged: 5 };
        let now = Errors { overruns: 1, damaged: 5 };
        assert_eq!(now.since(before), Errors { overruns: 2, damaged: 0 });
    }

    #[test]
    fn what_is_no_port_says_so() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(set_low_latency(&file).is_err() && errors(&file).is_none());
        assert!(set_rs485(&file, &Rs485::default()).is_err());
    }
}
