//! The commands' end: asks a running weir, and takes its answer for one only where it is whole.

use std::io;
use std::os::unix::net;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{NAME, Question};

/// Whether a weir answers at the socket in `runtime_dir`.
#[must_use]
pub fn is_answered(runtime_dir: &Path) -> bool {
    net::UnixStream::connect(runtime_dir.join(NAME)).is_ok()
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
