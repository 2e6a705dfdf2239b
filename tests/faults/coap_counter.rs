//! A device that counts by CoAP, some numbers at a time, and knows of each what became of the request.
//!
//! 2.04 says that weir has the reading: such a number is *taken*. A number that is not answered is never asked again: it
//! may arrive or not.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// So many numbers are sent at a time, so that some are likely to be on their way when something happens.
const BURST: usize = 8;
/// Between the answers to some and the next.
const PAUSE: Duration = Duration::from_millis(40);
/// How long answers are waited for before the next are sent; they may still come.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long anything else may take.
const LONG: Duration = Duration::from_secs(180);

/// A number that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) answer: Answer,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing yet.
    Waiting,
    /// Nothing: nobody listens there, or whoever did is gone.
    None,
    /// 2.04, heard then.
    Taken(Instant),
    /// Another code.
    Refused(u8),
}

/// Sends in a thread of its own, to the end of this handle.
pub(crate) struct Counter {
    shared: Arc<Shared>,
    sending: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    asked: Mutex<Vec<Asked>>,
    news: Condvar,
    stop: AtomicBool,
}

impl Counter {
    /// A port of `host` for a `coap_server` to listen on.
    pub(crate) fn port(host: Ipv4Addr) -> SocketAddr {
        UdpSocket::bind((host, 0)).unwrap().local_addr().unwrap()
    }

    /// Counts from 0 on to a `coap_server`, which need not be there yet, as devices `counter-0` to `counter-2`.
    pub(crate) fn start(to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((to.ip(), 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let shared = Arc::new(Shared::default());
        let sending = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    shared.ask(&socket);
                    thread::sleep(PAUSE);
                }
            }
        });
        Self { shared, sending: Some(sending) }
    }

    /// What has been sent so far, by number.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Waits until a number is taken that was sent after this was called, and returns it.
    pub(crate) fn next_taken(&self) -> usize {
        self.taken_after(1)
    }

    /// As `next_taken`, for the last of so many.
    pub(crate) fn taken_after(&self, count: usize) -> usize {
        let asked = self.shared.asked.lock().unwrap();
        let from = asked.len();
        let last = |asked: &Vec<Asked>| {
            let taken = asked.iter().enumerate().skip(from);
            let mut taken = taken.filter(|(_, asked)| matches!(asked.answer, Answer::Taken(_)));
            taken.nth(count - 1).map(|(number, _)| number)
        };
        let (asked, _) =
            self.shared.news.wait_timeout_while(asked, LONG, |asked| last(asked).is_none()).unwrap();
        last(&asked).unwrap_or_else(|| panic!("{count} readings were not taken in {LONG:?}"))
    }

    /// Whoever was asked is gone: what was not answered so far will not be, unless the answer is on its way.
    pub(crate) fn give_up(&self) {
        give_up(&mut self.shared.asked.lock().unwrap());
    }

    /// Stops, and tells what was sent in all.
    pub(crate) fn stop(&mut self) -> Vec<Asked> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(sending) = self.sending.take() {
            sending.join().unwrap();
        }
        self.asked()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // The thread is not joined: it may be a panic's way out.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// Sends the next numbers and waits for their answers, for a while.
    fn ask(&self, socket: &UdpSocket) {
        let first = self.asked.lock().unwrap().len();
        for number in first..first + BURST {
            self.asked.lock().unwrap().push(Asked { at: Instant::now(), answer: Answer::Waiting });
            if let Err(error) = socket.send(&request(number as u32)) {
                self.unheard(&error, number..number + 1);
            }
        }
        let mut answer = [0; 1500];
        while self.asked.lock().unwrap()[first..].iter().any(|asked| asked.answer == Answer::Waiting) {
            match socket.recv(&mut answer) {
                Ok(length) => self.take(&answer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                // Should one have been taken before all were refused, its answer is read with the next ones'.
                Err(error) => self.unheard(&error, first..first + BURST),
            }
        }
    }

    fn take(&self, answer: &[u8]) {
        // Version 1, an Acknowledgement with a token of four bytes: RFC 7252, 3.
        let [0x64, code, _, _, token @ ..] = answer else { panic!("{answer:?}") };
        let number = u32::from_be_bytes(*token.first_chunk().unwrap()) as usize;
        let told = match code {
            0x44 => Answer::Taken(Instant::now()),
            code => Answer::Refused(*code),
        };
        self.asked.lock().unwrap()[number].answer = told;
        self.news.notify_all();
    }

    /// Nobody listens there, the kernel says, so that these wait in vain.
    fn unheard(&self, error: &std::io::Error, numbers: Range<usize>) {
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        give_up(&mut self.asked.lock().unwrap()[numbers]);
    }
}

fn give_up(asked: &mut [Asked]) {
    for asked in asked.iter_mut().filter(|asked| asked.answer == Answer::Waiting) {
        asked.answer = Answer::None;
    }
}

/// A Confirmable POST of flat JSON, the number as its token: RFC 7252, 3.
fn request(number: u32) -> Vec<u8> {
    let id = (number as u16).to_be_bytes();
    let mut request = vec![0x44, 2, id[0], id[1]];
    request.extend(number.to_be_bytes());
    // Uri-Path (11), and one option later Content-Format (12): application/json (50).
    request.push(0xB9);
    request.extend(format!("counter-{}", number % 3).as_bytes());
    request.extend([0x11, 50, 0xFF]);
    request.extend(format!("{{\"n\":{number}}}").as_bytes());
    request
}
