//! Queries of panels, in PromQL.

/// The time over which Grafana takes a rate: at least four scrapes, longer when the panel shows a long time.
pub const WINDOW: &str = "$__rate_interval";
/// The time that the dashboard shows.
pub const SHOWN: &str = "$__range";

/// One query of a panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// As it says what is wanted, without what [`Self::expression`] adds.
    pub bare: String,
    /// What a series is called, with labels as `{{label}}`.
    pub legend: String,
    /// Shown as 0 while nothing has been counted: a counter with labels exists only from its first event on.
    pub rare: bool,
}

impl Query {
    /// What Prometheus is asked.
    pub fn expression(&self) -> String {
        if !self.rare {
            return self.bare.clone();
        }
        let zero = match self.labels().first() {
            Some(label) => format!("label_replace(vector(0), \"{label}\", \"none\", \"\", \"\")"),
            None => "vector(0)".into(),
        };
        format!("{} or on() {zero}", self.bare)
    }

    /// The labels that the legend names.
    pub fn labels(&self) -> Vec<&str> {
        self.legend
            .split("{{")
            .skip(1)
            .filter_map(|rest| rest.split_once("}}"))
            .map(|(label, _)| label)
            .collect()
    }
}

/// How fast a counter rises, per second, summed up by labels such as `"service, kind"`.
pub fn rate(counter: &str, by: &str) -> String {
    format!("sum by ({by}) (rate({counter}[{WINDOW}]))")
}

/// How fast a counter rises, per second, all of it.
pub fn total_rate(counter: &str) -> String {
    format!("sum(rate({counter}[{WINDOW}]))")
}

/// By how much a counter rose in the time that the dashboard shows.
pub fn rise(counter: &str) -> String {
    format!("sum(increase({counter}[{SHOWN}]))")
}

/// A quantile of a histogram, by labels; `selector` comes after `_bucket`.
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
    fn a_rare_counter_is_zero_under_a_name() {
        let mut query = Query {
            bare: "sum by (class) (rate(letters[1m]))".into(),
            legend: "{{class}} of {{service}}".into(),
            rare: true,
        };
        assert_eq!(query.labels(), ["class", "service"]);
        assert!(
            query
                .expression()
                .ends_with(" or on() label_replace(vector(0), \"class\", \"none\", \"\", \"\")")
        );
        query.legend = "all".into();
        assert!(query.expression().ends_with(" or on() vector(0)"));
        query.rare = false;
        assert_eq!(query.expression(), query.bare);
    }
}
