//! The lines of a journal: one fact in JSON on each.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use append_only_file::LineReader;

use super::{Error, Fact, History};
use crate::baskets::BasketFile;

/// Reads a journal without checking to which file of baskets it belongs.
///
/// # Errors
///
/// See [`Error`].
pub fn history(path: &Path) -> Result<History, Error> {
    Ok(parse_history(path, open(path)?, None)?.0)
}

/// All facts of a journal, in the order in which they were written.
///
/// # Errors
///
/// See [`Error`].
pub fn facts(path: &Path) -> Result<Vec<Fact>, Error> {
    let mut facts = Vec::new();
    parse(path, open(path)?, None, |fact| facts.push(fact))?;
    Ok(facts)
}

/// The beginning of the first line of every journal.
const HEADER_START: &[u8] = br#"{"fact":"file""#;

fn open(path: &Path) -> Result<LineReader<File>, Error> {
    let file = File::open(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(LineReader::new(file))
}

pub(super) fn encode(fact: &Fact) -> Vec<u8> {
    let mut line = serde_json::to_vec(fact).expect("facts are plain data");
    line.push(b'\n');
    line
}

/// The history, and the length in bytes of the complete lines.
pub(super) fn parse_history(
    path: &Path,
    lines: LineReader<impl Read>,
    baskets: Option<&BasketFile>,
) -> Result<(History, u64), Error> {
    let mut history = History::default();
    let complete = parse(path, lines, baskets, |fact| history.apply(fact))?;
    Ok((history, complete))
}

/// Passes each fact to `each`. Returns the length in bytes of the complete lines.
fn parse(
    path: &Path,
    mut lines: LineReader<impl Read>,
    baskets: Option<&BasketFile>,
    mut each: impl FnMut(Fact),
) -> Result<u64, Error> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let invalid_line = |line| Error::InvalidLine {
        path: path.to_owned(),
        line,
    };
    while let Some(text) = lines.next_line().map_err(io)? {
        let fact = serde_json::from_slice(text);
        let number = lines.number();
        let fact = fact.map_err(|_| invalid_line(number))?;
        match (&fact, number, baskets) {
            (Fact::File { name, sha256 }, 1, Some(baskets)) if *sha256 != baskets.digest => {
                if *name == baskets.name {
                    return Err(Error::ChangedFile {
                        path: path.to_owned(),
                        file: name.clone(),
                    });
                }
                return Err(Error::OtherFile {
                    path: path.to_owned(),
                    other: name.clone(),
                });
            }
            (Fact::File { .. }, 1, _) => {}
            (Fact::File { .. }, ..) | (_, 1, _) => return Err(invalid_line(number)),
            _ => {}
        }
        each(fact);
    }
    let (complete, incomplete) = (lines.position(), lines.incomplete());
    // Not a journal, unless it was cut off within its first line.
    let may_be_header =
        incomplete.starts_with(HEADER_START) || HEADER_START.starts_with(incomplete);
    if complete == 0 && !may_be_header {
        return Err(invalid_line(1));
    }
    Ok(complete)
}
