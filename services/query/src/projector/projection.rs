//! The projector for the simulation: the same batches, writer and positions over a read model in memory, without a
//! thread, a consumer or a database. The simulation schedules its steps.

use std::collections::HashMap;

use registry::Schemas;

use super::batch::Batch;
use super::log::{FetchedRecord, Source};
use super::offset_advances::offset_advances;
use super::topics::Topics;
use super::write::Writer;
use crate::metrics::Statements;
use crate::tables::{MemoryReadModel, Store as _};

/// A simulated projector that owns some partitions. It must be dropped after any error.
pub struct Projection {
    topics: Topics,
    schemas: Schemas,
    writer: Writer,
    positions: HashMap<Source, i64>,
}

impl Projection {
    /// Starts at the positions in the read model.
    ///
    /// # Errors
    ///
    /// None, in memory.
    pub async fn begin(
        model: &mut MemoryReadModel,
        schemas: Schemas,
        partitions: &[i32],
    ) -> sqlx::Result<Self> {
        let topics = Topics::new("");
        let stored = model.positions(&topics.names(), partitions).await?;
        let positions = stored.into_iter().filter_map(|position| {
            let source = topics.source(&position.topic, position.partition)?;
            Some((source, position.next_offset))
        });
        Ok(Self {
            positions: positions.collect(),
            writer: Writer::open(model, &topics, partitions, Statements::unexported()).await?,
            topics,
            schemas,
        })
    }

    /// First offset of the partition that is not applied; `None` when the partition is not owned.
    pub fn position(&self, source: Source) -> Option<i64> {
        self.positions.get(&source).copied()
    }

    /// Applies records and moves the positions to the offsets `reached`. Returns `false` when it was fenced.
    ///
    /// # Errors
    ///
    /// The read model refuses a write that violates its constraints.
    ///
    /// # Panics
    ///
    /// A record has a schema that is not among the given ones.
    pub async fn write(
        &mut self,
        model: &mut MemoryReadModel,
        records: Vec<FetchedRecord>,
        reached: &HashMap<Source, i64>,
    ) -> sqlx::Result<bool> {
        let last_records = HashMap::new();
        let advances = offset_advances(
            &self.topics,
            &self.positions,
            reached,
            &last_records,
            |_| None,
        );
        let mut batch = Batch::default();
        for record in records {
            if let Err((_, error)) = batch.push(&self.schemas, record) {
                panic!("a simulated log has fixed schemas: {error}");
            }
        }
        if advances.is_empty() && batch.len() == 0 {
            return Ok(true);
        }
        if self.writer.write(model, batch, &advances).await?.is_none() {
            return Ok(false);
        }
        for advance in advances {
            if let Some(source) = self.topics.source(&advance.topic, advance.partition) {
                self.positions.insert(source, advance.to);
            }
        }
        Ok(true)
    }
}
