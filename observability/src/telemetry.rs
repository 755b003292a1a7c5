//! Sets up the layers of telemetry, once per process.

use std::io::{self, IsTerminal};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Format as LineFormat;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, fmt};

use crate::export::{BoundedSpanProcessor, Limits};
use crate::filter::{LogFilter, one_line};
use crate::log_format::{EventLayer, LineStyle, WithIds};
use crate::metrics::Spans;
use crate::names;
use crate::sampler::HeadSampler;
use crate::settings::{Format, Settings};

/// Limit on the links of a span. The span of a batch is linked to every sampled record in it; the SDK's default is 128.
const MAX_LINKS: u32 = 2_000;
/// Limit on the wait for the last spans at the shutdown.
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is invalid.
    #[error("invalid value '{value}' for {name}: {reason}")]
    Invalid {
        /// The environment variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// The reason.
        reason: String,
    },
    /// Telemetry can be set up only once per process.
    #[error("telemetry is set up already")]
    AlreadySetUp(#[source] tracing_subscriber::util::TryInitError),
}

impl Error {
    pub(crate) fn invalid(name: &'static str, value: &str, reason: impl ToString) -> Self {
        Self::Invalid {
            name,
            value: value.to_owned(),
            reason: one_line(&reason),
        }
    }
}

/// The running telemetry of the process.
#[derive(Debug)]
#[must_use = "spans that are still in memory are lost without a shutdown"]
pub struct Telemetry {
    tracing: Option<SdkTracerProvider>,
}

/// Sets up logs and, when an endpoint is set, traces. Must be called within a tokio runtime, which runs the exporter.
///
/// # Errors
///
/// A bad filter or endpoint, or a second call in one process.
pub fn init(settings: &Settings) -> Result<Telemetry, Error> {
    let tracing = settings
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| tracer_provider(settings, endpoint, Limits::default(), Spans::of_process()))
        .transpose()?;

    let (subscriber, filter) = subscriber(settings, tracing.as_ref(), io::stderr)?;
    subscriber.try_init().map_err(Error::AlreadySetUp)?;
    filter.publish();
    Ok(Telemetry { tracing })
}

/// One filter in front of all layers (the layer added last is called first). Per-layer filters are not used: such a
/// filter keeps its decision about a record of the `log` crate, or about a mere `enabled!` check, until the next event
/// or span of the same thread, which is then lost. As a consequence, enabled spans of every target reach the exporter;
/// only those of traces are enabled unless the filter names a library.
fn subscriber<W>(
    settings: &Settings,
    tracing: Option<&SdkTracerProvider>,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, LogFilter), Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (layer, filter) = LogFilter::new(&settings.filter, tracing.is_some())
        .map_err(|reason| Error::invalid(names::LOG, &settings.filter, reason))?;
    let tracing = tracing.map(|provider| {
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_tracer(provider.tracer("ordermesh"))
    });
    let subscriber = tracing_subscriber::registry()
        .with(tracing)
        .with(log_layer(settings, writer))
        .with(layer);
    Ok((subscriber, filter))
}

impl Telemetry {
    /// Flushes the last spans to the collector, for at most a few seconds.
    pub async fn shutdown(self) {
        let Some(provider) = self.tracing else { return };
        // Blocking, and this thread may be the one that runs the exporter.
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
    let format = LineFormat::default().with_ansi(terminal);
    let layer = fmt::layer().with_writer(writer).with_ansi(terminal);
    if pretty {
        EventLayer(layer.event_format(WithIds {
            format,
            style: LineStyle::Pretty,
        }))
        .boxed()
    } else {
        let format = format
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false);
        EventLayer(layer.event_format(WithIds {
            format,
            style: LineStyle::Json,
        }))
        .boxed()
    }
}

fn tracer_provider(
    settings: &Settings,
    endpoint: &str,
    limits: Limits,
    spans: Spans,
) -> Result<SdkTracerProvider, Error> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(limits.timeout)
        .build()
        .map_err(|reason| Error::invalid(names::OTLP_ENDPOINT, endpoint, reason))?;
    Ok(SdkTracerProvider::builder()
        .with_span_processor(BoundedSpanProcessor::new(exporter, limits, spans))
        .with_sampler(HeadSampler::new(settings.trace_ratio))
        .with_max_links_per_span(MAX_LINKS)
        .with_resource(resource(settings))
        .build())
}

