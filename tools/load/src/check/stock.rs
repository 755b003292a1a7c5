//! The stock: nothing is lost, nothing stays reserved.

use sqlx::PgPool;

use super::Check;
use terminal::count;

/// Received = on hand + deducted and nothing reserved, product by product.
pub async fn balanced(pool: &PgPool, pieces: Option<i64>) -> sqlx::Result<Check> {
    let (products, off, received, on_hand, deducted, reserved): (i64, i64, i64, i64, i64, i64) =
        sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE received <> on_hand + deducted OR reserved <> 0),
                    coalesce(sum(received), 0)::bigint, coalesce(sum(on_hand), 0)::bigint,
                    coalesce(sum(deducted), 0)::bigint, coalesce(sum(reserved), 0)::bigint
             FROM stock",
        )
        .fetch_one(pool)
        .await?;
    let put_in = pieces.unwrap_or(received);
    let mut detail = format!(
        "{} pieces of {} products received, {} on hand, {} deducted, {} reserved",
        count(received),
        count(products),
        count(on_hand),
        count(deducted),
        count(reserved)
    );
    if off > 0 {
        detail.push_str(&format!("; {} products are off", count(off)));
    }
    if put_in != received {
        detail.push_str(&format!("; {} were put in", count(put_in)));
    }
    Ok(Check {
        name: "stock balances at rest",
        passed: off == 0 && put_in == received,
        detail,
    })
}
