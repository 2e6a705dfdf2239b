//! Ten thousand devices that are connected by TCP: at rest, and each with a reading a second.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::kernel::{self, Memory};
use crate::site::{Site, WINDOWS};
use crate::support::files;
use crate::support::pki::Result;
use crate::{Extent, load, mega, print};

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    let count = extent.connections;
    files::at_least(count as u64 + 100)?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let site = Site::start(&format!(
        "[sources.field]\ntype = 'tcp'\nlisten = '127.0.0.1:{port}'\nmax_connections = {count}\n\
         decode = {{ type = 'json', device = 'dev' }}\n{WINDOWS}"
    ))?;
    site.agent.wait_for("open source=\"field\"")?;
    let pid = site.agent.id()?;
    thread::sleep(extent.settle);
    let before = Memory::of(pid)?;

    let start = Instant::now();
    let mut devices = Vec::new();
    for _ in 0..count {
        devices.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?);
    }
    while fs::read_dir(format!("/proc/{pid}/fd"))?.count() < count {
        thread::sleep(Duration::from_millis(10));
    }
    let connected = start.elapsed();
    thread::sleep(extent.settle);
    let (wakeups, resting) = (kernel::wakeups(pid)?, kernel::cpu(&pid.to_string())?);
    thread::sleep(extent.watch / 2);
    let wakeups = kernel::wakeups(pid)? - wakeups;
    let resting = kernel::cpu(&pid.to_string())? - resting;
    let idle = Memory::of(pid)?;
    let each = idle.resident.saturating_sub(before.resident) / count as u64;
    print(&format!("{count} connections: taken within"), &crate::seconds(connected), "");
    print("  resident memory of one at rest", &format!("{each} B"), "at most 4096 B");
    let seconds = (extent.watch / 2).as_secs_f64();
    print("  wake-ups a second, all at rest", &format!("{:.2}", wakeups as f64 / seconds), "at most 5");
    let share =
        |cpu: Duration, time: Duration| format!("{:.2} %", 100.0 * cpu.as_secs_f64() / time.as_secs_f64());
    print("  share of a processor, all at rest", &share(resting, extent.watch / 2), "");

    for (names, whose) in [(100, "of 100 devices"), (count, "each of its own device")] {
        // Its series are there and its windows have been sent once, before it is watched.
        write_for(&mut devices, Duration::from_secs(12).min(extent.watch), names)?;
        let cpu = kernel::cpu(&pid.to_string())?;
        let time = write_for(&mut devices, extent.watch / 2, names)?;
        let cpu = kernel::cpu(&pid.to_string())? - cpu;
        print(&format!("{count} connections, a reading a second {whose}"), &share(cpu, time), "");
        load::print_memory("  the same", &Memory::of(pid)?, "");
    }
    print("  before the connections", &mega(before.resident), "");
    Ok(())
}

/// Each of `devices` writes a line every second, a hundredth of them every 10 ms, under one of so many `names`. Gives the
/// time that it took, which is more where this program cannot keep up.
fn write_for(devices: &mut [TcpStream], time: Duration, names: usize) -> Result<Duration> {
    const EVERY: Duration = Duration::from_millis(10);
    let start = Instant::now();
    for beat in 0.. {
        let due = EVERY * beat;
        if due >= time {
            break;
        }
        thread::sleep((start + due).saturating_duration_since(Instant::now()));
        let turn = beat as usize % 100;
        for (number, device) in devices.iter_mut().enumerate().skip(turn).step_by(100) {
            let name = number % names;
            let line =
                format!("{{\"dev\":\"device-{name:05}\",\"temperature\":{}.{turn:02}}}\n", number % 30);
            device.write_all(line.as_bytes())?;
        }
    }
    Ok(start.elapsed())
}
