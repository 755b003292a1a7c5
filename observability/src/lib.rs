//! Telemetry set-up: logs on standard error, spans to a collector, and the trace context that travels with calls
//! and records.
//!
//! Spans that belong to a trace are made with `target: names::TRACE_TARGET`. Whether a trace is recorded is decided
//! once, where it begins; everything after that follows the decision it was handed ([`TraceParent`]).

pub mod metric;
pub mod names;

mod sampler;
mod settings;
mod telemetry;
mod trace_parent;

pub use metric::Metric;
pub use settings::{Format, Settings};
pub use telemetry::{Error, Telemetry, init};
pub use trace_parent::TraceParent;
