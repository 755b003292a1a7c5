//! The stores of the read model: PostgreSQL, or memory for the simulation.

use contracts::orders::v1::order_event::Event;
use sqlx::{PgConnection, PgTransaction};

use super::{Advance, Table, history, parked, positions};
use crate::fold::{Applied, Parked};

/// A session with a store of the read model.
pub trait Store {
    /// A transaction: all its writes become visible on commit, or none.
    type Transaction<'a>: Transaction
    where
        Self: 'a;

    /// Begins a transaction.
    async fn begin(&mut self) -> sqlx::Result<Self::Transaction<'_>>;

    /// The parked keys of a topic.
    async fn parked_keys(&mut self, topic: &str, partitions: &[i32]) -> sqlx::Result<Vec<Vec<u8>>>;

    /// The positions of these partitions; those without one start at offset 0.
    async fn positions(
        &mut self,
        topics: &[String],
        partitions: &[i32],
    ) -> sqlx::Result<Vec<positions::Position>>;
}

/// The writes of a batch.
pub trait Transaction {
    /// Moves the positions. Returns whether every position was the expected one; if not, another projector has moved
    /// it, and the transaction must not be committed.
    async fn advance(&mut self, advances: &[Advance], schema_id: Option<u32>)
    -> sqlx::Result<bool>;

    /// The existing rows of these keys.
    async fn load<R: Table>(&mut self, keys: &[&str]) -> sqlx::Result<Vec<R>>;

    /// Inserts or updates the rows.
    async fn store<R: Table>(&mut self, rows: &[R]) -> sqlx::Result<()>;

    /// Appends applied events to the history of their orders.
    async fn append_history(&mut self, applied: &[Applied<Event>]) -> sqlx::Result<()>;

    /// Parks records.
    async fn park(&mut self, topic: &str, parked: &[Parked]) -> sqlx::Result<()>;

    /// Commits: makes all writes visible.
    async fn commit(self) -> sqlx::Result<()>;

    /// Rolls back: discards all writes.
    async fn rollback(self) -> sqlx::Result<()>;
}

impl Store for PgConnection {
    type Transaction<'a> = PgTransaction<'a>;

    async fn begin(&mut self) -> sqlx::Result<PgTransaction<'_>> {
        sqlx::Connection::begin(self).await
    }

    async fn parked_keys(&mut self, topic: &str, partitions: &[i32]) -> sqlx::Result<Vec<Vec<u8>>> {
        parked::keys(self, topic, partitions).await
    }

    async fn positions(
        &mut self,
        topics: &[String],
        partitions: &[i32],
    ) -> sqlx::Result<Vec<positions::Position>> {
        positions::load(self, topics, partitions).await
    }
}

impl Transaction for PgTransaction<'_> {
    async fn advance(
        &mut self,
        advances: &[Advance],
        schema_id: Option<u32>,
    ) -> sqlx::Result<bool> {
        positions::advance(self, advances, schema_id).await
    }

    async fn load<R: Table>(&mut self, keys: &[&str]) -> sqlx::Result<Vec<R>> {
        R::load(self, keys).await
    }

    async fn store<R: Table>(&mut self, rows: &[R]) -> sqlx::Result<()> {
        R::store(self, rows).await
    }

    async fn append_history(&mut self, applied: &[Applied<Event>]) -> sqlx::Result<()> {
        history::append(self, applied).await
    }

    async fn park(&mut self, topic: &str, parked: &[Parked]) -> sqlx::Result<()> {
        parked::park(self, topic, parked).await
    }

    async fn commit(self) -> sqlx::Result<()> {
        sqlx::Transaction::commit(self).await
    }

    async fn rollback(self) -> sqlx::Result<()> {
        sqlx::Transaction::rollback(self).await
    }
}
