//! The PostgreSQL schema of the read model, and the options of its connections.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::locks;

/// The schema of this version of the read model.
pub const NAME: &str = "read_v1";

const TABLES: &str = include_str!("read_v1.sql");
const APPLICATION_NAME: &str = "ordermesh-query";
/// Statements that take longer are logged.
const SLOW_STATEMENT: Duration = Duration::from_secs(1);

/// Connection options for the read model in the database at `url`.
///
/// # Errors
///
/// The URL is not a PostgreSQL URL.
pub fn options(url: &str) -> sqlx::Result<PgConnectOptions> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options
        .application_name(APPLICATION_NAME)
        .options([("search_path", NAME), ("client_min_messages", "warning")])
        .log_statements(tracing::log::LevelFilter::Off)
        .log_slow_statements(tracing::log::LevelFilter::Warn, SLOW_STATEMENT))
}

/// Creates the missing parts of the schema. Several processes may do so at the same time.
pub async fn create(connection: &mut PgConnection) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    // CREATE … IF NOT EXISTS alone still fails when two sessions race.
    locks::lock_schema(&mut transaction).await?;
    sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
    transaction.commit().await
}
