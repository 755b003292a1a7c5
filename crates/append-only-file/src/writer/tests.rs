use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::task::JoinSet;

use super::*;
use crate::{LineReader, LockedFile, OpenError};

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    (folder, path)
}

/// Opens the file, cuts off a torn last line and starts a writer. Returns the lines as well.
fn open(path: &Path) -> (Writer, Vec<String>) {
    let locked = LockedFile::open(path).unwrap();
    let mut lines = locked.lines().unwrap();
    let read = rest(&mut lines);
    let position = lines.position();
    let file = locked.append_after(position).unwrap();
    (Writer::start(file, "test").unwrap(), read)
}

fn rest(lines: &mut LineReader<impl io::Read>) -> Vec<String> {
    let mut read = Vec::new();
    while let Some(line) = lines.next_line().unwrap() {
        read.push(String::from_utf8(line.to_vec()).unwrap());
    }
    read
}

/// A writer on something that is no file of a disk.
fn writer_on(file: File) -> Writer {
    Writer::start(AppendOnlyFile { file, length: 0 }, "test").unwrap()
}

fn device(path: &str) -> File {
    File::options().write(true).open(path).unwrap()
}

/// A writer whose thread is inside a write, which fails once the reader is dropped.
async fn writer_in_a_write() -> (Writer, io::PipeReader) {
    let (mut reader, pipe) = io::pipe().unwrap();
    let writer = writer_on(File::from(OwnedFd::from(pipe)));
    // More than the pipe holds: the thread is inside its first write once a byte has arrived.
    let mut large = vec![b'x'; 1 << 20];
    large.push(b'\n');
    writer.reserve().await.unwrap().append(large);
    reader.read_exact(&mut [0]).unwrap();
    (writer, reader)
}

fn message(error: AppendError) -> String {
    match error {
        AppendError::Failed(error) => error.to_string(),
        AppendError::Closed => panic!("it is open"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appends_are_in_the_file_in_order_when_they_are_acknowledged() {
    const CALLERS: usize = 16;
    const CALLS: usize = 20;
    let (_folder, path) = folder();
    let writer = Arc::new(open(&path).0);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (writer, path) = (Arc::clone(&writer), path.clone());
        callers.spawn(async move {
            for call in 0..CALLS {
                let line = format!("{caller} {call}\n");
                let permit = writer.reserve().await.unwrap();
                let position = permit.append(line.clone().into_bytes());
                writer.wait_durable(position).await.unwrap();
                assert!(writer.durable_length() >= position);
                let start = usize::try_from(position).unwrap() - line.len();
                assert!(fs::read_to_string(&path).unwrap()[start..].starts_with(&line));
            }
        });
    }
    callers.join_all().await;
    drop(writer);
    let mut next = [0; CALLERS];
    for line in open(&path).1 {
        let (caller, call) = line.trim_end().split_once(' ').unwrap();
        let expected = &mut next[caller.parse::<usize>().unwrap()];
        assert_eq!(call.parse(), Ok(*expected), "calls of {caller}");
        *expected += 1;
    }
    assert_eq!(next, [CALLS; CALLERS]);
}

/// Calls that wait at the same time share one sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_synced_once() {
    const CALLERS: u64 = 64;
    const CALLS: u64 = 20;
    let (_folder, path) = folder();
    let writer = Arc::new(open(&path).0);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let writer = Arc::clone(&writer);
        callers.spawn(async move {
            for call in 0..CALLS {
                let line = format!("{}\n", caller * CALLS + call);
                writer.append(line.into_bytes()).await.unwrap();
            }
        });
    }
    callers.join_all().await;
    let groups = writer.groups();
    let calls = CALLERS * CALLS;
    assert!(groups < calls / 4, "{groups} syncs for {calls} calls");

    drop(writer);
    let lines = open(&path).1.into_iter();
    let mut numbers: Vec<u64> = lines.map(|line| line.trim_end().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..calls).collect::<Vec<_>>());
}

#[tokio::test]
async fn appends_of_one_caller_keep_their_order_without_waiting() {
    let (_folder, path) = folder();
    let (writer, _) = open(&path);
    for number in 0..100 {
        let permit = writer.reserve().await.unwrap();
        let position = permit.append(format!("{number}\n").into_bytes());
        assert_eq!(position, writer.appended_length());
    }
    writer.wait_durable(writer.appended_length()).await.unwrap();
    let expected: Vec<_> = (0..100).map(|number| format!("{number}\n")).collect();
    // Read beside the open file, as a crash would leave it.
    assert_eq!(fs::read_to_string(&path).unwrap(), expected.concat());
    assert_eq!(writer.durable_length(), fs::metadata(&path).unwrap().len());
    drop(writer);
    assert_eq!(open(&path).1, expected);
}

