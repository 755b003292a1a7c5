//! The file: first locked and read, then appended to.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::LineReader;

/// Why a file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is open for appending already, by this process or by another one.
    #[error("the file is already open for appending")]
    InUse,
    /// The system refuses it.
    #[error("I/O failed")]
    Io(#[source] io::Error),
}

/// A file that no other process can open for appending. Its last line may be torn.
#[derive(Debug)]
pub struct LockedFile {
    file: File,
    length: u64,
}

impl LockedFile {
    /// Opens the file or creates it. Its directory entry is durable afterwards.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(OpenError::Io)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse,
            TryLockError::Error(error) => OpenError::Io(error),
        })?;
        let length = file.metadata().map_err(OpenError::Io)?.len();
        sync_folder(path).map_err(OpenError::Io)?;
        Ok(Self { file, length })
    }

    /// The lines from the start.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn lines(&self) -> io::Result<LineReader<&File>> {
        let mut file = &self.file;
        file.rewind()?;
        Ok(LineReader::new(file))
    }

    /// The length, bytes.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Truncates to `length` bytes, which must be the end of a line.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or is shorter than `length`.
    pub fn append_after(self, length: u64) -> io::Result<AppendOnlyFile> {
        let mut file = self.file;
        if length > self.length {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the file has {} bytes only, not {length}", self.length),
            ));
        }
        if length < self.length {
            file.set_len(length)?;
            file.sync_all()?;
        }
        file.seek(SeekFrom::Start(length))?;
        Ok(AppendOnlyFile { file, length })
    }
}

/// A locked file of complete lines.
#[derive(Debug)]
pub struct AppendOnlyFile {
    pub(crate) file: File,
    pub(crate) length: u64,
}

impl AppendOnlyFile {
    /// Appends complete lines, and returns when they are durable.
    ///
    /// # Errors
    ///
    /// The file cannot be written or synced. What it holds after its former length is unknown until it is opened again:
    /// nothing more may be appended.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)?;
        self.file.sync_data()?;
        self.length += lines.len() as u64;
        Ok(())
    }
}

/// Syncs the folder: a new file survives a crash only when its directory entry does.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests;
