//! Puts the layers of telemetry together, once per process.

use std::io::{self, IsTerminal};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::names;
use crate::sampler::Head;
use crate::settings::{Format, Settings};

/// Crates whose chatter is no news at `info`; a filter that names one of them wins.
const TAMED: &str = "h2=warn,hyper=warn,hyper_util=warn,librdkafka=warn,opentelemetry=warn,opentelemetry_sdk=warn,\
                     opentelemetry-otlp=warn,rdkafka=warn,sqlx=warn,tonic=warn,tower=warn";

/// Longest time that the last spans get to reach the collector.
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

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

    subscriber(settings, tracing.as_ref(), io::stderr)?
        .try_init()
        .map_err(Error::AlreadySetUp)?;
    Ok(Telemetry { tracing })
}

/// One filter in front of all layers (the last one added is asked first): a filter of a layer's own keeps its verdict
/// on a record of the `log` crate until the next event of the same thread, which is then lost.
fn subscriber<W>(
    settings: &Settings,
    tracing: Option<&SdkTracerProvider>,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // Spans of traces are for the exporter: without one they are disabled, and cost nothing.
    let traces = if tracing.is_some() { "info" } else { "off" };
    let directives = format!(
        "{TAMED},{},{}={traces}",
        settings.filter,
        names::TRACE_TARGET
    );
    let filter = EnvFilter::try_new(directives)
        .map_err(|reason| Error::invalid(names::LOG, &settings.filter, reason))?;
    let tracing = tracing.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("ordermesh"))
            .with_filter(Targets::new().with_target(names::TRACE_TARGET, LevelFilter::INFO))
    });
    Ok(tracing_subscriber::registry()
        .with(tracing)
        .with(log_layer(settings, writer))
        .with(filter))
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

fn log_layer<S, W>(settings: &Settings, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let terminal = io::stderr().is_terminal();
    let pretty = match settings.format {
        Format::Auto => terminal,
        Format::Pretty => true,
        Format::Json => false,
    };
    let layer = fmt::layer().with_writer(writer).with_ansi(terminal);
    if pretty {
        layer.boxed()
    } else {
        layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed()
    }
}

fn tracer_provider(settings: &Settings, endpoint: &str) -> Result<SdkTracerProvider, Error> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|reason| Error::invalid(names::OTLP_ENDPOINT, endpoint, reason))?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Head::new(settings.trace_ratio))
        .with_resource(
            Resource::builder()
                .with_service_name(settings.service.clone())
                .build(),
        )
        .build())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

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

    /// What was written, line by line.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no holder panics").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_that_is_filtered_out_takes_no_other_with_it() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(&settings("info"), None, move || writer.clone())
            .expect("the settings are good");
        tracing_log::LogTracer::init().expect("no other test takes the log");
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                log::debug!("chatter");
                tracing::info!("news");
            }
        });
        let written = lines.0.lock().expect("no holder panics").clone();
        let written = String::from_utf8(written).expect("it is text");
        assert_eq!(written.matches("news").count(), 3, "{written}");
        assert!(!written.contains("chatter"), "{written}");
    }
}
