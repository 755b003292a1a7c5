use std::sync::Arc;

use super::*;

/// Opens the file and returns its entries as well.
fn open(path: &Path) -> Result<(File, Vec<u64>), Error> {
    let mut entries = Vec::new();
    let file = File::open(path, |entry| entries.push(entry))?;
    Ok((file, entries))
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("ledger.jsonl");
    (folder, path)
}

async fn append(file: &File, entry: u64) -> Result<(), Error> {
    file.reserve().await?.append(&entry);
    Ok(())
}

#[tokio::test]
async fn durable_entries_survive_in_order() {
    let (_folder, path) = folder();
    let (file, entries) = open(&path).expect("a new file");
    assert!(entries.is_empty());
    for entry in 0..100_u64 {
        append(&file, entry).await.expect("it is open");
    }
    file.wait_durable(file.appended_length())
        .await
        .expect("the disk works");
    // Read beside the open file, as a crash would leave it.
    let on_disk = fs::read_to_string(&path).expect("it is there");
    let expected: Vec<u64> = (0..100).collect();
    let lines: Vec<u64> = on_disk
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    assert_eq!(lines, expected);

    drop(file);
    let (_file, entries) = open(&path).expect("it was closed");
    assert_eq!(entries, expected);
}

#[tokio::test]
async fn a_torn_last_line_is_cut_off() {
    for torn in ["12", "{\"", "nonsense\n", "\0\0\0\0"] {
        let (_folder, path) = folder();
        fs::write(&path, format!("1\n2\n{torn}")).expect("the disk works");
        let (file, entries) = open(&path).expect("only its end is torn");
        assert_eq!(entries, [1, 2], "{torn:?}");
        append(&file, 3).await.expect("it is open");
        file.close().await;
        drop(file);
        assert_eq!(
            fs::read_to_string(&path).expect("it is there"),
            "1\n2\n3\n",
            "{torn:?}"
        );
    }
}

#[test]
fn damage_before_the_last_line_is_an_error() {
    let (_folder, path) = folder();
    for last in ["3\n", "3", "nonsense\n"] {
        let content = format!("1\nnonsense\n{last}");
        fs::write(&path, &content).expect("the disk works");
        assert!(matches!(open(&path), Err(Error::Damaged { line: 2, .. })));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), content);
    }
}

#[test]
fn a_file_cannot_be_opened_twice() {
    let (_folder, path) = folder();
    let (first, _) = open(&path).expect("a new file");
    assert!(matches!(open(&path), Err(Error::InUse)));
    drop(first);
    assert!(open(&path).is_ok());
}

#[tokio::test]
async fn a_closed_file_refuses_entries_and_has_written_all_earlier_ones() {
    let (_folder, path) = folder();
    let (file, _) = open(&path).expect("a new file");
    append(&file, 1).await.expect("it is open");
    file.close().await;
    file.close().await;
    assert!(matches!(append(&file, 2).await, Err(Error::Closed)));
    file.wait_durable(file.appended_length())
        .await
        .expect("everything was written");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "1\n");
}

/// Every write to this device fails as on a full disk.
#[tokio::test]
async fn a_failed_write_fails_everything_after_it() {
    let (_folder, path) = folder();
    std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
    // Another run of this test may have locked the device.
    let locked = loop {
        match LockedFile::open(&path) {
            Err(OpenError::InUse) => tokio::task::yield_now().await,
            opened => break opened.expect("the device is there"),
        }
    };
    let device = locked.append_after(0).expect("it is empty");
    let writer = Writer::start(device, "test").expect("a thread");
    let file = File { path, writer };
    append(&file, 1).await.expect("it is open");
    for _ in 0..2 {
        let durable = file.wait_durable(file.appended_length()).await;
        assert!(matches!(durable, Err(Error::Failed(_))));
        assert!(matches!(append(&file, 2).await, Err(Error::Failed(_))));
    }
}

/// Calls that wait at the same time share one sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_synced_once() {
    const CALLERS: u64 = 64;
    const CALLS: u64 = 20;
    let (_folder, path) = folder();
    let (file, _) = open(&path).expect("a new file");
    let file = Arc::new(file);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let file = Arc::clone(&file);
        callers.spawn(async move {
            for call in 0..CALLS {
                append(&file, caller * CALLS + call)
                    .await
                    .expect("it is open");
                file.wait_durable(file.appended_length())
                    .await
                    .expect("the disk works");
            }
        });
    }
    callers.join_all().await;
    let groups = file.writer.groups();
    assert!(
        groups < CALLERS * CALLS / 4,
        "{groups} syncs for {} calls",
        CALLERS * CALLS
    );

    drop(file);
    let (_file, mut entries) = open(&path).expect("it was closed");
    entries.sort_unstable();
    assert_eq!(entries, (0..CALLERS * CALLS).collect::<Vec<_>>());
}