#[tokio::test]
async fn a_reader_sees_complete_lines_while_a_writer_appends() {
    const LINES: usize = 500;
    let (_folder, path) = folder();
    let (writer, _) = open(&path);
    let reader = thread::spawn(move || {
        loop {
            let read = rest(&mut LineReader::new(File::open(&path).unwrap()));
            for (number, line) in read.iter().enumerate() {
                assert_eq!(*line, format!("line {number}\n"));
            }
            if read.len() == LINES {
                return;
            }
        }
    });
    for number in 0..LINES {
        let permit = writer.reserve().await.unwrap();
        permit.append(format!("line {number}\n").into_bytes());
    }
    writer.close().await;
    reader.join().unwrap();
}

#[tokio::test]
async fn a_closed_writer_has_written_everything_and_refuses_more() {
    let (_folder, path) = folder();
    let (writer, _) = open(&path);
    writer.reserve().await.unwrap().append(b"1\n".to_vec());
    writer.close().await;
    writer.close().await;
    let refused = writer.append(b"2\n".to_vec()).await;
    assert!(matches!(refused, Err(AppendError::Closed)));
    writer.wait_durable(writer.appended_length()).await.unwrap();
    assert_eq!(open(&path).1, ["1\n"]);
}

#[tokio::test]
async fn every_call_of_close_waits_for_the_thread() {
    let (writer, reader) = writer_in_a_write().await;
    let mut context = Context::from_waker(Waker::noop());
    let mut cancelled = Box::pin(writer.close());
    assert!(cancelled.as_mut().poll(&mut context).is_pending());
    let mut concurrent = pin!(writer.close());
    assert!(concurrent.as_mut().poll(&mut context).is_pending());
    drop(cancelled);
    let mut later = pin!(writer.close());
    assert!(later.as_mut().poll(&mut context).is_pending());
    // The write fails: the thread ends.
    drop(reader);
    concurrent.await;
    later.await;
}

#[tokio::test]
async fn the_file_is_unlocked_when_close_returns() {
    let (_folder, path) = folder();
    for number in 0..100 {
        let (writer, _) = open(&path);
        let line = format!("{number}\n").into_bytes();
        writer.reserve().await.unwrap().append(line);
        writer.close().await;
        assert!(LockedFile::open(&path).is_ok());
    }
}

#[tokio::test]
async fn close_waits_for_permits() {
    let (_folder, path) = folder();
    let (writer, _) = open(&path);
    let permit = writer.reserve().await.unwrap();
    let mut closing = pin!(writer.close());
    let mut context = Context::from_waker(Waker::noop());
    assert!(closing.as_mut().poll(&mut context).is_pending());
    permit.append(b"1\n".to_vec());
    closing.await;
    assert_eq!(open(&path).1, ["1\n"]);
}

#[tokio::test]
async fn the_file_is_unlocked_when_the_writer_is_dropped() {
    let (_folder, path) = folder();
    let (writer, _) = open(&path);
    assert!(matches!(LockedFile::open(&path), Err(OpenError::InUse)));
    writer.reserve().await.unwrap().append(b"1\n".to_vec());
    drop(writer);
    assert_eq!(open(&path).1, ["1\n"]);
}

/// Every write to this device fails as on a full disk.
#[tokio::test]
async fn a_failed_write_fails_everything_after_it() {
    let writer = writer_on(device("/dev/full"));
    for _ in 0..3 {
        let error = writer.append(b"1\n".to_vec()).await.unwrap_err();
        assert!(message(error).starts_with("No space left on device"));
    }
    assert!(writer.wait_durable(1).await.is_err());
    assert_eq!(writer.durable_length(), 0);
    writer.close().await;
}

/// This device takes every write, and refuses to sync it.
#[tokio::test]
async fn what_is_not_synced_is_not_acknowledged() {
    let writer = writer_on(device("/dev/null"));
    let error = writer.append(b"1\n".to_vec()).await.unwrap_err();
    assert!(message(error).starts_with("Invalid argument"));
    assert_eq!((writer.durable_length(), writer.groups()), (0, 0));
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait() {
    let (writer, reader) = writer_in_a_write().await;
    for _ in 0..QUEUE {
        writer.reserve().await.unwrap().append(b"1\n".to_vec());
    }
    let mut waiting = pin!(writer.reserve());
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(waiting.as_mut().poll(&mut context), Poll::Pending));
    // The write fails, and every caller that waits gets the error.
    drop(reader);
    assert!(message(waiting.await.unwrap_err()).starts_with("Broken pipe"));
    assert!(writer.wait_durable(writer.appended_length()).await.is_err());
}
