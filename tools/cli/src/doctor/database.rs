//! Whether the database answers, and holds the read model.

use chassis::config;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{Finding, chain};
use terminal::count;

pub const PART: &str = "database";

/// Its URL may hold a password: the detail names only the place.
pub async fn examine(database: &config::Database) -> Finding {
    let options = match options(database) {
        Ok(options) => options,
        Err(error) => return unreachable(PART, "", &error),
    };
    let place = place(&options);
    match look(&options).await {
        Ok(model) => model.judge(&place),
        Err(error) => unreachable(PART, &place, &error),
    }
}

/// How to connect, quietly.
pub fn options(database: &config::Database) -> sqlx::Result<PgConnectOptions> {
    let options: PgConnectOptions = database.url.parse()?;
    Ok(options.disable_statement_logging())
}

/// `host:port/database`.
pub fn place(options: &PgConnectOptions) -> String {
    format!(
        "{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    )
}

struct Model {
    version: String,
    /// `None` while nobody has made the schema.
    positions: Option<i64>,
}

async fn look(options: &PgConnectOptions) -> sqlx::Result<Model> {
    let mut connection = PgConnection::connect_with(options).await?;
    let version: String = sqlx::query_scalar("SHOW server_version")
        .fetch_one(&mut connection)
        .await?;
    let table = format!("{}.positions", query::SCHEMA);
    let is_made: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(&table)
        .fetch_one(&mut connection)
        .await?;
    let positions = if is_made {
        let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        Some(sqlx::query_scalar(count).fetch_one(&mut connection).await?)
    } else {
        None
    };
    connection.close().await?;
    Ok(Model { version, positions })
}

impl Model {
    fn judge(&self, place: &str) -> Finding {
        let Self { version, positions } = self;
        let schema = query::SCHEMA;
        match positions {
            Some(positions) => Finding::ok(
                PART,
                format!(
                    "{place}: PostgreSQL {version}, schema {schema}, {} partitions projected",
                    count(*positions)
                ),
            ),
            None => Finding::failed(
                PART,
                format!("{place}: PostgreSQL {version}, but no schema {schema}"),
                "the read side makes it: ordermesh serve query, or all",
            ),
        }
    }
}

/// What every part that stands on the database says without it.
pub fn unreachable(part: &'static str, place: &str, error: &sqlx::Error) -> Finding {
    let detail = match place {
        "" => format!("no database: {}", chain(error)),
        place => format!("PostgreSQL at {place} does not answer: {}", chain(error)),
    };
    Finding::failed(
        part,
        detail,
        "start it (make up), or name another with --database",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Health;

    #[test]
    fn a_password_is_not_told() {
        let url = "postgres://ada:secret@db:15432/orders".to_owned();
        let options = options(&config::Database { url }).unwrap();
        assert_eq!(place(&options), "db:15432/orders");
    }

    #[test]
    fn a_database_without_the_read_model_does_not_do() {
        let model = |positions| Model {
            version: "17.2".into(),
            positions,
        };
        assert_eq!(model(Some(4)).judge("p").health, Health::Ok);
        let finding = model(None).judge("p");
        assert_eq!(finding.health, Health::Failed);
        assert!(finding.detail.contains("no schema read_v"), "{finding:?}");
    }
}
