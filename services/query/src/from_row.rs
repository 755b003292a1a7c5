//! Rows read by the names of their columns.

/// Implements `sqlx::FromRow`. sqlx's own derive would bring its macros, which take a minute of a cold build.
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
