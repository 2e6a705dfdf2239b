//! A small MQTT broker that does what it is told, good or bad, and remembers what it received.
//!
//! It serves MQTT 3.1.1 and 5 in the clear on loopback, or over TLS with whatever its `ServerConfig` demands of
//! clients. It passes nothing on to anybody.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::mqtt::{self, Connect, Limits, Packet, Publish};

/// How the broker behaves; changed while it runs by [`Broker::behave`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// What a CONNECT is answered with; 0 accepts.
    pub(crate) connect_code: u8,
    /// What a CONNACK of version 5 lays down.
    pub(crate) limits: Limits,
    /// What becomes of answers to publications.
    pub(crate) answers: Answers,
    /// The reason with which publications are refused whose topic contains the text. Version 5 only.
    pub(crate) refuse: Option<(String, u8)>,
    /// The connection is closed upon the how-manieth publication, unanswered.
    pub(crate) close_at: Option<usize>,
    /// The connection is closed upon a publication whose topic contains the text, unanswered.
    pub(crate) close_on: Option<String>,
    /// And upon one with more bytes of payload.
    pub(crate) close_above: Option<usize>,
    /// Where the connection is closed upon a publication, a DISCONNECT of this reason comes first. Version 5 only.
    pub(crate) dismiss: Option<u8>,
    /// Reads, and says nothing any more.
    pub(crate) silent: bool,
    /// Whom it lets in, and for how long.
    pub(crate) guard: Option<Guard>,
}

/// Says for how long a connection may last, or that it may not come about.
#[derive(Clone)]
pub(crate) struct Guard(pub(crate) Arc<Admit>);

type Admit = dyn Fn(&Connect) -> Option<Duration> + Send + Sync;

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

/// MQTT 5, 3.14.2.1.
const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;

/// What becomes of answers to publications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Sent at once, what was withheld first.
    #[default]
    AtOnce,
    /// Withheld until this changes.
    Withheld,
    /// Gathered, this many at a time, and sent with the last first.
    Reversed(usize),
}

/// What the broker has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Connected(Connect),
    Received(Publish),
    /// Left with a DISCONNECT.
    Left,
    /// Gone without one; this was its will.
    Lost(Option<Publish>),
}

pub(crate) struct Broker {
    port: u16,
    tls: Option<Arc<ServerConfig>>,
    behaviour: watch::Sender<Behaviour>,
    seen: watch::Sender<Vec<Seen>>,
    taken: watch::Sender<Vec<Publish>>,
    listening: JoinSet<()>,
}

impl Broker {
    /// Listens on a free port of loopback.
    pub(crate) async fn start(tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let mut broker = Self {
            port: 0,
            tls,
            behaviour: watch::Sender::default(),
            seen: watch::Sender::default(),
            taken: watch::Sender::default(),
            listening: JoinSet::new(),
        };
        broker.listen().await?;
        Ok(broker)
    }

    /// Listens, on the port that it had before, if any.
    pub(crate) async fn listen(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await?;
        self.port = listener.local_addr()?.port();
        let (tls, behaviour) = (self.tls.clone(), self.behaviour.clone());
        let (seen, taken) = (self.seen.clone(), self.taken.clone());
        self.listening.spawn(async move {
            // Dropped with this task, and with it every connection.
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { return };
                        let (seen, taken) = (seen.clone(), taken.clone());
                        connections.spawn(serve(stream, tls.clone(), behaviour.subscribe(), seen, taken));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(())
    }

    /// Stops listening and cuts every connection off.
    pub(crate) async fn stop(&mut self) {
        self.listening.shutdown().await;
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Changes how it behaves, on open connections too.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        self.behaviour.send_modify(change);
    }

    /// All that it has seen, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// The publications that it has received, in order.
    pub(crate) fn received(&self) -> Vec<Publish> {
        let received = |seen: &Seen| match seen {
            Seen::Received(publish) => Some(publish.clone()),
            _ => None,
        };
        self.seen.borrow().iter().filter_map(received).collect()
    }

    /// The publications that it has taken, in order: neither refused nor closed upon. Answers that are withheld do not
    /// change that.
    pub(crate) fn taken(&self) -> Vec<Publish> {
        self.taken.borrow().clone()
    }

    /// Waits until what it has taken is enough; false where that takes too long.
    pub(crate) async fn has_taken(
        &self,
        within: Duration,
        enough: impl FnMut(&Vec<Publish>) -> bool,
    ) -> bool {
        let mut taken = self.taken.subscribe();
        tokio::time::timeout(within, taken.wait_for(enough)).await.is_ok()
    }

    /// All that it has seen, and what it sees from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Vec<Seen>> {
        self.seen.subscribe()
    }

    /// Waits until what it has seen is `enough`.
    pub(crate) async fn wait(&self, enough: impl FnMut(&Vec<Seen>) -> bool) {
        // The sender lives in `self`, so that this cannot fail.
        let _ = self.seen.subscribe().wait_for(enough).await;
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    behaviour: watch::Receiver<Behaviour>,
    seen: watch::Sender<Vec<Seen>>,
    taken: watch::Sender<Vec<Publish>>,
) {
    let _ = stream.set_nodelay(true);
    let result = match tls {
        None => Connection::new(stream, behaviour, &seen, &taken).run().await,
        Some(tls) => match TlsAcceptor::from(tls).accept(stream).await {
            Ok(stream) => Connection::new(stream, behaviour, &seen, &taken).run().await,
            Err(_) => return,
        },
    };
    let _ = result;
}

struct Connection<'a, S> {
    reader: tokio::io::BufReader<tokio::io::ReadHalf<S>>,
    writer: tokio::io::WriteHalf<S>,
    behaviour: watch::Receiver<Behaviour>,
    seen: &'a watch::Sender<Vec<Seen>>,
    taken: &'a watch::Sender<Vec<Publish>>,
    level: u8,
    published: usize,
    withheld: Vec<Vec<u8>>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Connection<'a, S> {
    fn new(
        stream: S,
        behaviour: watch::Receiver<Behaviour>,
        seen: &'a watch::Sender<Vec<Seen>>,
        taken: &'a watch::Sender<Vec<Publish>>,
    ) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let reader = tokio::io::BufReader::new(reader);
        let (level, published, withheld) = (mqtt::LEVEL_311, 0, Vec::new());
        Self { reader, writer, behaviour, seen, taken, level, published, withheld }
    }