/// The resource attributes of all spans.
fn resource(settings: &Settings) -> Resource {
    let instance = settings
        .instance
        .clone()
        .map(|instance| KeyValue::new(names::SERVICE_INSTANCE, instance));
    Resource::builder()
        .with_service_name(settings.service.clone())
        .with_attribute(KeyValue::new(
            names::SERVICE_VERSION,
            env!("CARGO_PKG_VERSION"),
        ))
        .with_attributes(instance)
        .build()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::TraceParent;

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

    /// A writer that collects log lines.
    #[derive(Clone, Default)]
    struct LogBuffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for LogBuffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl LogBuffer {
        fn take(&self) -> String {
            let written = std::mem::take(&mut *self.0.lock());
            String::from_utf8(written).expect("it is text")
        }
    }

    #[test]
    fn a_filtered_record_does_not_suppress_later_ones() {
        let _serialized = crate::filter::serialize_tests();
        let lines = LogBuffer::default();
        let writer = lines.clone();
        let (subscriber, filter) = subscriber(&settings("info"), None, move || writer.clone())
            .expect("the settings are good");
        tracing_log::LogTracer::init().expect("no other test takes the log");
        tracing::subscriber::with_default(subscriber, || {
            let log_lines = || {
                for _ in 0..3 {
                    log::debug!("chatter");
                    tracing::info!("news");
                }
                lines.take()
            };
            let written = log_lines();
            assert_eq!(written.matches("news").count(), 3, "{written}");
            assert!(!written.contains("chatter"), "{written}");

            filter.change("debug").expect("it is a filter");
            let written = log_lines();
            assert_eq!(written.matches("news").count(), 3, "{written}");
            assert_eq!(written.matches("chatter").count(), 3, "{written}");
        });

        // A record that is written does not suppress the next span either.
        let provider = SdkTracerProvider::builder().build();
        let writer = lines.clone();
        let (subscriber, _filter) =
            super::subscriber(&settings("info"), Some(&provider), move || writer.clone())
                .expect("the settings are good");
        tracing::subscriber::with_default(subscriber, || {
            for level in [log::Level::Debug, log::Level::Info, log::Level::Warn] {
                log::log!(level, "a record");
                log::log!(target: "rdkafka", level, "a record");
                // As the database client checks before it logs.
                assert!(tracing::enabled!(target: "asked", tracing::Level::INFO));
                let span = tracing::info_span!(target: names::TRACE_TARGET, "work");
                assert!(TraceParent::of(&span).is_some(), "{level}");
            }
        });
    }

    /// The log output of `log`, with traces sampled at `ratio`.
    fn logged(format: Format, ratio: f64, log: impl FnOnce()) -> String {
        let mut settings = settings("info");
        settings.format = format;
        let provider = SdkTracerProvider::builder()
            .with_sampler(HeadSampler::new(ratio))
            .build();
        let lines = LogBuffer::default();
        let writer = lines.clone();
        let (subscriber, _filter) = subscriber(&settings, Some(&provider), move || writer.clone())
            .expect("the settings are good");
        tracing::subscriber::with_default(subscriber, log);
        lines.take()
    }

    /// Logs one line in a span with an order id and one line in a nested span.
    fn log_about_an_order() {
        let outer = tracing::info_span!(
            target: names::TRACE_TARGET,
            "outer",
            { names::ORDER_ID } = tracing::field::Empty,
        );
        let _outer = outer.enter();
        outer.record(names::ORDER_ID, tracing::field::display("o\"1"));
        tracing::info!(answer = 42, "outside");
        let inner = tracing::info_span!(target: names::TRACE_TARGET, "inner", secret = 7);
        inner.in_scope(|| tracing::info!("inside"));
    }

    fn json(line: &str) -> serde_json::Value {
        serde_json::from_str(line).expect("a line is an object")
    }

    #[test]
    fn a_line_has_the_ids_of_its_trace_and_order() {
        let written = logged(Format::Json, 1.0, log_about_an_order);
        let lines: Vec<_> = written.lines().map(json).collect();
        let [outside, inside] = &lines[..] else {
            panic!("{written}");
        };
        assert_eq!(outside["message"], "outside");
        assert_eq!(outside["answer"], 42);
        assert_eq!(inside["message"], "inside");
        for line in [outside, inside] {
            assert_eq!(line["order_id"], "o\"1");
            assert_eq!(line["trace_id"].as_str().map(str::len), Some(32), "{line}");
            assert_eq!(line["span_id"].as_str().map(str::len), Some(16), "{line}");
        }
        assert_eq!(outside["trace_id"], inside["trace_id"]);
        assert_ne!(outside["span_id"], inside["span_id"]);

        let written = logged(Format::Pretty, 1.0, log_about_an_order);
        for line in written.lines() {
            for mark in [" trace_id=", " span_id=", " order_id=o\"1"] {
                assert!(line.contains(mark), "{line}");
            }
            assert!(!line.contains("secret"), "fields are for the trace: {line}");
        }
        assert_eq!(written.lines().count(), 2, "{written}");
    }

    #[test]
    fn a_trace_that_is_not_recorded_has_no_ids_in_the_log() {
        let written = logged(Format::Json, 0.0, log_about_an_order);
        for line in written.lines().map(json) {
            assert_eq!(line["order_id"], "o\"1");
            assert!(line.get("trace_id").is_none(), "{line}");
        }
        assert_eq!(written.lines().count(), 2, "{written}");
    }

    #[test]
    fn a_line_with_its_own_order_id_has_it_once() {
        let written = logged(Format::Json, 0.0, || {
            let span =
                tracing::info_span!(target: names::TRACE_TARGET, "work", order_id = "another");
            span.in_scope(|| tracing::info!(order_id = "mine", "done"));
        });
        assert_eq!(written.matches("order_id").count(), 1, "{written}");
        assert_eq!(json(&written)["order_id"], "mine");
    }

    #[test]
    fn a_line_outside_a_span_has_no_ids() {
        for format in [Format::Json, Format::Pretty] {
            let written = logged(format, 1.0, || tracing::info!("alone"));
            assert!(written.contains("alone"), "{written}");
            for mark in ["trace_id", "span_id", "order_id"] {
                assert!(!written.contains(mark), "{written}");
            }
        }
    }

    mod collector {
        use opentelemetry::trace::{Span as _, Tracer as _};
        use tokio::net::TcpListener;

        use super::*;

        const LIMITS: Limits = Limits {
            spans: 100,
            timeout: Duration::from_millis(200),
            // Batches are sent when the test flushes, or when they are full.
            delay: Duration::from_secs(3600),
        };

        fn provider(address: std::net::SocketAddr, spans: &Spans) -> SdkTracerProvider {
            let endpoint = format!("http://{address}");
            let mut settings = settings("info");
            settings.trace_ratio = 1.0;
            tracer_provider(&settings, &endpoint, LIMITS, spans.clone()).expect("it is an address")
        }

        /// Creates spans; blocks if creating a span blocks.
        fn create_spans(provider: &SdkTracerProvider, count: usize) {
            let tracer = provider.tracer("test");
            for _ in 0..count {
                tracer.start("work").end();
            }
        }

        async fn flush(provider: &SdkTracerProvider) {
            let provider = provider.clone();
            let flushed = tokio::task::spawn_blocking(move || provider.force_flush()).await;
            assert!(flushed.expect("it does not panic").is_err());
        }

        fn counted(spans: &Spans) -> [u64; 3] {
            [&spans.exported, &spans.failed, &spans.dropped].map(prometheus::IntCounter::get)
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn failed_and_dropped_spans_are_counted() {
            let listener = TcpListener::bind("127.0.0.1:0").await;
            let listener = listener.expect("some port is free");
            let address = listener.local_addr().expect("it is bound");
            drop(listener);
            let spans = Spans::unregistered();
            let provider = provider(address, &spans);
            create_spans(&provider, 70);
            assert_eq!(counted(&spans), [0, 0, 0]);
            flush(&provider).await;
            assert_eq!(counted(&spans), [0, 70, 0]);

            create_spans(&provider, 130);
            assert_eq!(
                counted(&spans),
                [0, 70, 30],
                "failed spans no longer count towards the limit"
            );
            flush(&provider).await;
            assert_eq!(counted(&spans), [0, 170, 30]);
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn a_collector_that_hangs_does_not_block_spans() {
            // The system accepts the connection, and no answer ever arrives.
            let listener = TcpListener::bind("127.0.0.1:0").await;
            let listener = listener.expect("some port is free");
            let spans = Spans::unregistered();
            let provider = provider(listener.local_addr().expect("it is bound"), &spans);
            create_spans(&provider, 250);
            assert_eq!(counted(&spans), [0, 0, 150]);
            flush(&provider).await;
            assert_eq!(counted(&spans), [0, 100, 150]);
        }
    }
}
