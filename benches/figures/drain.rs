//! How fast a backlog leaves: outbox, `forward` and the MQTT uplink into a real mosquitto, with QoS 1 and 64 in flight,
//! beside a bare loop of rumqttc's client that publishes payloads of the same size. That loop speaks plain TCP, as
//! rumqttc is built without TLS here; the agent is measured over mutual TLS and, for like beside like, without.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use weir::clock::{self, Clock, Trust};
use weir::encode::Format;
use weir::model::Id;
use weir::outbox::{self, Opened, Outbox, Replay};
use weir::pipeline::forward::{self, Forward};
use weir::pipeline::stop::stop;
use weir::uplink::{self, AnyUplink, mqtt};

use crate::backlog::window;
use crate::support::mosquitto::Mosquitto;
use crate::support::pki::{Authority, Result, Valid};
use crate::{Extent, kernel, print, seconds, site};

const DEVICES: usize = 100;
const GATEWAY: &str = "gw-042";
const IN_FLIGHT: u16 = 64;

/// Each is measured so often, by turns, and the fastest run of each counts: what disturbs a run makes it slower.
const RUNS: usize = 3;

/// How long it took, and the processor's time in it: this process's, without the broker's.
type Taken = (Duration, Duration);

pub(crate) fn measure(extent: &Extent) -> Result<()> {
    let count = extent.drains;
    let dir = site::directory()?;
    let authority = Authority::new("CA")?;
    let server = authority.server(&["localhost"], Valid::Now)?.write(dir.path(), "server", &authority)?;
    let client = authority.client(GATEWAY, Valid::Now)?.write(dir.path(), "client", &authority)?;
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let extra = format!("max_inflight_messages {IN_FLIGHT}\nlistener {plain} 127.0.0.1\n");
    let mut broker = Mosquitto::start(dir.path(), &server, &extra)?;
    broker.quieten()?;
    broker.stop()?;
    broker.restart()?;
    let tls = format!(
        "url = 'mqtts://localhost:{}'\ntls = {{ ca = '{}', cert = '{}', key = '{}' }}\n",
        broker.port(),
        client.ca.display(),
        client.cert.display(),
        client.key.display(),
    );
    let no_tls = format!("url = 'mqtt://127.0.0.1:{plain}'\n");
    let (mut mutual, mut open, mut bares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        mutual.push(agent(&tls, count)?);
        open.push(agent(&no_tls, count)?);
        bares.push(bare(plain, count)?);
    }
    let fastest = |runs: Vec<Taken>| runs.into_iter().min().ok_or("no runs");
    let (mutual, open, bare) = (fastest(mutual)?, fastest(open)?, fastest(bares)?);
    for (what, taken) in [
        (format!("{count} messages drained, mutual TLS: a second"), mutual),
        ("  without TLS: a second".to_owned(), open),
        ("  a bare loop of rumqttc, without TLS: a second".to_owned(), bare),
    ] {
        print(&what, &format!("{:.0}", count as f64 / taken.0.as_secs_f64()), "");
        print("    processor time", &seconds(taken.1), "");
    }
    let ratio = |agent: Taken| format!("{:.2}", bare.0.as_secs_f64() / agent.0.as_secs_f64());
    print("  agent over mutual TLS to bare loop without TLS", &ratio(mutual), "at least 0.8");
    print("  agent without TLS to bare loop", &ratio(open), "at least 0.8");
    Ok(())
}

/// Fills a buffer while nobody takes anything, and then has it drained by an uplink of this configuration.
fn agent(uplink: &str, count: usize) -> Result<Taken> {
    let dir = site::directory()?;
    let config: mqtt::Config = toml::from_str(&format!("{uplink}max_in_flight = {IN_FLIGHT}\n"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let clock = Clock::system(&clock::Config { trust: Trust::Rtc, ..Default::default() }, dir.path());
        let Opened { outbox, .. } = Outbox::open(&outbox::Config::default(), dir.path(), clock.clone());
        for number in 0..count {
            outbox.append(vec![window(number, DEVICES)]).await;
        }
        let forward = Forward {
            outbox: outbox.clone(),
            format: Format::Json,
            replay: Replay::default(),
            clock: clock.clone(),
            stats: Arc::new(forward::Stats::default()),
        };
        let way = AnyUplink::new(uplink::Config::Mqtt(config), Some(GATEWAY.into()), clock);
        let (stopper, stop) = stop();
        let (start, before) = (Instant::now(), kernel::cpu("self")?);
        let watch = async {
            let drained = drained(&outbox, count as u64, start).await;
            let taken = kernel::cpu("self").map(|now| (start.elapsed(), now - before));
            stopper.stop();
            drained.and(taken)
        };
        let ((), taken) = tokio::join!(forward.run(way, stop), watch);
        outbox.close(None).await;
        taken
    })
}

/// Waits until the broker has acknowledged all.
async fn drained(outbox: &Outbox, count: u64, start: Instant) -> Result<()> {
    let stats = outbox.stats();
    while stats.acknowledged.load(Ordering::Relaxed) < count {
        if start.elapsed() > Duration::from_secs(60) {
            return Err("the backlog was not drained".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn bare(port: u16, count: usize) -> Result<Taken> {
    let mut payload = Vec::new();
    let id = Id { epoch: 1_700_000_000, sequence: 10_000 };
    Format::Json.message(id, GATEWAY, &window(0, DEVICES), &mut payload);
    let (payload, topic) = (Bytes::from(payload), format!("weir/{GATEWAY}/data/device-00"));
    let mut options = MqttOptions::new("bare", "127.0.0.1", port);
    options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, mut events) = AsyncClient::new(options, usize::from(IN_FLIGHT));
        let (start, before) = (Instant::now(), kernel::cpu("self")?);
        let publish = async {
            for _ in 0..count {
                client.publish_bytes(topic.as_str(), QoS::AtLeastOnce, false, payload.clone()).await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        let hear = async {
            let mut left = count;
            while left > 0 {
                if let Event::Incoming(Packet::PubAck(_)) = events.poll().await? {
                    left -= 1;
                }
            }
            Ok(())
        };
        tokio::try_join!(publish, hear)?;
        Ok((start.elapsed(), kernel::cpu("self")? - before))
    })
}
