//! Waiting until an order is confirmed, or has ended otherwise.

use std::time::Duration;

use chassis::error;
use chassis::grpc::{Deadline, Peer};
use contracts::orders::v1::{OrderStatus, PlaceOrderResponse};
use contracts::query::v1::WatchOrderRequest;
use contracts::query::v1::query_service_client::QueryServiceClient;
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Status};

/// Before a watch that broke off is taken up again.
const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// The order once it is confirmed, shipped or final: at once when it is so already.
///
/// # Errors
///
/// DEADLINE_EXCEEDED when it is not so in time: the order goes on. What else keeps it from being watched, unless it
/// passes in time.
pub async fn await_it(
    query: &QueryServiceClient<Peer>,
    mut placed: PlaceOrderResponse,
    deadline: Deadline,
) -> Result<PlaceOrderResponse, Status> {
    let watching = async {
        while !is_settled(placed.status()) {
            match watch(query.clone(), &mut placed, deadline).await {
                // The order exists: where it is not seen yet it will be.
                Err(status) if matches!(status.code(), Code::Unavailable | Code::NotFound) => {
                    sleep(RESUME_PAUSE).await;
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

/// Keeps `placed` up to date until it is settled; a stream that ends before has broken off.
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

/// Nothing is left that decides whether the order is confirmed.
fn is_settled(status: OrderStatus) -> bool {
    use OrderStatus::{Cancelled, Confirmed, Delivered, Rejected, Shipped};
    matches!(
        status,
        Confirmed | Shipped | Delivered | Cancelled | Rejected
    )
}

#[cfg(test)]
mod tests;
