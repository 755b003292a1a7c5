//! Checks the stock: no piece is lost, none stays reserved.

use sqlx::PgPool;
use terminal::count;

use super::Check;

/// For each product: received = on hand + deducted, and reserved = 0.
pub async fn balances(pool: &PgPool, pieces: Option<i64>) -> sqlx::Result<Check> {
    let (products, unbalanced, received, on_hand, deducted, reserved): (
        i64,
        i64,
        i64,
        i64,
        i64,
        i64,
    ) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE received <> on_hand + deducted OR reserved <> 0),
                    coalesce(sum(received), 0)::bigint, coalesce(sum(on_hand), 0)::bigint,
                    coalesce(sum(deducted), 0)::bigint, coalesce(sum(reserved), 0)::bigint
             FROM stock",
    )
    .fetch_one(pool)
    .await?;
    let expected = pieces.unwrap_or(received);
    let mut detail = format!(
        "{} pieces of {} products received, {} on hand, {} deducted, {} reserved",
        count(received),
        count(products),
        count(on_hand),
        count(deducted),
        count(reserved)
    );
    if unbalanced > 0 {
        detail.push_str(&format!("; {} products are off", count(unbalanced)));
    }
    if expected != received {
        detail.push_str(&format!("; {} were put in", count(expected)));
    }
    Ok(Check {
        name: "stock balances at rest",
        passed: unbalanced == 0 && expected == received,
        detail,
    })
}
