//! Implements `sqlx::FromRow` by column names.

/// Implements `sqlx::FromRow`. The derive of sqlx would need its macro crate, which costs a minute of a cold build.
macro_rules! from_row {
    ($row:ident { $($column:ident),+ }) => {
        impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for $row {
            fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
                use sqlx::Row as _;
                Ok(Self { $($column: row.try_get(stringify!($column))?),+ })
            }
        }
    };
}
