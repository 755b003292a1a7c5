//! The log filter, which can be changed while the process runs.

use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::reload;

use crate::names;

/// Crates whose chatter is no news at `info`; a filter that names one of them wins. What the SDK of OpenTelemetry has
/// to say, we say ourselves.
const TAMED: &str = "h2=warn,hyper=warn,hyper_util=warn,librdkafka=warn,opentelemetry=warn,opentelemetry_sdk=off,\
                     opentelemetry-otlp=warn,rdkafka=warn,sqlx=warn,tonic=warn,tower=warn";

/// Why a filter is no good. Nothing was changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    /// There is nothing in it.
    #[error("a filter is needed, such as 'info' or 'info,engine=debug'")]
    Empty,
    /// A part of it cannot be read.
    #[error("'{directive}' is no part of a filter: {reason}")]
    Directive {
        /// The part.
        directive: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process has no filter that could be changed.
    #[error("the log of this process cannot be changed")]
    Fixed,
}

/// The filter of the process's log, in the syntax of `tracing_subscriber::EnvFilter`. Traces do not depend on it.
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

static OF_PROCESS: OnceLock<LogFilter> = OnceLock::new();

/// The filter of this process; `None` before telemetry is set up.
pub fn log_filter() -> Option<&'static LogFilter> {
    OF_PROCESS.get()
}

impl LogFilter {
    /// A filter and the layer that applies it; `traces` says whether spans of traces are let through.
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

    /// Makes this the filter of the process.
    pub(crate) fn publish(self) {
        // Telemetry is set up once: nobody was faster.
        let _ = OF_PROCESS.set(self);
    }

    /// What it is now.
    pub fn text(&self) -> String {
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes it, at once and for all threads.
    ///
    /// # Errors
    ///
    /// [`BadFilter`] names what cannot be read.
    pub fn change(&self, text: &str) -> Result<(), BadFilter> {
        let text = text.trim();
        let filter = parse(text, self.traces)?;
        let mut current = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        (self.reload)(filter).map_err(|_gone| BadFilter::Fixed)?;
        text.clone_into(&mut current);
        Ok(())
    }
}

fn parse(text: &str, traces: bool) -> Result<EnvFilter, BadFilter> {
    // The parser of directives looks at them without the blanks around, and cuts them with.
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
    // Spans of traces are for the exporter: without one they are disabled, and cost nothing.
    let traces = if traces { "info" } else { "off" };
    let directives = format!("{TAMED},{text},{}={traces}", names::TRACE_TARGET);
    EnvFilter::try_new(directives).map_err(|reason| bad(&text, &reason))
}

fn bad(directive: &str, reason: &impl ToString) -> BadFilter {
    BadFilter::Directive {
        directive: directive.to_owned(),
        reason: one_line(reason),
    }
}

/// Messages of parsers may span lines; ours is one.
pub(crate) fn one_line(reason: &impl ToString) -> String {
    let reason = reason.to_string();
    let lines: Vec<_> = reason.lines().map(str::trim).collect();
    lines.join(" ")
}

/// The level of the `log` crate belongs to the whole process: tests that change filters do so one after the other.
#[cfg(test)]
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static LEVEL: Mutex<()> = Mutex::new(());
    LEVEL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn what_is_wrong_is_named_and_changes_nothing() {
        let _alone = alone();
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
    fn blanks_around_its_parts_say_nothing() {
        let _alone = alone();
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
            assert!(tracing::enabled!(target: "anybody", tracing::Level::DEBUG));
        });
    }

    #[test]
    fn traces_do_not_depend_on_it() {
        let _alone = alone();
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
            assert!(span.is_disabled(), "nobody would export it");
        });
    }

    #[test]
    fn without_a_subscriber_it_says_so() {
        let _alone = alone();
        let (layer, filter) =
            LogFilter::new::<tracing_subscriber::Registry>("info", true).expect("it is a filter");
        drop(layer);
        assert_eq!(filter.change("debug"), Err(BadFilter::Fixed));
    }
}
