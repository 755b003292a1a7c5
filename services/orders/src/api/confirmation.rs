//! Waits until an order is confirmed or ends without confirmation.

use std::time::Duration;

use chassis::error;
use chassis::grpc::{Deadline, Peer};
use contracts::orders::v1::{OrderStatus, PlaceOrderResponse};
use contracts::query::v1::WatchOrderRequest;
use contracts::query::v1::query_service_client::QueryServiceClient;
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Status};

/// Pause before a failed watch is restarted.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Returns the order once it is confirmed, shipped or final; at once when it already is.
///
/// # Errors
///
/// DEADLINE_EXCEEDED when that does not happen in time; the order itself continues. Any other error of the watch that
/// retries cannot solve.
pub async fn wait_until_settled(
    query: &QueryServiceClient<Peer>,
    mut placed: PlaceOrderResponse,
    deadline: Deadline,
) -> Result<PlaceOrderResponse, Status> {
    let watching = async {
        while !is_settled(placed.status()) {
            match watch(query.clone(), &mut placed, deadline).await {
                // The order exists, so the read model will have it soon.
                Err(status) if matches!(status.code(), Code::Unavailable | Code::NotFound) => {
                    sleep(RETRY_PAUSE).await;
                }
                outcome => outcome?,
            }
        }
        Ok(placed)
    };
    timeout(deadline.remaining(), watching)
        .await
        .unwrap_or_else(|_| Err(error::deadline()))
}

/// Updates `placed` until it is settled. A stream that ends earlier is an error.
async fn watch(
    mut query: QueryServiceClient<Peer>,
    placed: &mut PlaceOrderResponse,
    deadline: Deadline,
) -> Result<(), Status> {
    let mut request = Request::new(WatchOrderRequest {
        order_id: placed.order_id.clone(),
        after_version: placed.version,
    });
    request.set_timeout(deadline.left()?);
    let mut changes = query.watch_order(request).await?.into_inner();
    while !is_settled(placed.status()) {
        let Some(change) = changes.message().await? else {
            return Err(error::unavailable("query", error::RETRY_AFTER));
        };
        if let Some(order) = change.order {
            placed.status = order.status;
            placed.version = order.version;
        }
    }
    Ok(())
}

/// Whether it is decided that the order is confirmed or never will be.
fn is_settled(status: OrderStatus) -> bool {
    use OrderStatus::{Cancelled, Confirmed, Delivered, Rejected, Shipped};
    matches!(
        status,
        Confirmed | Shipped | Delivered | Cancelled | Rejected
    )
}

#[cfg(test)]
mod tests;
