//! Contracts on the wire: the schema registry's client, the framing of records, and the gate that keeps every
//! record readable for ever.
//!
//! - [`frame`]: the six bytes before every payload.
//! - [`Schemas`]: the schema ids of the topics; registers at start-up, answers from memory afterwards.
//! - [`schema`]: what is registered, rendered from the descriptors.
//! - [`gate`]: which changes of a schema are allowed.

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
pub use register::{Registered, Standing};
pub use schemas::{Schemas, Settings};
pub use table::Resolution;
