//! The read model in memory, for the simulation: the same rows, positions and constraints as in PostgreSQL.

use std::collections::BTreeMap;

use contracts::orders::v1::order_event::Event;
use uuid::Uuid;

use super::history::order_id;
use super::positions::Position;
use super::store::{Store, Transaction};
use super::{Advance, Table};
use crate::fold::{Applied, OrderRow, Parked, PaymentRow, ShipmentRow, StockRow};

/// Rows, positions and parked keys. Two read models can be compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryReadModel {
    pub(super) orders: BTreeMap<String, OrderRow>,
    pub(super) stock: BTreeMap<String, StockRow>,
    pub(super) payments: BTreeMap<String, PaymentRow>,
    pub(super) shipments: BTreeMap<String, ShipmentRow>,
    /// Partition and offset of each event, by order and version.
    history: BTreeMap<(Uuid, i64), (i32, i64)>,
    parked: BTreeMap<(String, i32, Vec<u8>), i64>,
    positions: BTreeMap<(String, i32), i64>,
    /// Positions advance from any value: no writer is fenced.
    without_fencing: bool,
}

impl MemoryReadModel {
    /// An empty read model that does not check positions, so that no writer is fenced.
    pub fn without_fencing() -> Self {
        Self {
            without_fencing: true,
            ..Self::default()
        }
    }

    /// First offset of the partition that is not applied.
    pub fn position(&self, topic: &str, partition: i32) -> i64 {
        let key = (topic.to_owned(), partition);
        self.positions.get(&key).copied().unwrap_or_default()
    }

    /// Number of parked keys.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Number of rows in all tables.
    pub fn rows(&self) -> usize {
        self.orders.len() + self.stock.len() + self.payments.len() + self.shipments.len()
    }
}

/// A copy that replaces the original on commit.
pub struct MemoryTransaction<'a> {
    model: &'a mut MemoryReadModel,
    copy: MemoryReadModel,
}

impl Store for MemoryReadModel {
    type Transaction<'a> = MemoryTransaction<'a>;

    async fn begin(&mut self) -> sqlx::Result<MemoryTransaction<'_>> {
        let copy = self.clone();
        Ok(MemoryTransaction { model: self, copy })
    }

    async fn parked_keys(&mut self, topic: &str, partitions: &[i32]) -> sqlx::Result<Vec<Vec<u8>>> {
        let is_parked = |key: &&(String, i32, Vec<u8>)| {
            key.0 == topic && partitions.contains(&key.1) && !key.2.is_empty()
        };
        let keys = self.parked.keys().filter(is_parked);
        Ok(keys.map(|(_, _, key)| key.clone()).collect())
    }

    async fn positions(
        &mut self,
        topics: &[String],
        partitions: &[i32],
    ) -> sqlx::Result<Vec<Position>> {
        let mut positions = Vec::new();
        for topic in topics {
            for partition in partitions {
                let position = self.positions.entry((topic.clone(), *partition));
                positions.push(Position {
                    topic: topic.clone(),
                    partition: *partition,
                    next_offset: *position.or_default(),
                    schema_id: None,
                    // The simulation has only one log.
                    last_offset: None,
                    last_sent_ms: None,
                    last_key: None,
                });
            }
        }
        Ok(positions)
    }
}

impl Transaction for MemoryTransaction<'_> {
    async fn advance(
        &mut self,
        advances: &[Advance],
        _schema_id: Option<u32>,
    ) -> sqlx::Result<bool> {
        let mut is_expected = true;
        for advance in advances {
            let position = self
                .copy
                .positions
                .entry((advance.topic.clone(), advance.partition));
            let position = position.or_default();
            is_expected &= *position == advance.from;
            *position = advance.to;
        }
        Ok(is_expected || self.copy.without_fencing)
    }

    async fn load<R: Table>(&mut self, keys: &[&str]) -> sqlx::Result<Vec<R>> {
        let rows = R::rows_mut(&mut self.copy);
        Ok(keys
            .iter()
            .filter_map(|key| rows.get(*key).cloned())
            .collect())
    }

    async fn store<R: Table>(&mut self, rows: &[R]) -> sqlx::Result<()> {
        let rows_mut = R::rows_mut(&mut self.copy);
        rows_mut.extend(rows.iter().map(|row| (row.key(), row.clone())));
        Ok(())
    }

    async fn append_history(&mut self, applied: &[Applied<Event>]) -> sqlx::Result<()> {
        for event in applied {
            let order = order_id(event);
            let location = (event.partition, event.offset);
            let key = (order, event.change.version);
            if self.copy.history.insert(key, location).is_some() {
                let error = format!(
                    "version {} of order {order} already exists",
                    event.change.version
                );
                return Err(sqlx::Error::Protocol(error));
            }
        }
        Ok(())
    }

    async fn park(&mut self, topic: &str, parked: &[Parked]) -> sqlx::Result<()> {
        for entry in parked {
            let key = (topic.to_owned(), entry.partition, entry.key.clone());
            *self.copy.parked.entry(key).or_default() += entry.records;
        }
        Ok(())
    }

    async fn commit(self) -> sqlx::Result<()> {
        *self.model = self.copy;
        Ok(())
    }

    async fn rollback(self) -> sqlx::Result<()> {
        Ok(())
    }
}
