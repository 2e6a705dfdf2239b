//! Confirmable requests a second: weir's `coap_server`, all the way to windows, beside a bare loop on the same library
//! that reads a request and answers it.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use coap_lite::{MessageClass, MessageType, Packet, ResponseType};

use crate::site::{Site, WINDOWS};
use crate::support::pki::Result;
use crate::{Extent, kernel, print, seconds};

/// So many devices ask at a time, each with so many requests on their way.
const DEVICES: usize = 4;
const OUTSTANDING: usize = 16;

/// Each is measured so often, and the fastest run of each counts: what disturbs a run makes it slower.
const RUNS: usize = 3;

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    let requests = extent.requests;
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let site = Site::start(&format!(
        "[sources.field]\ntype = 'coap_server'\nlisten = '127.0.0.1:{port}'\n{WINDOWS}"
    ))?;
    site.agent.wait_for("open source=\"field\"")?;
    let pid = site.agent.id()?.to_string();
    let (mut agent, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        bare.push(echo(requests)?);
        let before = kernel::cpu(&pid)?;
        let time = ask(port, requests)?;
        agent.push((time, kernel::cpu(&pid)? - before));
    }
    let fastest = |runs: Vec<_>| runs.into_iter().min().ok_or("no runs");
    let ((agent, agent_cpu), (bare, bare_cpu)) = (fastest(agent)?, fastest(bare)?);
    let rate = |time: Duration| format!("{:.0}", requests as f64 / time.as_secs_f64());
    print("CoAP: Confirmable requests a second, agent", &rate(agent), "");
    print("  a bare loop that reads and answers them", &rate(bare), "");
    print(
        "  agent to bare loop",
        &format!("{:.2}", bare.as_secs_f64() / agent.as_secs_f64()),
        "at least 0.7",
    );
    print(&format!("{requests} requests: agent's processor time"), &seconds(agent_cpu), "");
    print("  the bare loop's", &seconds(bare_cpu), "");
    Ok(())
}

/// The time, and the loop's processor time.
fn echo(requests: u64) -> Result<(Duration, Duration)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = socket.local_addr()?.port();
    socket.set_nonblocking(true)?;
    let echo = thread::spawn(move || answer(socket, requests));
    let time = ask(port, requests)?;
    Ok((time, echo.join().map_err(|_| "the bare loop panicked")??))
}

fn answer(socket: UdpSocket, requests: u64) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        let before = kernel::cpu("thread-self")?;
        let mut buffer = vec![0; 1500];
        for _ in 0..requests {
            let (length, peer) = socket.recv_from(&mut buffer).await?;
            let request = Packet::from_bytes(&buffer[..length]).map_err(|_| "the bare loop got no CoAP")?;
            let mut answer = Packet::new();
            answer.header.set_version(1);
            answer.header.set_type(MessageType::Acknowledgement);
            answer.header.code = MessageClass::Response(ResponseType::Changed);
            answer.header.message_id = request.header.message_id;
            answer.set_token(request.get_token().to_vec());
            socket.send_to(&answer.to_bytes().map_err(|_| "no answer")?, peer).await?;
        }
        Ok(kernel::cpu("thread-self")? - before)
    })
}

/// How long it takes until all requests are answered with 2.04.
fn ask(port: u16, requests: u64) -> Result<Duration> {
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        devices.push((socket, request(number)));
    }
    let start = Instant::now();
    let ahead = (DEVICES * OUTSTANDING) as u64;
    let mut answer = [0; 64];
    // Each device's requests are numbered, and answered in order.
    for (turn, number) in (0..DEVICES).cycle().zip(0..requests + ahead) {
        let (socket, request) = &mut devices[turn];
        if let Some(asked) = number.checked_sub(ahead) {
            let length = socket.recv(&mut answer)?;
            let [.., high, low] = asked.to_be_bytes();
            if answer[..length].first_chunk() != Some(&[0x64, 0x44, high, low]) {
                return Err(format!("request {asked} was answered {:?}", &answer[..length]).into());
            }
        }
        if number < requests {
            let [.., a, b, c, d] = number.to_be_bytes();
            request[2..8].copy_from_slice(&[c, d, a, b, c, d]);
            socket.send(request)?;
        }
    }
    Ok(start.elapsed())
}

/// A Confirmable POST of flat JSON to a path of its own. Its id is to follow behind the first two bytes, with a token
/// of four bytes (RFC 7252, 3).
fn request(device: usize) -> Vec<u8> {
    let mut request = vec![0x44, 2, 0, 0, 0, 0, 0, 0, 0xB8];
    request.extend(format!("device-{}", device % 10).as_bytes());
    // Content-Format: application/json (50).
    request.extend([0x11, 50, 0xFF]);
    request.extend(b"{\"temperature\":21.54}");
    request
}
