//! PromQL queries of panels.

/// Grafana's window for rates: at least four scrapes, longer when the panel shows a long time range.
pub const WINDOW: &str = "$__rate_interval";
/// The time range of the dashboard.
pub const SHOWN: &str = "$__range";

/// One query of a panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// PromQL, without the fallback that [`Self::expression`] adds.
    pub promql: String,
    /// Name of a series, with labels as `{{label}}`.
    pub legend: String,
    /// Whether the query returns 0 when it has no series: a counter with labels exists only from its first event on.
    pub or_zero: bool,
}

impl Query {
    /// The expression that Prometheus evaluates.
    pub fn expression(&self) -> String {
        if !self.or_zero {
            return self.promql.clone();
        }
        let zero = match self.labels().first() {
            Some(label) => format!("label_replace(vector(0), \"{label}\", \"none\", \"\", \"\")"),
            None => "vector(0)".into(),
        };
        format!("{} or on() {zero}", self.promql)
    }

    /// The labels in the legend.
    pub fn labels(&self) -> Vec<&str> {
        self.legend
            .split("{{")
            .skip(1)
            .filter_map(|rest| rest.split_once("}}"))
            .map(|(label, _)| label)
            .collect()
    }
}

/// The rate of a counter per second, summed by labels such as `"service, kind"`.
pub fn rate(counter: &str, by: &str) -> String {
    format!("sum by ({by}) (rate({counter}[{WINDOW}]))")
}

/// The rate of a counter per second, summed over all series.
pub fn total_rate(counter: &str) -> String {
    format!("sum(rate({counter}[{WINDOW}]))")
}

/// The increase of a counter in the time range of the dashboard.
pub fn rise(counter: &str) -> String {
    format!("sum(increase({counter}[{SHOWN}]))")
}

/// A quantile of a histogram, by labels; `selector` is appended to `_bucket`.
pub fn quantile(quantile: f64, histogram: &str, selector: &str, by: &str) -> String {
    let buckets = format!("rate({histogram}_bucket{selector}[{WINDOW}])");
    let le = if by.is_empty() {
        "le".to_owned()
    } else {
        format!("le, {by}")
    };
    format!("histogram_quantile({quantile}, sum by ({le}) ({buckets}))")
}

/// The mean of a histogram's observations, by labels.
pub fn mean(histogram: &str, selector: &str, by: &str) -> String {
    let part = |end| rate(&format!("{histogram}_{end}{selector}"), by);
    format!("{} / {}", part("sum"), part("count"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_counter_is_zero_with_a_label() {
        let mut query = Query {
            promql: "sum by (class) (rate(letters[1m]))".into(),
            legend: "{{class}} of {{service}}".into(),
            or_zero: true,
        };
        assert_eq!(query.labels(), ["class", "service"]);
        assert!(
            query
                .expression()
                .ends_with(" or on() label_replace(vector(0), \"class\", \"none\", \"\", \"\")")
        );
        query.legend = "all".into();
        assert!(query.expression().ends_with(" or on() vector(0)"));
        query.or_zero = false;
        assert_eq!(query.expression(), query.promql);
    }
}
