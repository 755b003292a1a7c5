use super::*;

/// Every write to this device fails as on a full disk.
#[tokio::test]
async fn a_failed_write_fails_everything_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    // Another run of this test may have locked the device.
    let locked = loop {
        match LockedFile::open(&path) {
            Err(OpenError::InUse) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    let device = locked.append_after(0).unwrap();
    let journal = Journal {
        path,
        history: Mutex::default(),
        writer: Writer::start(device, "test").unwrap(),
    };
    for _ in 0..3 {
        let fact = Fact::Refused {
            basket: "1".into(),
            reason: "no line".into(),
        };
        let error = journal.record(vec![fact]).await.unwrap_err();
        assert!(
            matches!(&error, Error::Io { source, .. }
                if source.to_string().starts_with("No space left on device")),
            "{error:?}"
        );
    }
    assert_eq!(journal.history().basket("1").result, None);
}
