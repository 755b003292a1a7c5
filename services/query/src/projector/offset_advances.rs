//! Computes the advances of the positions.

use std::collections::HashMap;

use super::log::Source;
use super::topics::Topics;
use crate::tables::{Advance, RecordIdentity};

/// The advance of each position after a gather: up to the offset that the consumer has `reached`, but not beyond the
/// first held record of a partition. `last_records` are the last accepted records.
pub fn offset_advances(
    topics: &Topics,
    positions: &HashMap<Source, i64>,
    reached: &HashMap<Source, i64>,
    last_records: &HashMap<Source, RecordIdentity>,
    first_held: impl Fn(Source) -> Option<i64>,
) -> Vec<Advance> {
    let advance = |(&source, &from): (&Source, &i64)| {
        let to = first_held(source).or_else(|| reached.get(&source).copied())?;
        let (service, partition) = source;
        (to > from).then(|| Advance {
            topic: topics.of(service).to_owned(),
            partition,
            from,
            to,
            last_record: last_records.get(&source).cloned(),
        })
    };
    positions.iter().filter_map(advance).collect()
}
