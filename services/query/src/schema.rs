//! The PostgreSQL schema that holds the read model, and how it is connected to.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::locks;

/// The schema of this version of the read model.
pub const NAME: &str = "read_v1";

const TABLES: &str = include_str!("read_v1.sql");
const APPLICATION_NAME: &str = "ordermesh-query";
/// A statement that takes longer is worth a log line.
const SLOW_STATEMENT: Duration = Duration::from_secs(1);

/// How to connect to the read model in the database at `url`.
///
/// # Errors
///
/// The URL is no PostgreSQL URL.
pub fn options(url: &str) -> sqlx::Result<PgConnectOptions> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options
        .application_name(APPLICATION_NAME)
        .options([("search_path", NAME), ("client_min_messages", "warning")])
        .log_statements(tracing::log::LevelFilter::Off)
        .log_slow_statements(tracing::log::LevelFilter::Warn, SLOW_STATEMENT))
}

/// Creates what is missing of the schema. Safe when several processes do it at once.
pub async fn create(connection: &mut PgConnection) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    // CREATE … IF NOT EXISTS alone still fails when two sessions race.
    locks::schema(&mut transaction).await?;
    sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
    transaction.commit().await
}
