//! How far positions move.

use std::collections::HashMap;

use super::log::Source;
use super::topics::Topics;
use crate::tables::{Advance, Last};

/// How far the positions move with what was gathered: to where the log was `reached`, but not beyond the first record of
/// a partition that is held back. `last` is what was taken in last of each partition.
pub fn steps(
    topics: &Topics,
    positions: &HashMap<Source, i64>,
    reached: &HashMap<Source, i64>,
    last: &HashMap<Source, Last>,
    first_held: impl Fn(Source) -> Option<i64>,
) -> Vec<Advance> {
    let step = |(&source, &from): (&Source, &i64)| {
        let to = first_held(source).or_else(|| reached.get(&source).copied())?;
        let (service, partition) = source;
        (to > from).then(|| Advance {
            topic: topics.of(service).to_owned(),
            partition,
            from,
            to,
            last: last.get(&source).cloned(),
        })
    };
    positions.iter().filter_map(step).collect()
}
