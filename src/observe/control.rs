//! The control socket: how the commands ask a running weir. No other process opens its database.
//!
//! A stream socket in the runtime directory, for its owner and group alone. One connection is one question: a line of
//! JSON goes in, lines come out. Each begins with the letter that says what it is: `+` and a line of the answer, `-` and
//! why there is none, `.` for its end, so that an answer that was cut off is not taken for a whole one.
//!
//! Bounds: [`HEARD_MAX`] connections that have not asked yet (one more, and the oldest is let go of), [`ASKERS_MAX`]
//! that are answered at once and [`WAITING_MAX`] that wait for it, [`TAPS_MAX`] that look on (another is refused),
//! [`QUESTION_MAX`] bytes, and [`PATIENCE`] for the question and for whoever does not read the answer. So neither those
//! who ask nothing nor those who look on keep others from an answer. What is asked is answered by `pipeline`; here nothing
//! is known of the stages.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// The socket's name in the runtime directory.
const NAME: &str = "control.sock";
/// Connections whose question is still to come.
const HEARD_MAX: usize = 16;
/// Questions that are answered at once.
const ASKERS_MAX: usize = 4;
/// Questions that wait for their turn.
const WAITING_MAX: usize = 16;
/// Those who look on at once.
const TAPS_MAX: usize = 4;
/// The longest question, in bytes.
const QUESTION_MAX: u64 = 64 << 10;
/// How long a question may take to come, and a line of the answer to go.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long who looks on may stop reading, to look at a line more closely. What comes meanwhile is lost to him.
const PATIENCE_WITH_TAPS: Duration = Duration::from_secs(600);
/// Lines of an answer that wait to be written.
const LINES: usize = 16;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// How the buffer and the way out of it stand: one [`Standing`](super::buffer::Standing) as JSON.
    BufferStats,
    /// The messages that are not acknowledged, in order, as they would be sent: at most `most`, all without it.
    BufferMessages {
        /// How many.
        most: Option<u64>,
    },
    /// Lose what waits in the buffer, by the ledger: answered with how many messages that were.
    BufferPurge,
    /// The messages that the broker has refused for good.
    DeadLetters,
    /// What dead letters say, as they would be sent.
    DeadLetterPayloads {
        /// Of which; of all without it.
        ids: Option<Vec<String>>,
    },
    /// Put dead letters back to the end of the queue: answered with how many that were.
    SendAgain {
        /// Which; all without it.
        ids: Option<Vec<String>>,
    },
    /// Forget dead letters for good: answered with how many that were.
    ForgetDeadLetters {
        /// Which; all without it.
        ids: Option<Vec<String>>,
    },
    /// What a source reads and what comes of it, an event a line, until the asker goes away or the source does.
    Tap {
        /// Its name.
        source: String,
    },
}

/// Takes the lines of an answer. It is an answer only once [`Reply::end`] was told.
#[derive(Clone, Debug)]
pub struct Reply(mpsc::Sender<String>);

/// Nobody waits for the answer any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nobody waits for the answer any more")]
pub struct Gone;

impl Reply {
    /// Adds a line, once there is room for it.
    ///
    /// # Errors
    /// Where nobody waits any more.
    pub async fn line(&self, line: &str) -> Result<(), Gone> {
        self.0.send(format!("+{line}\n")).await.map_err(|_| Gone)
    }

    /// Says that there is no answer, or no more of it, and why.
    pub async fn refuse(self, why: &str) {
        // Nobody may wait for it, here and below.
        let _ = self.0.send(format!("-{}\n", why.replace('\n', " "))).await;
    }

    /// Says that the answer is complete.
    pub async fn end(self) {
        let _ = self.0.send(".\n".to_owned()).await;
    }
}

/// Whether a weir answers at the socket in `runtime_dir`.
#[must_use]
pub fn is_answered(runtime_dir: &Path) -> bool {
    net::UnixStream::connect(runtime_dir.join(NAME)).is_ok()
}

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

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
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

/// Why a running weir gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// There is nobody to ask.
    #[error("no weir answers at {}: {error}", .path.display())]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// It says why.
    #[error("{0}")]
    Refused(String),
    /// It did not come to the end of it.
    #[error("the answer broke off: weir has ended, or was restarted")]
    CutOff,
}

