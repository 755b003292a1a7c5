//! The parameters of a URL's query.

use std::collections::BTreeMap;
use std::str::FromStr;

use chassis::error;
use contracts::Violation;
use tonic::Status;

/// The parameters of a query, taken one by one. [`Parameters::finish`] reports all violations together.
pub(super) struct Parameters {
    remaining: BTreeMap<String, Vec<String>>,
    violations: Vec<Violation>,
}

impl Parameters {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        let mut remaining = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in pairs {
            remaining.entry(name).or_default().push(value);
        }
        Self {
            remaining,
            violations: Vec::new(),
        }
    }

    /// Takes a parameter that may occur once; the default value when it is missing.
    pub(super) fn get_or_default<T: FromStr + Default>(&mut self, name: &str) -> T {
        self.get(name).unwrap_or_default()
    }

    /// Takes a parameter that may occur once.
    pub(super) fn get<T: FromStr>(&mut self, name: &str) -> Option<T> {
        let values = self.remaining.remove(name).unwrap_or_default();
        match values.as_slice() {
            [] => None,
            [value] => {
                let parsed = value.parse().ok();
                if parsed.is_none() {
                    self.violate(name, "cannot be read");
                }
                parsed
            }
            _ => {
                self.violate(name, "is given more than once");
                None
            }
        }
    }

    /// Takes a parameter that may occur several times or contain a list separated by commas.
    pub(super) fn list<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let mut parsed = Vec::new();
        for text in self
            .remaining
            .remove(name)
            .unwrap_or_default()
            .iter()
            .flat_map(|value| value.split(','))
        {
            match parse(text) {
                Some(value) => parsed.push(value),
                None => self.violate(name, "is not known"),
            }
        }
        parsed
    }

    /// Checks that all parameters were taken and valid.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with all violations.
    pub(super) fn finish(mut self) -> Result<(), Status> {
        for name in std::mem::take(&mut self.remaining).into_keys() {
            self.violate(&name, "is no parameter of this path");
        }
        if self.violations.is_empty() {
            Ok(())
        } else {
            Err(error::invalid(&self.violations))
        }
    }

    fn violate(&mut self, name: &str, message: &'static str) {
        self.violations.push(Violation::new(name, "query", message));
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        Parameters::new(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn lists_are_separated_by_commas_or_repeated() {
        let mut parameters = parameters(&[("n", "1,2"), ("size", "7"), ("n", "3")]);
        assert_eq!(
            parameters.list("n", |text| text.parse::<u32>().ok()),
            [1, 2, 3]
        );
        assert_eq!(parameters.get_or_default::<u32>("size"), 7);
        assert_eq!(parameters.get_or_default::<u32>("absent"), 0);
        assert_eq!(parameters.get::<u32>("absent"), None);
        assert!(parameters.finish().is_ok());
    }

    #[test]
    fn all_violations_are_reported_together() {
        let mut parameters = parameters(&[
            ("n", "x"),
            ("size", "-1"),
            ("token", "a"),
            ("token", "b"),
            ("typo", ""),
        ]);
        parameters.list("n", |text| text.parse::<u32>().ok());
        parameters.get_or_default::<u32>("size");
        parameters.get_or_default::<String>("token");
        let status = parameters.finish().expect_err("all four are invalid");
        let details = status
            .get_details_bad_request()
            .expect("it has field violations");
        let fields: Vec<_> = details
            .field_violations
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(fields, ["n", "size", "token", "typo"]);
    }
}
