//! The read model's tables: how rows are read and written, a set at a time.

mod history;
mod order;
mod parked;
mod payment;
mod positions;
mod shipment;
mod stock;

use std::future::Future;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::fold::Row;

pub use history::append as append_history;
pub use parked::{keys as parked_keys, park};
pub use positions::{Advance, Last, advance, load as load_positions};

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
