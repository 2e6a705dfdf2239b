//! The running weir's end of the socket: who is listened to, and who is answered.
//!
//! Bounds: [`HEARD_MAX`] connections that have not asked yet (one more, and the oldest is let go of), [`ASKERS_MAX`]
//! that are answered at once and [`WAITING_MAX`] that wait for it, [`TAPS_MAX`] that look on (another is refused),
//! [`QUESTION_MAX`] bytes, and [`PATIENCE`] for the question and for whoever does not read the answer. So neither those
//! who ask nothing nor those who look on keep others from an answer.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::{NAME, Question, Reply};

/// Connections whose question is still to come.
const HEARD_MAX: usize = 16;
/// Questions that are answered at once.
pub(super) const ASKERS_MAX: usize = 4;
/// Questions that wait for their turn.
const WAITING_MAX: usize = 16;
/// Those who look on at once.
pub(super) const TAPS_MAX: usize = 4;
/// The longest question, in bytes.
const QUESTION_MAX: u64 = 64 << 10;
/// How long a question may take to come, and a line of the answer to go.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long who looks on may stop reading, to look at a line more closely. What comes meanwhile is lost to him.
const PATIENCE_WITH_TAPS: Duration = Duration::from_secs(600);
/// Lines of an answer that wait to be written.
const LINES: usize = 16;

/// The open socket. Dropped, it is removed.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Opens the socket in `runtime_dir`. One that a killed weir has left is replaced. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// Where it cannot be made, or another weir answers there.
    pub fn open(runtime_dir: &Path) -> io::Result<Self> {
        let path = runtime_dir.join(NAME);
        if !runtime_dir.exists() {
            fs::create_dir_all(runtime_dir)?;
        }
        match fs::symlink_metadata(&path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else has its name"));
            }
            Ok(_) if net::UnixStream::connect(&path).is_ok() => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another weir answers there"));
            }
            Ok(_) => fs::remove_file(&path)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
        Ok(Self { listener, path })
    }

    /// Has `answer` answer whoever asks, for ever.
    pub async fn serve<A, F>(self, answer: A)
    where
        A: Fn(Question, Reply) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (mut hearing, mut serving, places) = (Hearing::default(), JoinSet::new(), Places::default());
        loop {
            while serving.try_join_next().is_some() {}
            tokio::select! {
                accepted = self.listener.accept(), if serving.len() < ASKERS_MAX + TAPS_MAX + WAITING_MAX => {
                    match accepted {
                        Ok((stream, _)) => hearing.add(stream),
                        Err(error) => {
                            // For want of files, say: whoever asked may ask again.
                            tracing::warn!(%error, "a question on the control socket could not be heard");
                            tokio::time::sleep(PATIENCE).await;
                        }
                    }
                }
                Some(asked) = hearing.next() => {
                    serving.spawn(serve_one(asked, places.clone(), answer.clone()));
                }
                Some(_) = serving.join_next() => {}
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A question, or why it is none, and its connection.
type Asked = (Result<Question, String>, OwnedReadHalf, OwnedWriteHalf);

/// Connections whose question is still to come.
#[derive(Default)]
struct Hearing {
    heard: JoinSet<Option<Asked>>,
    in_order: VecDeque<AbortHandle>,
}

impl Hearing {
    /// Listens to one more; where that are too many, to the oldest no longer.
    fn add(&mut self, stream: UnixStream) {
        self.in_order.retain(|one| !one.is_finished());
        if self.in_order.len() >= HEARD_MAX {
            let _ = self.in_order.pop_front().map(|oldest| oldest.abort());
        }
        self.in_order.push_back(self.heard.spawn(async move {
            let (mut reading, writing) = stream.into_split();
            let question = timeout(PATIENCE, hear(&mut reading)).await.ok()?;
            Some((question, reading, writing))
        }));
    }

    /// The next who has asked; `None` where there is nobody to listen to. Cancel-safe.
    async fn next(&mut self) -> Option<Asked> {
        loop {
            if let Ok(Some(asked)) = self.heard.join_next().await? {
                return Some(asked);
            }
        }
    }
}

/// Where answers are given.
#[derive(Clone)]
struct Places {
    answers: Arc<Semaphore>,
    taps: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { answers: places(ASKERS_MAX), taps: places(TAPS_MAX) }
    }
}

async fn serve_one<A, F>((question, reading, writing): Asked, places: Places, answer: A)
where
    A: Fn(Question, Reply) -> F,
    F: Future<Output = ()>,
{
    let (give, lines) = mpsc::channel(LINES);
    let reply = Reply(give);
    let looks_on = matches!(question, Ok(Question::Tap { .. }));
    if looks_on {
        let Ok(_place) = places.taps.try_acquire() else {
            let why = format!("{TAPS_MAX} others look on already: end one of those taps first");
            tokio::join!(reply.refuse(&why), write(writing, lines, PATIENCE));
            return;
        };
        if let Ok(question) = question {
            let answering = answer(question, reply);
            let answered = async move { tokio::join!(answering, write(writing, lines, PATIENCE_WITH_TAPS)) };
            tokio::select! {
                _ = answered => {}
                () = gone(reading) => {}
            }
        }
        return;
    }
    let Ok(_place) = places.answers.acquire().await else { return };
    match question {
        Ok(question) => tokio::join!(answer(question, reply), write(writing, lines, PATIENCE)),
        Err(why) => tokio::join!(reply.refuse(&why), write(writing, lines, PATIENCE)),
    };
}

/// Waits until the other side has closed the connection. What it still says is passed over.
async fn gone(mut reading: OwnedReadHalf) {
    let mut said = [0; 64];
    while reading.read(&mut said).await.is_ok_and(|length| length > 0) {}
}

async fn hear(reading: impl tokio::io::AsyncRead + Unpin) -> Result<Question, String> {
    let mut line = String::new();
    BufReader::new(reading.take(QUESTION_MAX))
        .read_line(&mut line)
        .await
        .map_err(|error| format!("the question cannot be read: {error}"))?;
    serde_json::from_str(&line).map_err(|error| {
        format!("this weir does not understand the question ({error}): is the command of another version?")
    })
}

/// Writes lines until there are no more, or nobody reads them for as long as `patience`.
async fn write(
    mut writing: impl tokio::io::AsyncWrite + Unpin,
    mut lines: mpsc::Receiver<String>,
    patience: Duration,
) {
    while let Some(line) = lines.recv().await {
        match timeout(patience, writing.write_all(line.as_bytes())).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}
