//! Records that the database refuses: data errors, SQLSTATE class 22. Unlike an outage they do not pass, so a record
//! that causes one is parked.
//!
//! The error does not name the record of a batch. The records of the batch are written again one by one.

use std::collections::HashMap;

use super::log::Source;

/// The class of data exceptions.
const DATA_EXCEPTION: &str = "22";

/// The message of a data error; `None` for any other error.
pub fn data_error(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let is_data = error
        .code()
        .is_some_and(|code| code.starts_with(DATA_EXCEPTION));
    is_data.then(|| error.message().to_owned())
}

/// The records of refused batches, and those that are refused alone.
#[derive(Debug, Default)]
pub struct RefusedRecords {
    /// Offset after the last record of a refused batch.
    batch_ends: HashMap<Source, i64>,
    /// Why the database refuses a record.
    reasons: HashMap<(Source, i64), String>,
}

impl RefusedRecords {
    /// Notes that the database has refused a batch with these records. Returns `false` when nothing can be done: the
    /// batch had only one record, which was to be parked already.
    pub fn note(&mut self, records: &[(Source, i64)], reason: &str) -> bool {
        if let [record] = records {
            return self.reasons.insert(*record, reason.to_owned()).is_none();
        }
        for (source, offset) in records {
            let end = self.batch_ends.entry(*source).or_default();
            *end = (*end).max(offset + 1);
        }
        !records.is_empty()
    }

    /// Whether records at these positions belong to a refused batch: then they are written one by one.
    pub fn includes(&self, positions: &HashMap<Source, i64>) -> bool {
        self.batch_ends
            .iter()
            .any(|(source, end)| positions.get(source).is_some_and(|position| position < end))
    }

    /// Why the database refuses this record.
    pub fn reason(&self, source: Source, offset: i64) -> Option<&str> {
        self.reasons.get(&(source, offset)).map(String::as_str)
    }

    /// Forgets the records below these positions.
    pub fn forget(&mut self, positions: &HashMap<Source, i64>) {
        let is_ahead =
            |source: &Source, offset: i64| positions.get(source).is_none_or(|at| offset >= *at);
        self.batch_ends
            .retain(|source, end| is_ahead(source, *end - 1));
        self.reasons
            .retain(|(source, offset), _| is_ahead(source, *offset));
    }
}

#[cfg(test)]
mod tests {
    use contracts::Service;

    use super::*;

    const ORDERS: Source = (Service::Orders, 0);
    const STOCK: Source = (Service::Inventory, 0);

    #[test]
    fn a_refused_batch_is_split_and_a_refused_record_is_parked() {
        let mut refused = RefusedRecords::default();
        let mut positions = HashMap::from([(ORDERS, 5), (STOCK, 0)]);
        assert!(!refused.includes(&positions));

        assert!(refused.note(&[(ORDERS, 5), (STOCK, 0), (ORDERS, 7)], "too large"));
        assert!(refused.includes(&positions));
        assert_eq!(refused.reason(ORDERS, 7), None);

        assert!(refused.note(&[(ORDERS, 7)], "too large"));
        assert_eq!(refused.reason(ORDERS, 7), Some("too large"));
        assert_eq!(refused.reason(ORDERS, 5), None);
        assert!(
            !refused.note(&[(ORDERS, 7)], "too large"),
            "it is refused although it is parked"
        );

        positions.insert(STOCK, 1);
        positions.insert(ORDERS, 7);
        refused.forget(&positions);
        assert!(refused.includes(&positions));
        positions.insert(ORDERS, 8);
        refused.forget(&positions);
        assert!(!refused.includes(&positions));
        assert_eq!(refused.reason(ORDERS, 7), None);
    }
}
