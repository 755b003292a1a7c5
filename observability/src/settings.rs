//! Settings of telemetry.

use std::str::FromStr;

use crate::names;
use crate::telemetry::Error;

const DEFAULT_FILTER: &str = "info";
const DEFAULT_TRACE_RATIO: f64 = 0.01;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Pretty on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err("expected auto, pretty or json"),
        }
    }
}

/// The settings of telemetry.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Name of this process in traces.
    pub service: String,
    /// Name of this process among its replicas in traces, if any.
    pub instance: Option<String>,
    /// The format of log lines.
    pub format: Format,
    /// Log filter, in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// Endpoint for spans (OTLP over gRPC); without one no spans are created.
    pub otlp_endpoint: Option<String>,
    /// Share of new traces that are recorded, 0 to 1.
    pub trace_ratio: f64,
}

impl Settings {
    /// The settings in the environment.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] names the variable.
    pub fn from_env(service: impl Into<String>) -> Result<Self, Error> {
        Self::read(service, |name| std::env::var(name).ok())
    }

    /// The settings that `lookup` returns for the names of environment variables. An empty value counts as unset.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] names the variable.
    pub fn read(
        service: impl Into<String>,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let value = |name| lookup(name).filter(|value| !value.is_empty());
        Ok(Self {
            service: service.into(),
            instance: None,
            format: value(names::LOG_FORMAT).map_or(Ok(Format::default()), |text| {
                text.parse()
                    .map_err(|reason: &str| Error::invalid(names::LOG_FORMAT, &text, reason))
            })?,
            filter: value(names::LOG).unwrap_or_else(|| DEFAULT_FILTER.to_owned()),
            otlp_endpoint: value(names::OTLP_ENDPOINT),
            trace_ratio: value(names::TRACE_RATIO)
                .map_or(Ok(DEFAULT_TRACE_RATIO), |text| ratio(&text))?,
        })
    }
}

fn ratio(text: &str) -> Result<f64, Error> {
    text.parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| Error::invalid(names::TRACE_RATIO, text, "expected a number from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::read("orders", |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let settings = read(&[(names::OTLP_ENDPOINT, "")]).expect("defaults are valid");
        assert_eq!(
            settings,
            Settings {
                service: "orders".into(),
                instance: None,
                format: Format::Auto,
                filter: "info".into(),
                otlp_endpoint: None,
                trace_ratio: 0.01,
            }
        );
    }

    #[test]
    fn set_values_override_the_defaults() {
        let settings = read(&[
            (names::LOG_FORMAT, "json"),
            (names::LOG, "debug"),
            (names::OTLP_ENDPOINT, "http://127.0.0.1:4317"),
            (names::TRACE_RATIO, "1"),
        ])
        .expect("all are valid");
        assert_eq!(settings.format, Format::Json);
        assert_eq!(settings.filter, "debug");
        assert_eq!(
            settings.otlp_endpoint.as_deref(),
            Some("http://127.0.0.1:4317")
        );
        assert!((settings.trace_ratio - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_bad_value_is_reported_on_one_line() {
        for (name, value) in [
            (names::LOG_FORMAT, "xml"),
            (names::TRACE_RATIO, "1.5"),
            (names::TRACE_RATIO, "NaN"),
            (names::TRACE_RATIO, "few"),
        ] {
            let message = read(&[(name, value)])
                .expect_err("the value is bad")
                .to_string();
            assert!(
                message.contains(name) && message.contains(value),
                "{message}"
            );
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
