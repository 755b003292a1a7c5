//! The tables of the read model: reads and writes of sets of rows.

mod history;
#[cfg(feature = "simulation")]
mod memory;
mod order;
mod origin;
mod parked;
mod payment;
mod positions;
mod shipment;
mod stock;
mod store;

use std::future::Future;

use contracts::rules::canonical_uuid;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::fold::Row;

#[cfg(feature = "simulation")]
pub use memory::MemoryReadModel;
pub use origin::{Origin, claim};
pub use positions::{Advance, RecordIdentity};
pub use store::{Store, Transaction};

/// A row that has a table.
pub trait Table: Row {
    /// The existing rows of these keys.
    fn load(
        connection: &mut PgConnection,
        keys: &[&str],
    ) -> impl Future<Output = sqlx::Result<Vec<Self>>> + Send;

    /// Inserts or updates the rows.
    fn store(
        connection: &mut PgConnection,
        rows: &[Self],
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// The rows by key in a read model in memory.
    #[cfg(feature = "simulation")]
    fn rows_mut(memory: &mut MemoryReadModel) -> &mut std::collections::BTreeMap<String, Self>;
}

/// The keys that are order ids; other keys have no row.
fn order_ids(keys: &[&str]) -> Vec<Uuid> {
    keys.iter().filter_map(|key| canonical_uuid(key)).collect()
}

/// One column of a set of rows, as the array parameter of `UNNEST`.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
