//! The journal of a load: a file that records the result of every basket. The order id is recorded before a basket is
//! first sent, so that a basket is never placed under two ids.

mod client_observations;
mod file;
mod history;
mod lines;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use client_observations::read as client_observations;
pub use file::Journal;
pub use history::{BasketResult, BasketState, History};
pub use lines::{facts, history};

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read or written.
    #[error("journal {path}", path = path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another load uses it.
    #[error("journal {path} is in use by another load", path = path.display())]
    InUse {
        /// The journal.
        path: PathBuf,
    },
    /// It belongs to another file of baskets.
    #[error("journal {path} belongs to another file, {other}; name another --journal", path = path.display())]
    OtherFile {
        /// The journal.
        path: PathBuf,
        /// Name of the file that it belongs to.
        other: String,
    },
    /// The file of baskets has changed.
    #[error(
        "journal {path} was begun with another content of {file}: restore the file; with another --journal every \
         basket would be placed again, as a new order",
        path = path.display()
    )]
    ChangedFile {
        /// The journal.
        path: PathBuf,
        /// Name of the file.
        file: String,
    },
    /// A line cannot be decoded.
    #[error("{path}:{line}: not a line of a journal", path = path.display())]
    InvalidLine {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
}

impl Error {
    /// Whether the named file is the wrong one.
    pub const fn is_input(&self) -> bool {
        matches!(
            self,
            Self::OtherFile { .. } | Self::ChangedFile { .. } | Self::InvalidLine { .. }
        )
    }
}

/// One record of the journal. `basket` is the id of the basket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// The file of baskets that the journal belongs to; always the first line.
    File {
        /// Name of the file of baskets.
        name: String,
        /// Digest of its bytes, hexadecimal.
        sha256: String,
    },
    /// From now on the basket is sent under this order id.
    Chosen {
        /// The basket.
        basket: String,
        /// The order id.
        order_id: Uuid,
    },
    /// The API has refused a line: the basket is placed without it.
    LineRefused {
        /// The basket.
        basket: String,
        /// The line's number in the file, from 1.
        line: u64,
        /// The product.
        sku: String,
        /// The reason.
        reason: String,
    },
    /// The basket became an order.
    Acknowledged {
        /// The basket.
        basket: String,
        /// The order id.
        order_id: Uuid,
        /// The order's status in the answer.
        status: String,
        /// The order's version in the answer.
        version: u64,
        /// Lines of the order.
        lines: usize,
        /// Total of the order, in minor units.
        cents: i64,
    },
    /// The basket will never be an order.
    Refused {
        /// The basket.
        basket: String,
        /// The reason.
        reason: String,
    },
    /// A reader saw an order in this version.
    Read {
        /// Name of the reader.
        reader: String,
        /// The order.
        order_id: Uuid,
        /// The version.
        version: u64,
    },
}

#[cfg(test)]
mod tests;
