//! Checks that the database answers and has the read model.

use chassis::config;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use terminal::count;

use super::{CheckResult, error_chain};

pub const PART: &str = "database";

/// The result names only host, port and database: the URL may contain a password.
pub async fn check(database: &config::Database) -> CheckResult {
    let options = match options(database) {
        Ok(options) => options,
        Err(error) => return unreachable(PART, "", &error),
    };
    let location = location(&options);
    match probe(&options).await {
        Ok(model) => model.evaluate(&location),
        Err(error) => unreachable(PART, &location, &error),
    }
}

/// Connection options, with statement logging disabled.
pub fn options(database: &config::Database) -> sqlx::Result<PgConnectOptions> {
    let options: PgConnectOptions = database.url.parse()?;
    Ok(options.disable_statement_logging())
}

/// `host:port/database`.
pub fn location(options: &PgConnectOptions) -> String {
    format!(
        "{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    )
}

struct ReadModelInfo {
    version: String,
    /// Number of stored positions; `None` when the schema does not exist.
    positions: Option<i64>,
}

async fn probe(options: &PgConnectOptions) -> sqlx::Result<ReadModelInfo> {
    let mut connection = PgConnection::connect_with(options).await?;
    let version: String = sqlx::query_scalar("SHOW server_version")
        .fetch_one(&mut connection)
        .await?;
    let table = format!("{}.positions", query::SCHEMA);
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(&table)
        .fetch_one(&mut connection)
        .await?;
    let positions = if exists {
        let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        Some(sqlx::query_scalar(count).fetch_one(&mut connection).await?)
    } else {
        None
    };
    connection.close().await?;
    Ok(ReadModelInfo { version, positions })
}

impl ReadModelInfo {
    fn evaluate(&self, location: &str) -> CheckResult {
        let Self { version, positions } = self;
        let schema = query::SCHEMA;
        match positions {
            Some(positions) => CheckResult::ok(
                PART,
                format!(
                    "{location}: PostgreSQL {version}, schema {schema}, {} partitions projected",
                    count(*positions)
                ),
            ),
            None => CheckResult::failed(
                PART,
                format!("{location}: PostgreSQL {version}, but no schema {schema}"),
                "the read side makes it: ordermesh serve query, or all",
            ),
        }
    }
}

/// The result of every check that needs the database when it does not answer.
pub fn unreachable(part: &'static str, location: &str, error: &sqlx::Error) -> CheckResult {
    let detail = match location {
        "" => format!("no database: {}", error_chain(error)),
        location => format!(
            "PostgreSQL at {location} does not answer: {}",
            error_chain(error)
        ),
    };
    CheckResult::failed(
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
    fn a_location_has_no_password() {
        let url = "postgres://ada:secret@db:15432/orders".to_owned();
        let options = options(&config::Database { url }).unwrap();
        assert_eq!(location(&options), "db:15432/orders");
    }

    #[test]
    fn a_database_without_the_read_model_has_failed() {
        let model = |positions| ReadModelInfo {
            version: "17.2".into(),
            positions,
        };
        assert_eq!(model(Some(4)).evaluate("p").health, Health::Ok);
        let result = model(None).evaluate("p");
        assert_eq!(result.health, Health::Failed);
        assert!(result.detail.contains("no schema read_v"), "{result:?}");
    }
}
