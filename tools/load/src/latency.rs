//! Percentiles of durations.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use terminal::duration;

/// What takes longer counts as this.
const LONGEST_US: u64 = 3_600_000_000;

/// Durations, to three digits.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Latency {
    /// What is shown: the percentiles by their names.
    pub const SHOWN: [(&'static str, f64); 3] = [("p50", 50.0), ("p95", 95.0), ("p99", 99.0)];

    /// Of these durations.
    pub fn of(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut histogram = Histogram::new_with_max(LONGEST_US, 3).expect("the range is valid");
        for duration in durations {
            histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
        Self(histogram)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many percent took no longer.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percent))
    }

    /// Milliseconds, by the name of the percentile.
    pub fn json(&self) -> Value {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        let [(p50, fifty), (p95, most), (p99, nearly_all)] = Self::SHOWN;
        json!({ p50: ms(fifty), p95: ms(most), p99: ms(nearly_all) })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = Self::SHOWN
            .map(|(name, percent)| format!("{name} {}", duration(self.percentile(percent))));
        formatter.write_str(&shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_durations() {
        let latency = Latency::of((1..=1_000).map(Duration::from_millis));
        for (name, percent) in Latency::SHOWN {
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
