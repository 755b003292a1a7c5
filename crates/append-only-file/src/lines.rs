//! Reads the complete lines of a file.

use std::io::{self, BufRead as _, BufReader, Read};

/// No line of ours is as long. A file without lines, such as a device, is not read into memory.
const MAX_LINE: u64 = 1024 * 1024;

/// Reads complete lines. A last line without its newline is not returned: a writer is still writing it, or a crash has
/// torn it.
#[derive(Debug)]
pub struct LineReader<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    number: u64,
    position: u64,
}

impl<R: Read> LineReader<R> {
    /// A reader of the lines of `reader`.
    pub fn new(reader: R) -> Self {
        Self {
            reader: BufReader::new(reader),
            line: Vec::new(),
            number: 0,
            position: 0,
        }
    }

    /// The next line with its newline; `None` after the last complete line. A later call returns an incomplete line
    /// once a writer has completed it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a line is longer than 1 MiB.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        if self.line.ends_with(b"\n") {
            self.line.clear();
        }
        let room = MAX_LINE.saturating_sub(self.line.len() as u64);
        let mut limited = self.reader.by_ref().take(room);
        limited.read_until(b'\n', &mut self.line)?;
        if !self.line.ends_with(b"\n") {
            if self.line.len() as u64 >= MAX_LINE {
                let number = self.number + 1;
                let message = format!("line {number} is longer than {MAX_LINE} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            return Ok(None);
        }
        self.number += 1;
        self.position += self.line.len() as u64;
        Ok(Some(&self.line))
    }

    /// The number of the last line read, from 1; 0 before the first.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The end of the last line read, bytes from the start.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// What follows the last complete line, once [`LineReader::next_line`] has returned `None`.
    pub fn incomplete(&self) -> &[u8] {
        if self.line.ends_with(b"\n") {
            return &[];
        }
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;

    use super::LineReader;

    #[test]
    fn a_file_without_lines_is_an_error() {
        let mut lines = LineReader::new(File::open("/dev/zero").unwrap());
        let error = lines.next_line().unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");

        let longest = [vec![b'a'; 1024 * 1024 - 1], vec![b'\n']].concat();
        let mut lines = LineReader::new(longest.as_slice());
        assert_eq!(lines.next_line().unwrap(), Some(longest.as_slice()));
        assert_eq!(lines.next_line().unwrap(), None);
    }

    #[test]
    fn an_incomplete_line_is_returned_once_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "1\n2").unwrap();
        let mut lines = LineReader::new(File::open(&path).unwrap());
        assert_eq!(lines.next_line().unwrap(), Some(b"1\n".as_slice()));
        for _ in 0..2 {
            assert_eq!(lines.next_line().unwrap(), None);
            assert_eq!(lines.incomplete(), b"2");
            assert_eq!((lines.number(), lines.position()), (1, 2));
        }

        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"3\n4\n").unwrap();
        assert_eq!(lines.next_line().unwrap(), Some(b"23\n".as_slice()));
        assert_eq!(lines.next_line().unwrap(), Some(b"4\n".as_slice()));
        assert_eq!(lines.next_line().unwrap(), None);
        assert_eq!(lines.incomplete(), b"");
        assert_eq!((lines.number(), lines.position()), (3, 7));
    }
}
