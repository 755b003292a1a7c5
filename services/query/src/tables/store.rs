//! Where the read model is kept: in PostgreSQL, or in memory for a simulation.

use contracts::orders::v1::order_event::Event;
use sqlx::{PgConnection, PgTransaction};

use super::{Advance, Table, history, parked, positions};
use crate::fold::{Applied, Parked};

/// A session that works on the read model.
pub trait Store {
    /// A transaction of it: what is written becomes visible together with its commit, or not at all.
    type Transaction<'a>: Transaction
    where
        Self: 'a;

    /// Begins a transaction.
    async fn begin(&mut self) -> sqlx::Result<Self::Transaction<'_>>;

    /// The keys of a topic that wait behind a record that could not be applied.
    async fn parked_keys(&mut self, topic: &str, partitions: &[i32]) -> sqlx::Result<Vec<Vec<u8>>>;

    /// The positions of these partitions; those without one start at offset 0.
    async fn positions(
        &mut self,
        topics: &[String],
        partitions: &[i32],
    ) -> sqlx::Result<Vec<positions::Position>>;
}

/// What a batch does to the read model.
pub trait Transaction {
    /// Moves positions, and says whether every one of them stood where it was expected; if not, somebody else has moved
    /// it, and the transaction must not be committed.
    async fn advance(&mut self, steps: &[Advance], schema_id: Option<u32>) -> sqlx::Result<bool>;

    /// The rows that exist of those asked for.
    async fn load<R: Table>(&mut self, keys: &[&str]) -> sqlx::Result<Vec<R>>;

    /// Inserts the rows or puts them in place of the older ones.
    async fn store<R: Table>(&mut self, rows: &[R]) -> sqlx::Result<()>;

    /// Appends applied events to the history of their orders.
    async fn append_history(&mut self, applied: &[Applied<Event>]) -> sqlx::Result<()>;

    /// Sets records aside.
    async fn park(&mut self, topic: &str, parked: &[Parked]) -> sqlx::Result<()>;

    /// Makes all of it visible.
    async fn commit(self) -> sqlx::Result<()>;

    /// Makes nothing of it visible.
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
    async fn advance(&mut self, steps: &[Advance], schema_id: Option<u32>) -> sqlx::Result<bool> {
        positions::advance(self, steps, schema_id).await
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
