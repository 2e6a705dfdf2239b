use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::serve::{ASKERS_MAX, PATIENCE, TAPS_MAX};
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
