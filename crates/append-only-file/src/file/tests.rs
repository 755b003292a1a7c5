use std::fs;
use std::path::PathBuf;

use super::*;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    (folder, path)
}

/// Opens the file, returns its lines, and cuts off what follows them.
fn open(path: &Path) -> (AppendOnlyFile, Vec<Vec<u8>>) {
    let locked = LockedFile::open(path).unwrap();
    let mut lines = locked.lines().unwrap();
    let mut read = Vec::new();
    while let Some(line) = lines.next_line().unwrap() {
        read.push(line.to_vec());
        assert_eq!(lines.number(), read.len() as u64);
    }
    let end = lines.position();
    assert_eq!(end + lines.incomplete().len() as u64, locked.length());
    (locked.append_after(end).unwrap(), read)
}

#[test]
fn a_file_that_is_cut_anywhere_keeps_its_complete_lines() {
    let lines: [&[u8]; 3] = [b"first\n", b"\n", "l\u{e4}st\n".as_bytes()];
    let whole = lines.concat();
    for cut in 0..=whole.len() {
        let (_folder, path) = folder();
        fs::write(&path, &whole[..cut]).unwrap();
        let complete = whole[..cut].iter().filter(|byte| **byte == b'\n').count();

        let (mut file, read) = open(&path);
        assert_eq!(read, lines[..complete], "cut at {cut}");
        file.append(b"next\n").unwrap();
        drop(file);
        let expected = [&lines[..complete], &[b"next\n"]].concat().concat();
        assert_eq!(fs::read(&path).unwrap(), expected, "cut at {cut}");
    }
}

#[test]
fn the_caller_may_cut_off_a_complete_line() {
    let (_folder, path) = folder();
    fs::write(&path, "1\nnonsense\n").unwrap();
    let mut file = LockedFile::open(&path).unwrap().append_after(2).unwrap();
    file.append(b"2\n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"1\n2\n");
}

#[test]
fn a_file_is_never_made_longer() {
    let (_folder, path) = folder();
    fs::write(&path, "1\n").unwrap();
    let error = LockedFile::open(&path).unwrap().append_after(3);
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(fs::read(&path).unwrap(), b"1\n");
}

#[test]
fn a_file_is_opened_once_and_is_unchanged_by_a_refusal() {
    let (_folder, path) = folder();
    fs::write(&path, "1\ntorn").unwrap();
    let locked = LockedFile::open(&path).unwrap();
    assert!(matches!(LockedFile::open(&path), Err(OpenError::InUse)));
    assert_eq!(fs::read(&path).unwrap(), b"1\ntorn");
    let file = locked.append_after(2).unwrap();
    assert!(matches!(LockedFile::open(&path), Err(OpenError::InUse)));
    drop(file);
    assert!(LockedFile::open(&path).is_ok());
}

#[test]
fn a_path_without_a_folder_is_an_error() {
    let (folder, _) = folder();
    let path = folder.path().join("none/file");
    assert!(matches!(LockedFile::open(&path), Err(OpenError::Io(_))));
}
