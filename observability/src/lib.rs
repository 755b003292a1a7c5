//! Telemetry set-up: logs on standard error, spans to a collector, and the trace context of calls and records.
//!
//! Spans of a trace are created with `target: names::TRACE_TARGET`. The sampling decision is made where a trace
//! begins; all later spans follow the decision in their [`TraceParent`].
//!
//! Metrics are defined with [`Metric`]; those of this crate are in [`metrics`].

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
pub use trace_parent::{TraceParent, mark_failed, record_order_id};
