//! Telemetry set-up: logs on standard error, spans to a collector, and the trace context that travels with calls
//! and records.
//!
//! Spans that belong to a trace are made with `target: names::TRACE_TARGET`. Whether a trace is recorded is decided
//! once, where it begins; everything after that follows the decision it was handed ([`TraceParent`]).
//!
//! Metrics are defined with [`Metric`]; those of this crate stand in [`metrics`].

pub mod exposition;
pub mod metric;
pub mod metrics;
pub mod names;

mod exemplars;
mod export;
mod filter;
mod log_format;
mod outage;
mod sampler;
mod scraped;
mod settings;
mod telemetry;
mod trace_parent;

pub use exemplars::TracedHistograms;
pub use filter::{BadFilter, LogFilter, log_filter};
pub use metric::Metric;
pub use outage::Outage;
pub use scraped::Samples;
pub use settings::{Format, Settings};
pub use telemetry::{Error, Telemetry, init};
pub use trace_parent::{TraceParent, about_order, fail};
