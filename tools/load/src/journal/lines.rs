//! The lines of a journal: one fact in JSON on each.

use std::path::Path;

use super::{Error, Fact, History};
use crate::baskets::BasketFile;

/// Reads a journal without checking to which file of baskets it belongs.
///
/// # Errors
///
/// See [`Error`].
pub fn history(path: &Path) -> Result<History, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(parse_history(path, &bytes, None)?.0)
}

/// All facts of a journal, in the order in which they were written.
///
/// # Errors
///
/// See [`Error`].
pub fn facts(path: &Path) -> Result<Vec<Fact>, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    let mut facts = Vec::new();
    parse(path, &bytes, None, |fact| facts.push(fact))?;
    Ok(facts)
}

pub(super) fn encode(fact: &Fact) -> Vec<u8> {
    let mut line = serde_json::to_vec(fact).expect("facts are plain data");
    line.push(b'\n');
    line
}

/// The history, and the length in bytes of the complete lines.
pub(super) fn parse_history(
    path: &Path,
    bytes: &[u8],
    baskets: Option<&BasketFile>,
) -> Result<(History, u64), Error> {
    let mut history = History::default();
    let complete = parse(path, bytes, baskets, |fact| history.apply(fact))?;
    Ok((history, complete))
}

/// Passes each fact to `each`. Returns the length in bytes of the complete lines.
fn parse(
    path: &Path,
    bytes: &[u8],
    baskets: Option<&BasketFile>,
    mut each: impl FnMut(Fact),
) -> Result<u64, Error> {
    let complete = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    for (index, text) in bytes[..complete]
        .split_inclusive(|byte| *byte == b'\n')
        .enumerate()
    {
        let invalid_line = || Error::InvalidLine {
            path: path.to_owned(),
            line: index + 1,
        };
        let fact: Fact = serde_json::from_slice(text).map_err(|_| invalid_line())?;
        match (&fact, index, baskets) {
            (Fact::File { name, sha256 }, 0, Some(baskets)) if *sha256 != baskets.digest => {
                return Err(Error::OtherFile {
                    path: path.to_owned(),
                    other: name.clone(),
                });
            }
            (Fact::File { .. }, 0, _) => {}
            (Fact::File { .. }, ..) | (_, 0, _) => return Err(invalid_line()),
            _ => {}
        }
        each(fact);
    }
    // Not a journal, unless it was cut off within its first line.
    if complete == 0 && !bytes.is_empty() && !bytes.starts_with(b"{") {
        return Err(Error::InvalidLine {
            path: path.to_owned(),
            line: 1,
        });
    }
    Ok(complete as u64)
}
