//! The read model's tables: how rows are read and written, a set at a time.

mod history;
mod memory;
mod order;
mod origin;
mod parked;
mod payment;
mod positions;
mod shipment;
mod stock;
mod store;

use std::collections::BTreeMap;
use std::future::Future;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::fold::Row;

pub use memory::Memory;
pub use origin::{Origin, claim};
pub use positions::{Advance, Last};
pub use store::{Store, Transaction};

/// A row that has a table.
pub trait Table: Row {
    /// The rows that exist of those asked for.
    fn load(
        connection: &mut PgConnection,
        keys: &[&str],
    ) -> impl Future<Output = sqlx::Result<Vec<Self>>> + Send;

    /// Inserts the rows or puts them in place of the older ones.
    fn store(
        connection: &mut PgConnection,
        rows: &[Self],
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// The rows by key in a read model in memory.
    fn rows_mut(memory: &mut Memory) -> &mut BTreeMap<String, Self>;
}

/// The keys that name an order; others have no row.
fn order_ids(keys: &[&str]) -> Vec<Uuid> {
    keys.iter()
        .filter_map(|key| Uuid::try_parse(key).ok())
        .collect()
}

/// One column of a set of rows, as the array that `UNNEST` takes apart again.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
