//! Two devices in the field that post by CoAP, Confirmable: what is not answered is sent again (RFC 7252, 4.2).

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coap_lite::option_value::OptionValueU16;
use coap_lite::{CoapOption, ContentFormat, MessageClass, MessageType, Packet, RequestType, ResponseType};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Result;
use super::account::Written;

/// How long an answer may take at first, each time twice as long, and how often a request is sent again (RFC 7252, 4.8).
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_RETRANSMIT: u32 = 4;

pub(super) struct Field {
    stop: watch::Sender<bool>,
    devices: JoinSet<Result<(String, u64)>>,
}

impl Field {
    /// Starts them; they post to this port of loopback, and add to `written` what they measure.
    pub(super) fn start(port: u16, written: &Arc<AtomicU64>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut devices = JoinSet::new();
        devices.spawn(garden(port, written.clone(), stopped.clone()));
        devices.spawn(tank(port, written.clone(), stopped));
        Self { stop, devices }
    }

    /// Stops them, once what they have posted is answered. Gives what it was.
    pub(super) async fn stop(mut self) -> Result<Written> {
        self.stop.send_replace(true);
        let mut written = Written::new();
        while let Some(device) = self.devices.join_next().await {
            written.extend([device??]);
        }
        Ok(written)
    }
}

/// Measures its temperature twice a second, and posts it as JSON.
async fn garden(
    port: u16,
    written: Arc<AtomicU64>,
    mut stop: watch::Receiver<bool>,
) -> Result<(String, u64)> {
    let mut device = Device::new(port).await?;
    let mut measured = 0;
    while pause(Duration::from_millis(500), &mut stop).await {
        let temperature = 12.0 + (measured as f64 / 20.0).cos();
        measured += 1;
        written.fetch_add(1, Ordering::Relaxed);
        let payload = format!(r#"{{"temperature":{temperature:.2}}}"#);
        device.post(&["garden"], ContentFormat::ApplicationJSON, &payload).await?;
    }
    Ok(("garden/temperature".to_owned(), measured))
}

/// Measures its level every three seconds, and posts it as plain text.
async fn tank(port: u16, written: Arc<AtomicU64>, mut stop: watch::Receiver<bool>) -> Result<(String, u64)> {
    let mut device = Device::new(port).await?;
    let mut measured = 0;
    while pause(Duration::from_secs(3), &mut stop).await {
        let level = 80 - measured;
        measured += 1;
        written.fetch_add(1, Ordering::Relaxed);
        device.post(&["tank", "level"], ContentFormat::TextPlain, &level.to_string()).await?;
    }
    Ok(("tank/level".to_owned(), measured))
}

/// False where `stop` comes first.
async fn pause(duration: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    timeout(duration, stop.wait_for(|stop| *stop)).await.is_err()
}

struct Device {
    socket: UdpSocket,
    id: u16,
}

impl Device {
    async fn new(port: u16) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
        Ok(Self { socket, id: 0 })
    }

    /// Returns once weir has it.
    async fn post(&mut self, path: &[&str], format: ContentFormat, payload: &str) -> Result<()> {
        loop {
            let answer = self.ask(path, format, payload).await?;
            match answer.header.code {
                MessageClass::Response(ResponseType::Changed) => return Ok(()),
                MessageClass::Response(ResponseType::ServiceUnavailable) => {
                    let max_age = answer.get_first_option_as::<OptionValueU16>(CoapOption::MaxAge);
                    sleep(Duration::from_secs(
                        max_age.and_then(|age| age.ok()).map_or(60, |age| age.0.into()),
                    ))
                    .await;
                }
                code => {
                    let why = String::from_utf8_lossy(&answer.payload);
                    return Err(format!("/{} was refused with {code}: {why}", path.join("/")).into());
                }
            }
        }
    }

    /// One exchange: a request, and its copies as long as there is no answer.
    async fn ask(&mut self, path: &[&str], format: ContentFormat, payload: &str) -> Result<Packet> {
        self.id = self.id.wrapping_add(1);
        let mut request = Packet::new();
        request.header.set_version(1);
        request.header.set_type(MessageType::Confirmable);
        request.header.code = MessageClass::Request(RequestType::Post);
        request.header.message_id = self.id;
        for segment in path {
            request.add_option(CoapOption::UriPath, segment.as_bytes().to_vec());
        }
        request.set_content_format(format);
        request.payload = payload.as_bytes().to_vec();
        let request = request.to_bytes().map_err(|error| format!("no CoAP message: {error:?}"))?;
        for copy in 0..=MAX_RETRANSMIT {
            // An error says that nobody listened to what was sent before. It may come, and is sent again, all the same.
            let _ = self.socket.send(&request).await;
            if let Ok(answer) = timeout(ACK_TIMEOUT * 2_u32.pow(copy), self.answer()).await {
                return Ok(answer);
            }
        }
        Err(format!("/{} has no answer", path.join("/")).into())
    }

    async fn answer(&self) -> Packet {
        let mut buffer = [0; 256];
        loop {
            let Ok(length) = self.socket.recv(&mut buffer).await else { continue };
            match Packet::from_bytes(&buffer[..length]) {
                Ok(answer) if answer.header.message_id == self.id => return answer,
                _ => {}
            }
        }
    }
}
