//! The read model in memory, for a simulation: the same rows, positions and refusals as in PostgreSQL.

use std::collections::BTreeMap;

use contracts::orders::v1::order_event::Event;
use uuid::Uuid;

use super::positions::Position;
use super::store::{Store, Transaction};
use super::{Advance, Table};
use crate::fold::{Applied, OrderRow, Parked, PaymentRow, ShipmentRow, StockRow};

/// Rows, positions and parked keys; compare two of them to see whether two read models are the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    pub(super) orders: BTreeMap<String, OrderRow>,
    pub(super) stock: BTreeMap<String, StockRow>,
    pub(super) payments: BTreeMap<String, PaymentRow>,
    pub(super) shipments: BTreeMap<String, ShipmentRow>,
    /// By order and version: where the event stands.
    history: BTreeMap<(Uuid, i64), (i32, i64)>,
    parked: BTreeMap<(String, i32, Vec<u8>), i64>,
    positions: BTreeMap<(String, i32), i64>,
    /// Positions move from wherever they are: nobody is fenced.
    unguarded: bool,
}

impl Memory {
    /// An empty read model that fences nobody: what the guard of the positions is for.
    pub fn unguarded() -> Self {
        Self {
            unguarded: true,
            ..Self::default()
        }
    }

    /// Where a partition of a topic stands.
    pub fn position(&self, topic: &str, partition: i32) -> i64 {
        let key = (topic.to_owned(), partition);
        self.positions.get(&key).copied().unwrap_or_default()
    }

    /// Keys that wait behind a record that could not be applied.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Rows of all tables.
    pub fn rows(&self) -> usize {
        self.orders.len() + self.stock.len() + self.payments.len() + self.shipments.len()
    }
}

/// A copy that takes the place of the original with its commit.
pub struct Pending<'a> {
    model: &'a mut Memory,
    copy: Memory,
}

impl Store for Memory {
    type Transaction<'a> = Pending<'a>;

    async fn begin(&mut self) -> sqlx::Result<Pending<'_>> {
        let copy = self.clone();
        Ok(Pending { model: self, copy })
    }

    async fn parked_keys(&mut self, topic: &str, partitions: &[i32]) -> sqlx::Result<Vec<Vec<u8>>> {
        let ours = |key: &&(String, i32, Vec<u8>)| {
            key.0 == topic && partitions.contains(&key.1) && !key.2.is_empty()
        };
        let keys = self.parked.keys().filter(ours);
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
                let next = self.positions.entry((topic.clone(), *partition));
                positions.push(Position {
                    topic: topic.clone(),
                    partition: *partition,
                    next_offset: *next.or_default(),
                    schema_id: None,
                    // There is only one log.
                    last_offset: None,
                    last_sent_ms: None,
                    last_key: None,
                });
            }
        }
        Ok(positions)
    }
}

impl Transaction for Pending<'_> {
    async fn advance(&mut self, steps: &[Advance], _schema_id: Option<u32>) -> sqlx::Result<bool> {
        let mut moved = true;
        for step in steps {
            let place = self
                .copy
                .positions
                .entry((step.topic.clone(), step.partition));
            let place = place.or_default();
            moved &= *place == step.from;
            *place = step.to;
        }
        Ok(moved || self.copy.unguarded)
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
        for one in applied {
            let order = Uuid::try_parse(&one.change.id).unwrap_or_default();
            let place = (one.partition, one.offset);
            let twin = self.copy.history.insert((order, one.change.version), place);
            if twin.is_some() {
                let what = format!("version {} of {order} is there already", one.change.version);
                return Err(sqlx::Error::Protocol(what));
            }
        }
        Ok(())
    }

    async fn park(&mut self, topic: &str, parked: &[Parked]) -> sqlx::Result<()> {
        for one in parked {
            let key = (topic.to_owned(), one.partition, one.key.clone());
            *self.copy.parked.entry(key).or_default() += one.records;
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
