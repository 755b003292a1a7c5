//! The projector without its thread, its client and its database: the same batches, the same writer, the same positions,
//! over a read model in memory. For a simulation, which says when what happens.

use std::collections::HashMap;

use registry::Schemas;

use super::batch::Batch;
use super::log::{Fetched, Source};
use super::offset_advances::steps;
use super::topics::Topics;
use super::write::Writer;
use crate::metrics::Statements;
use crate::tables::{Memory, Store as _};

/// The time in which a simulated projector owns some partitions; after any error it must be dropped.
pub struct Projection {
    topics: Topics,
    schemas: Schemas,
    writer: Writer,
    positions: HashMap<Source, i64>,
}

impl Projection {
    /// Begins at the positions in the read model.
    ///
    /// # Errors
    ///
    /// None, in memory.
    pub async fn begin(
        model: &mut Memory,
        schemas: Schemas,
        partitions: &[i32],
    ) -> sqlx::Result<Self> {
        let topics = Topics::new("");
        let kept = model.positions(&topics.names(), partitions).await?;
        let positions = kept.into_iter().filter_map(|kept| {
            let source = topics.source(&kept.topic, kept.partition)?;
            Some((source, kept.next_offset))
        });
        Ok(Self {
            positions: positions.collect(),
            writer: Writer::open(model, &topics, partitions, Statements::unseen()).await?,
            topics,
            schemas,
        })
    }

    /// First offset of a partition that has not been applied; `None` when it is not owned.
    pub fn position(&self, source: Source) -> Option<i64> {
        self.positions.get(&source).copied()
    }

    /// Applies records and moves the positions to where the log was reached; `false` when it was fenced.
    ///
    /// # Errors
    ///
    /// The read model refuses what must not be written.
    ///
    /// # Panics
    ///
    /// When a record has a schema that is not among the given ones.
    pub async fn write(
        &mut self,
        model: &mut Memory,
        records: Vec<Fetched>,
        reached: &HashMap<Source, i64>,
    ) -> sqlx::Result<bool> {
        let last = HashMap::new();
        let steps = steps(&self.topics, &self.positions, reached, &last, |_| None);
        let mut batch = Batch::default();
        for record in records {
            if let Err((_, obstacle)) = batch.push(&self.schemas, record) {
                panic!("a simulated log has fixed schemas: {obstacle}");
            }
        }
        if steps.is_empty() && batch.len() == 0 {
            return Ok(true);
        }
        if self.writer.write(model, batch, &steps).await?.is_none() {
            return Ok(false);
        }
        for step in steps {
            if let Some(source) = self.topics.source(&step.topic, step.partition) {
                self.positions.insert(source, step.to);
            }
        }
        Ok(true)
    }
}
