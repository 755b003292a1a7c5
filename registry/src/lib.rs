//! The schema registry client, the framing of records, and the compatibility check that keeps every record readable.
//!
//! - [`frame`]: the six header bytes before every payload.
//! - [`Schemas`]: the schema ids of the topics; registers at start-up, answers from memory afterwards.
//! - [`schema`]: the registered text, rendered from the descriptors.
//! - [`compatibility`]: which changes of a schema are allowed.

pub mod compatibility;
pub mod frame;
pub mod metrics;
pub mod schema;

mod backoff;
mod client;
mod error;
mod reader;
mod register;
mod relation;
mod schemas;
mod table;

pub use error::Error;
pub use frame::{Framed, frame_header, unframe};
pub use metrics::Metrics;
pub use register::{Registration, SubjectStatus};
pub use schemas::{Schemas, Settings};
pub use table::Resolution;
