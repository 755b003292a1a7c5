//! Puts the layers of telemetry together, once per process.

use std::io::{self, IsTerminal};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::names;
use crate::settings::{Format, Settings};

/// Crates whose chatter is no news at `info`; a filter that names one of them wins.
const TAMED: &str = "h2=warn,hyper=warn,hyper_util=warn,librdkafka=warn,opentelemetry=warn,opentelemetry_sdk=warn,\
                     opentelemetry-otlp=warn,rdkafka=warn,sqlx=warn,tonic=warn,tower=warn";

/// Longest time that the last spans get to reach the collector.
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is bad.
    #[error("invalid value '{value}' for {name}: {reason}")]
    Invalid {
        /// The environment variable.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Telemetry is set up once per process.
    #[error("telemetry is set up already")]
    AlreadySetUp(#[source] tracing_subscriber::util::TryInitError),
}

impl Error {
    pub(crate) fn invalid(name: &'static str, value: &str, reason: impl ToString) -> Self {
        // Messages of parsers may span lines; ours is one.
        let reason = reason
            .to_string()
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ");
        Self::Invalid {
            name,
            value: value.to_owned(),
            reason,
        }
    }
}

/// The running telemetry of the process.
#[derive(Debug)]
#[must_use = "spans that are still in memory are lost without a shutdown"]
pub struct Telemetry {
    tracing: Option<SdkTracerProvider>,
}

/// Sets up logs and, where an endpoint is given, traces. Runs inside a tokio runtime, which carries the exporter.
///
/// # Errors
///
/// A bad filter or endpoint, or a second call in one process.
pub fn init(settings: &Settings) -> Result<Telemetry, Error> {
    let tracing = settings
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| tracer_provider(settings, endpoint))
        .transpose()?;

    let mut layers = vec![log_layer(settings)?];
    layers.extend(tracing.as_ref().map(trace_layer));
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(Error::AlreadySetUp)?;
    Ok(Telemetry { tracing })
}

impl Telemetry {
    /// Hands the last spans to the collector, waiting for it a few seconds at most.
    pub async fn shutdown(self) {
        let Some(provider) = self.tracing else { return };
        // The provider waits on its own thread; ours may be the one that carries the exporter.
        let flushed =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_DEADLINE))
                .await;
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans did not reach the collector"),
            Err(error) => tracing::warn!(%error, "flushing the last spans failed"),
        }
    }
}

fn log_layer(settings: &Settings) -> Result<BoxedLayer, Error> {
    // Spans of traces are for the exporter: without one they are disabled, and cost nothing.
    let directives = format!("{TAMED},{},{}=off", settings.filter, names::TRACE_TARGET);
    let filter = EnvFilter::try_new(directives)
        .map_err(|reason| Error::invalid(names::LOG, &settings.filter, reason))?;

    let terminal = io::stderr().is_terminal();
    let pretty = match settings.format {
        Format::Auto => terminal,
        Format::Pretty => true,
        Format::Json => false,
    };
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(terminal);
    Ok(if pretty {
        layer.with_filter(filter).boxed()
    } else {
        layer.json().flatten_event(true).with_filter(filter).boxed()
    })
}

fn trace_layer(provider: &SdkTracerProvider) -> BoxedLayer {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("ordermesh"))
        .with_filter(Targets::new().with_target(names::TRACE_TARGET, LevelFilter::INFO))
        .boxed()
}

fn tracer_provider(settings: &Settings, endpoint: &str) -> Result<SdkTracerProvider, Error> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|reason| Error::invalid(names::OTLP_ENDPOINT, endpoint, reason))?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.trace_ratio)));
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler)
        .with_resource(
            Resource::builder()
                .with_service_name(settings.service.clone())
                .build(),
        )
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(filter: &str) -> Settings {
        let mut settings = Settings::read("test", |_| None).expect("defaults are valid");
        settings.filter = filter.to_owned();
        settings
    }

    #[test]
    fn a_bad_filter_names_its_variable() {
        let error = init(&settings("orders=loud")).expect_err("there is no such level");
        let message = error.to_string();
        assert!(
            message.contains(names::LOG) && message.contains("orders=loud"),
            "{message}"
        );
        assert!(!message.contains('\n'), "{message}");
    }

    #[tokio::test]
    async fn a_bad_endpoint_names_its_variable() {
        let mut settings = settings("info");
        settings.otlp_endpoint = Some("not a url".into());
        let message = init(&settings).expect_err("it is no address").to_string();
        assert!(message.contains(names::OTLP_ENDPOINT), "{message}");
    }
}
