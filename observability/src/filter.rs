//! The log filter, which can be changed at run time.

use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::reload;

use crate::names;

/// Default levels of libraries that log too much at `info`; a filter that names one of them overrides its level. The
/// OpenTelemetry SDK is off because export failures are logged by this crate.
const LIBRARY_LEVELS: &str = "h2=warn,hyper=warn,hyper_util=warn,librdkafka=warn,opentelemetry=warn,opentelemetry_sdk=off,\
                     opentelemetry-otlp=warn,rdkafka=warn,sqlx=warn,tonic=warn,tower=warn";

/// Why a filter was rejected. The current filter stays.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    /// The filter is empty.
    #[error("a filter is needed, such as 'info' or 'info,engine=debug'")]
    Empty,
    /// A directive cannot be parsed.
    #[error("'{directive}' is not a valid filter directive: {reason}")]
    Directive {
        /// The directive.
        directive: String,
        /// The parser's error.
        reason: String,
    },
    /// The process has no log filter that can be changed.
    #[error("the log filter of this process cannot be changed")]
    Fixed,
}

/// The log filter of the process, in the syntax of `tracing_subscriber::EnvFilter`. Traces do not depend on it.
pub struct LogFilter {
    text: Mutex<String>,
    traces: bool,
    reload: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

impl std::fmt::Debug for LogFilter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LogFilter")
            .field("text", &self.text)
            .finish_non_exhaustive()
    }
}

static PROCESS_FILTER: OnceLock<LogFilter> = OnceLock::new();

/// The log filter of this process; `None` before telemetry is set up.
pub fn log_filter() -> Option<&'static LogFilter> {
    PROCESS_FILTER.get()
}

impl LogFilter {
    /// A filter and the layer that applies it; `traces` says whether the spans of traces are enabled.
    pub(crate) fn new<S: Subscriber>(
        text: &str,
        traces: bool,
    ) -> Result<(reload::Layer<EnvFilter, S>, Self), BadFilter> {
        let (layer, handle) = reload::Layer::new(parse(text, traces)?);
        let filter = Self {
            text: Mutex::new(text.to_owned()),
            traces,
            reload: Box::new(move |filter| handle.reload(filter)),
        };
        Ok((layer, filter))
    }

    /// Makes this the filter that [`log_filter`] returns.
    pub(crate) fn publish(self) {
        // Telemetry is set up once, so the cell is empty.
        let _ = PROCESS_FILTER.set(self);
    }

    /// The current filter.
    pub fn text(&self) -> String {
        self.text.lock().clone()
    }

    /// Changes the filter, at once and for all threads.
    ///
    /// # Errors
    ///
    /// [`BadFilter`] names the directive that cannot be parsed.
    pub fn change(&self, text: &str) -> Result<(), BadFilter> {
        let text = text.trim();
        let filter = parse(text, self.traces)?;
        let mut current = self.text.lock();
        (self.reload)(filter).map_err(|_no_subscriber| BadFilter::Fixed)?;
        text.clone_into(&mut current);
        Ok(())
    }
}

fn parse(text: &str, traces: bool) -> Result<EnvFilter, BadFilter> {
    // Trimmed, because the parser of directives does not handle surrounding blanks consistently.
    let directives: Vec<_> = text
        .split(',')
        .map(str::trim)
        .filter(|directive| !directive.is_empty())
        .collect();
    if directives.is_empty() {
        return Err(BadFilter::Empty);
    }
    for directive in &directives {
        if let Err(reason) = directive.parse::<Directive>() {
            return Err(bad(directive, &reason));
        }
    }
    let text = directives.join(",");
    // Spans of traces are disabled without an exporter, so that they cost nothing.
    let traces = if traces { "info" } else { "off" };
    let directives = format!("{LIBRARY_LEVELS},{text},{}={traces}", names::TRACE_TARGET);
    EnvFilter::try_new(directives).map_err(|reason| bad(&text, &reason))
}

fn bad(directive: &str, reason: &impl ToString) -> BadFilter {
    BadFilter::Directive {
        directive: directive.to_owned(),
        reason: one_line(reason),
    }
}

/// The message of a parser, which may span lines, on one line.
pub(crate) fn one_line(reason: &impl ToString) -> String {
    let reason = reason.to_string();
    let lines: Vec<_> = reason.lines().map(str::trim).collect();
    lines.join(" ")
}

/// Serialises the tests that change filters: the level of the `log` crate is global to the process.
#[cfg(test)]
pub(crate) fn serialize_tests() -> parking_lot::MutexGuard<'static, ()> {
    static LEVEL: Mutex<()> = Mutex::new(());
    LEVEL.lock()
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn an_invalid_filter_is_rejected_and_changes_nothing() {
        let _serialized = serialize_tests();
        let (layer, filter) = LogFilter::new("info", true).expect("it is a filter");
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let bad = filter.change("info,orders=loud,h2=warn");
            let message = bad.expect_err("there is no such level").to_string();
            assert!(message.contains("'orders=loud'"), "{message}");
            assert!(!message.contains('\n'), "{message}");
            for empty in ["", " ", ",", " , "] {
                assert_eq!(filter.change(empty), Err(BadFilter::Empty), "{empty:?}");
            }
            assert_eq!(filter.text(), "info");
            assert!(!tracing::enabled!(tracing::Level::DEBUG));

            filter.change(" debug\n").expect("it is a filter");
            assert_eq!(filter.text(), "debug");
            assert!(tracing::enabled!(tracing::Level::DEBUG));
        });
    }

    #[test]
    fn blanks_around_directives_are_ignored() {
        let _serialized = serialize_tests();
        let (layer, filter) = LogFilter::new("error", true).expect("it is a filter");
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            for text in ["error, asked=debug", "error,\u{3000}asked=debug ,"] {
                filter.change("error").expect("it is a filter");
                assert!(!tracing::enabled!(target: "asked", tracing::Level::DEBUG));
                filter.change(text).expect("it is a filter");
                assert!(
                    tracing::enabled!(target: "asked", tracing::Level::DEBUG),
                    "{text:?}"
                );
            }
            filter.change("error, debug").expect("it is a filter");
            assert!(tracing::enabled!(target: "another", tracing::Level::DEBUG));
        });
    }

    #[test]
    fn traces_do_not_depend_on_the_filter() {
        let _serialized = serialize_tests();
        let (layer, filter) = LogFilter::new("info", true).expect("it is a filter");
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            for text in ["error", "off", "ordermesh::trace=off", "ordermesh=off"] {
                filter.change(text).expect("it is a filter");
                let span = tracing::info_span!(target: names::TRACE_TARGET, "work");
                assert!(!span.is_disabled(), "{text}");
            }
        });
        let (layer, filter) = LogFilter::new("info", false).expect("it is a filter");
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            filter.change("trace").expect("it is a filter");
            let span = tracing::info_span!(target: names::TRACE_TARGET, "work");
            assert!(span.is_disabled(), "there is no exporter");
        });
    }

    #[test]
    fn a_filter_without_a_subscriber_is_fixed() {
        let _serialized = serialize_tests();
        let (layer, filter) =
            LogFilter::new::<tracing_subscriber::Registry>("info", true).expect("it is a filter");
        drop(layer);
        assert_eq!(filter.change("debug"), Err(BadFilter::Fixed));
    }
}
