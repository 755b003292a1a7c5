//! The parameters of a URL's query.

use std::collections::BTreeMap;
use std::str::FromStr;

use chassis::error;
use contracts::Violation;
use tonic::Status;

/// The parameters of a query, taken one by one; what is wrong is told at the end, all at once.
pub(super) struct Parameters {
    left: BTreeMap<String, Vec<String>>,
    violations: Vec<Violation>,
}

impl Parameters {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        let mut left = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in pairs {
            left.entry(name).or_default().push(value);
        }
        Self {
            left,
            violations: Vec::new(),
        }
    }

    /// Takes a parameter that is given at most once; its default when it is not.
    pub(super) fn one<T: FromStr + Default>(&mut self, name: &str) -> T {
        self.given(name).unwrap_or_default()
    }

    /// Takes a parameter that is given at most once.
    pub(super) fn given<T: FromStr>(&mut self, name: &str) -> Option<T> {
        let values = self.left.remove(name).unwrap_or_default();
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

    /// Takes a parameter that may be given several times, or as a list separated by commas.
    pub(super) fn list<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let mut parsed = Vec::new();
        for text in self
            .left
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

    /// Whether everything given was taken and could be read.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with what is wrong.
    pub(super) fn finish(mut self) -> Result<(), Status> {
        for name in std::mem::take(&mut self.left).into_keys() {
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
    fn lists_come_in_commas_and_repetitions() {
        let mut given = parameters(&[("n", "1,2"), ("size", "7"), ("n", "3")]);
        assert_eq!(given.list("n", |text| text.parse::<u32>().ok()), [1, 2, 3]);
        assert_eq!(given.one::<u32>("size"), 7);
        assert_eq!(given.one::<u32>("absent"), 0);
        assert_eq!(given.given::<u32>("absent"), None);
        assert!(given.finish().is_ok());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let mut given = parameters(&[
            ("n", "x"),
            ("size", "-1"),
            ("token", "a"),
            ("token", "b"),
            ("typo", ""),
        ]);
        given.list("n", |text| text.parse::<u32>().ok());
        given.one::<u32>("size");
        given.one::<String>("token");
        let status = given.finish().expect_err("all four are wrong");
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
