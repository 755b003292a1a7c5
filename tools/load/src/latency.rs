//! Percentiles of durations.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use terminal::duration;

/// Longer durations are recorded as this.
const MAX_US: u64 = 3_600_000_000;

/// A histogram of durations, with three significant digits.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Latency {
    /// The reported percentiles: name and percent.
    pub const PERCENTILES: [(&'static str, f64); 3] = [("p50", 50.0), ("p95", 95.0), ("p99", 99.0)];

    /// Records the durations.
    pub fn of(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut histogram = Histogram::new_with_max(MAX_US, 3).expect("the range is valid");
        for duration in durations {
            histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
        Self(histogram)
    }

    /// Whether no duration was recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The duration that `percent` of all durations do not exceed.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percent))
    }

    /// Milliseconds by percentile name.
    pub fn json(&self) -> Value {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        let [(p50, percent_50), (p95, percent_95), (p99, percent_99)] = Self::PERCENTILES;
        json!({ p50: ms(percent_50), p95: ms(percent_95), p99: ms(percent_99) })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = Self::PERCENTILES
            .map(|(name, percent)| format!("{name} {}", duration(self.percentile(percent))));
        formatter.write_str(&shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let latency = Latency::of((1..=1_000).map(Duration::from_millis));
        for (name, percent) in Latency::PERCENTILES {
            let exact = percent * 10.0;
            let shown = latency.json()[name].as_f64().unwrap();
            assert!(
                (shown - exact).abs() <= exact / 1_000.0 + 1.0,
                "{name} is {shown}"
            );
        }
        assert!(Latency::of([]).is_empty());
    }
}