/// Asks the weir that runs with `runtime_dir`, and gives each line of its answer to `line`, until that says `false`.
///
/// # Errors
/// Where there is no weir, it refuses, or the answer is not complete.
pub async fn ask(
    runtime_dir: &Path,
    question: &Question,
    mut line: impl FnMut(&str) -> bool,
) -> Result<(), Unanswered> {
    let path = runtime_dir.join(NAME);
    let nobody = |error| Unanswered::Nobody { path: path.clone(), error };
    let mut stream = UnixStream::connect(&path).await.map_err(nobody)?;
    let asked = serde_json::to_string(question).map_err(|error| nobody(error.into()))?;
    stream.write_all(format!("{asked}\n").as_bytes()).await.map_err(nobody)?;
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(answer)) = lines.next_line().await {
        match answer.split_at_checked(1) {
            Some(("+", text)) => {
                if !line(text) {
                    return Ok(());
                }
            }
            Some(("-", why)) => return Err(Unanswered::Refused(why.to_owned())),
            Some((".", "")) => return Ok(()),
            _ => break,
        }
    }
    Err(Unanswered::CutOff)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn collect(runtime: &Path, question: &Question) -> Result<Vec<String>, Unanswered> {
        let mut lines = Vec::new();
        ask(runtime, question, |line| {
            lines.push(line.to_owned());
            true
        })
        .await?;
        Ok(lines)
    }

    fn serve(runtime: &Path) -> JoinSet<()> {
        let control = Control::open(runtime).unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(control.serve(|question, reply| async move {
            match question {
                Question::BufferMessages { most } => {
                    for n in 0..most.unwrap_or(1_000_000) {
                        if reply.line(&n.to_string()).await.is_err() {
                            return;
                        }
                    }
                    reply.end().await;
                }
                Question::BufferPurge => reply.refuse("not\ntoday").await,
                Question::Tap { source } => {
                    let _ = reply.line(&source).await;
                    std::future::pending::<()>().await;
                }
                _ => {}
            }
        }));
        serving
    }

    #[tokio::test]
    async fn an_answer_comes_line_by_line_and_says_when_it_is_complete() {
        let runtime = tempfile::tempdir().unwrap();
        let _serving = serve(runtime.path());
        let lines = collect(runtime.path(), &Question::BufferMessages { most: Some(1_000) }).await.unwrap();
        assert_eq!(lines.len(), 1_000);
        assert_eq!(lines[999], "999");
        let refused = collect(runtime.path(), &Question::BufferPurge).await.unwrap_err();
        assert_eq!(refused.to_string(), "not today");
        let cut_off = collect(runtime.path(), &Question::DeadLetters).await.unwrap_err();
        assert!(matches!(cut_off, Unanswered::CutOff));
    }

    #[tokio::test]
    async fn who_stops_listening_or_asks_nonsense_disturbs_nobody() {
        let runtime = tempfile::tempdir().unwrap();
        let _serving = serve(runtime.path());
        for _ in 0..3 * ASKERS_MAX {
            ask(runtime.path(), &Question::BufferMessages { most: None }, |_| false).await.unwrap();
            let mut nonsense = UnixStream::connect(runtime.path().join(NAME)).await.unwrap();
            nonsense.write_all(&[0xff; 100]).await.unwrap();
            nonsense.write_all(b"\n").await.unwrap();
            let mut answer = String::new();
            nonsense.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with('-'), "{answer}");
        }
        let lines = collect(runtime.path(), &Question::BufferMessages { most: Some(1) }).await.unwrap();
        assert_eq!(lines, ["0"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_is_let_go_of() {
        let runtime = tempfile::tempdir().unwrap();
        let _serving = serve(runtime.path());
        let mut silent = Vec::new();
        for _ in 0..ASKERS_MAX {
            silent.push(UnixStream::connect(runtime.path().join(NAME)).await.unwrap());
        }
        let lines = collect(runtime.path(), &Question::BufferMessages { most: Some(1) }).await.unwrap();
        assert_eq!(lines, ["0"]);
    }

    #[tokio::test]
    async fn forty_who_ask_nothing_keep_nobody_from_an_answer() {
        let runtime = tempfile::tempdir().unwrap();
        let _serving = serve(runtime.path());
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(UnixStream::connect(runtime.path().join(NAME)).await.unwrap());
        }
        let asked = collect(runtime.path(), &Question::BufferMessages { most: Some(1) });
        assert_eq!(timeout(PATIENCE / 2, asked).await.unwrap().unwrap(), ["0"]);
        // The first was let go of before its time, the last not.
        let mut told = [0];
        let first = timeout(PATIENCE / 2, silent[0].read(&mut told)).await;
        assert_eq!(first.unwrap().unwrap(), 0);
        assert!(silent[39].try_read(&mut told).is_err());
    }

    #[tokio::test]
    async fn those_who_look_on_take_no_place_of_those_who_ask_and_give_theirs_back_when_they_go() {
        let runtime = tempfile::tempdir().unwrap();
        let _serving = serve(runtime.path());
        let look_on = || async {
            let mut stream = UnixStream::connect(runtime.path().join(NAME)).await.unwrap();
            stream.write_all(b"{\"ask\":\"tap\",\"source\":\"line\"}\n").await.unwrap();
            let mut lines = BufReader::new(stream).lines();
            let line = lines.next_line().await.unwrap().unwrap();
            (line, lines)
        };
        let mut looking = Vec::new();
        for _ in 0..TAPS_MAX {
            let (line, lines) = look_on().await;
            assert_eq!(line, "+line");
            looking.push(lines);
        }
        assert!(look_on().await.0.starts_with("-4 others look on already"));
        let asked = collect(runtime.path(), &Question::BufferMessages { most: Some(1) });
        assert_eq!(timeout(PATIENCE / 2, asked).await.unwrap().unwrap(), ["0"]);
        looking.pop();
        let again = async {
            while look_on().await.0 != "+line" {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, again).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_was_left_behind_is_replaced_and_one_that_answers_is_not() {
        let runtime = tempfile::tempdir().unwrap();
        drop(net::UnixListener::bind(runtime.path().join(NAME)).unwrap());
        let first = Control::open(runtime.path()).unwrap();
        let mode = fs::metadata(runtime.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert_eq!(Control::open(runtime.path()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!runtime.path().join(NAME).exists());
        let nobody = collect(runtime.path(), &Question::BufferStats).await.unwrap_err();
        assert!(nobody.to_string().starts_with("no weir answers at "), "{nobody}");
    }
}