    async fn run(mut self) -> io::Result<()> {
        let Some(Packet::Connect(connect)) = mqtt::read(&mut self.reader, 0).await? else { return Ok(()) };
        self.level = connect.level;
        let will = connect.will.clone();
        let Behaviour { connect_code, limits, guard, .. } = self.behaviour.borrow().clone();
        let admitted = guard.map(|Guard(admit)| admit(&connect));
        let code = match admitted {
            Some(None) if self.level == mqtt::LEVEL_5 => 0x87,
            Some(None) => 5,
            _ => connect_code,
        };
        self.saw(Seen::Connected(connect));
        self.say(mqtt::connack(self.level, code, &limits)).await?;
        if code != 0 {
            return self.writer.shutdown().await;
        }
        let ended = match admitted.flatten() {
            Some(time) => tokio::time::timeout(time, self.converse()).await.unwrap_or(Ok(true)),
            None => self.converse().await,
        };
        self.saw(if matches!(ended, Ok(false)) { Seen::Left } else { Seen::Lost(will) });
        let _ = self.writer.shutdown().await;
        ended.map(|_| ())
    }

    /// Talks until the client leaves; true where its will is due.
    async fn converse(&mut self) -> io::Result<bool> {
        loop {
            let packet = {
                // Reading is never cancelled in the middle of a packet: the change of behaviour is looked at beside it.
                let mut reading = std::pin::pin!(mqtt::read(&mut self.reader, self.level));
                loop {
                    tokio::select! {
                        packet = &mut reading => break packet?,
                        Ok(()) = self.behaviour.changed() => {
                            let answers = self.behaviour.borrow_and_update().answers;
                            if answers == Answers::AtOnce {
                                for answer in self.withheld.drain(..) {
                                    self.writer.write_all(&answer).await?;
                                }
                                self.writer.flush().await?;
                            }
                        }
                    }
                }
            };
            match packet {
                None => return Ok(true),
                Some(Packet::Disconnect(with_will)) => return Ok(with_will),
                Some(Packet::Pingreq) => self.say(mqtt::PINGRESP.to_vec()).await?,
                Some(Packet::Pubrel(packet_id)) => {
                    self.say(mqtt::answer(7, self.level, packet_id, 0)).await?
                }
                Some(Packet::Publish(publish)) => {
                    if !self.take(publish).await? {
                        return Ok(true);
                    }
                }
                Some(Packet::Connect(_)) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Takes a publication; false where the connection is to be closed over it.
    async fn take(&mut self, publish: Publish) -> io::Result<bool> {
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        let behaviour = self.behaviour.borrow().clone();
        let reason =
            behaviour.refuse.filter(|(text, _)| publish.topic.contains(text)).map_or(0, |(_, reason)| reason);
        self.saw(Seen::Received(publish.clone()));
        self.published += 1;
        let closes = behaviour.close_at == Some(self.published)
            || behaviour.close_on.is_some_and(|text| publish.topic.contains(&text))
            || behaviour.close_above.is_some_and(|most| publish.payload.len() > most);
        if closes {
            if let Some(reason) = behaviour.dismiss {
                self.say(mqtt::disconnect(reason)).await?;
                // Closed with something unread the connection would be reset, and the reason with it.
                self.writer.shutdown().await?;
                let mut unread = tokio::io::sink();
                let rest = tokio::io::copy(&mut self.reader, &mut unread);
                let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
            }
            return Ok(false);
        }
        // 0x10: nobody subscribes to it.
        if [0, 0x10].contains(&reason) {
            self.taken.send_modify(|all| all.push(publish));
        }
        let kind = match qos {
            0 => return Ok(true),
            1 => 4,
            _ => 5,
        };
        self.withheld.push(mqtt::answer(kind, self.level, packet_id, reason));
        if self.withheld.len() > behaviour.limits.receive_maximum.unwrap_or(u16::MAX).into() {
            self.say(mqtt::disconnect(RECEIVE_MAXIMUM_EXCEEDED)).await?;
            return Ok(false);
        }
        match behaviour.answers {
            Answers::Withheld => return Ok(true),
            Answers::Reversed(count) if self.withheld.len() < count => return Ok(true),
            Answers::Reversed(_) => self.withheld.reverse(),
            Answers::AtOnce => {}
        }
        for answer in std::mem::take(&mut self.withheld) {
            self.say(answer).await?;
        }
        Ok(true)
    }

    async fn say(&mut self, packet: Vec<u8>) -> io::Result<()> {
        if self.behaviour.borrow().silent {
            return Ok(());
        }
        self.writer.write_all(&packet).await?;
        self.writer.flush().await
    }

    fn saw(&self, seen: Seen) {
        self.seen.send_modify(|all| all.push(seen));
    }
}
