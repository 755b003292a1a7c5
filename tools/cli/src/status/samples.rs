//! Parses the text format of Prometheus.

use std::collections::BTreeMap;

/// The samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Sample>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Samples {
    /// Parses a text; skips lines that are not samples.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(sample).collect())
    }

    /// The sum of a metric over all its samples with these labels; `None` when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut values = self.values(name, labels).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// The largest value of a metric over all its samples with these labels.
    pub fn max(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.values(name, labels).reduce(f64::max)
    }

    /// The values of one label of a metric, each once, in order.
    pub fn labels<'a>(&'a self, name: &str, label: &str) -> Vec<&'a str> {
        let mut values: Vec<_> = self
            .0
            .iter()
            .filter(|sample| sample.name == name)
            .filter_map(|sample| sample.labels.get(label).map(String::as_str))
            .collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    fn values(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        self.0
            .iter()
            .filter(move |sample| {
                sample.name == name
                    && labels
                        .iter()
                        .all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
            })
            .map(|sample| sample.value)
    }
}

/// `name{label="value",…} value`; ignores a timestamp or an exemplar after the value.
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: rest.split_whitespace().next()?.parse().ok()?,
    })
}

/// The labels up to the closing brace, and the rest of the line.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, behind) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = behind.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    escaped => escaped,
                }),
                (_, character) => value.push(character),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = &behind[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP a_total What there is.
# TYPE a_total counter
a_total{service=\"orders\",kind=\"x\"} 3
a_total{service=\"orders\",kind=\"y\"} 4 # {trace_id=\"ab\"} 1 1.5
a_total{service=\"payments\",kind=\"a \\\"b\\\\ },\"} 5 1700000000000
plain 1.5e3
empty{} 2
broken{a=\"b 7
nothing
";

    #[test]
    fn samples_are_summed_by_their_labels() {
        let samples = Samples::parse(TEXT);
        assert_eq!(samples.sum("a_total", &[]), Some(12.0));
        assert_eq!(samples.sum("a_total", &[("service", "orders")]), Some(7.0));
        assert_eq!(samples.max("a_total", &[("service", "orders")]), Some(4.0));
        assert_eq!(samples.sum("a_total", &[("service", "shipping")]), None);
        assert_eq!(samples.sum("plain", &[]), Some(1_500.0));
        assert_eq!(samples.sum("empty", &[]), Some(2.0));
        assert_eq!(samples.sum("broken", &[]), None);
        assert_eq!(samples.sum("nothing", &[]), None);
        assert_eq!(samples.labels("a_total", "service"), ["orders", "payments"]);
        assert_eq!(samples.labels("a_total", "kind")[0], "a \"b\\ },");
    }
}
