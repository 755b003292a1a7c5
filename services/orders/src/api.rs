//! `OrderService`: turns calls into commands and outcomes into responses.

mod confirmation;

use std::time::Duration;

use chassis::error;
use chassis::grpc::{Deadline, Peer};
use contracts::Orders;
use contracts::orders::v1::order_command::Command;
use contracts::orders::v1::order_outcome::Outcome;
use contracts::orders::v1::order_service_server::OrderService;
use contracts::orders::v1::{
    CancelOrder, CancelOrderRequest, CancelOrderResponse, OrderRejection, OrderRejectionCode,
    OrderStatus, PlaceOrder, PlaceOrderRequest, PlaceOrderResponse, PlaceOrderWait,
};
use contracts::query::v1::query_service_client::QueryServiceClient;
use contracts::query::v1::{EventsPosition, GetOrderRequest, OrderView};
use engine::{Answer, Call, CallError, CommandClient};
use observability::record_order_id;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

/// The deadline of calls without one.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

const ID_REUSED: &str = "the order id is taken by an order with another body";

/// Machine-readable reasons of errors.
pub mod reasons {
    /// The order id is outside the horizon and no such order exists: the client may use a new id.
    pub const STALE_UNKNOWN: &str = "STALE_UNKNOWN";
    /// Another order with this id and another body exists.
    pub const ORDER_ID_REUSED: &str = "ORDER_ID_REUSED";
    /// The order is already shipped, delivered or rejected.
    pub const TOO_LATE: &str = "TOO_LATE";
}

/// The service behind `ordermesh.orders.v1.OrderService`; cheap to clone.
#[derive(Clone)]
pub struct Api {
    client: CommandClient<Orders>,
    query: QueryServiceClient<Peer>,
}

impl Api {
    /// Sends commands with `client`. Looks up late repetitions and waits for confirmations at `query`.
    pub fn new(client: CommandClient<Orders>, query: &Peer) -> Self {
        Self {
            client,
            query: QueryServiceClient::new(query.retrying()),
        }
    }

    /// The response to an order whose id is beyond the horizon. The processor may have evicted the order, but the read
    /// model still has it. Only when it is missing there too may the client use a new id.
    async fn place_stale(
        &self,
        order_id: String,
        requested: &PlaceOrder,
        answer: &Answer<Outcome>,
        remaining: Duration,
    ) -> Result<PlaceOrderResponse, Status> {
        let Some(order) = self.find(order_id.clone(), answer, remaining).await? else {
            return Err(error::rejected(
                reasons::STALE_UNKNOWN,
                "the order id is too old or too new, and there is no such order: use a new id",
            ));
        };
        if !is_same(requested, &order) {
            return Err(error::already_exists(reasons::ORDER_ID_REUSED, ID_REUSED));
        }
        Ok(PlaceOrderResponse {
            order_id,
            status: order.status,
            version: order.version,
        })
    }

    /// The response to a cancellation of an order that the processor does not know. The processor evicts only finished
    /// orders; the response is the one that it would have given.
    async fn cancel_finished(
        &self,
        order_id: String,
        customer_id: &str,
        answer: &Answer<Outcome>,
        remaining: Duration,
    ) -> Result<CancelOrderResponse, Status> {
        let found = self.find(order_id, answer, remaining).await?;
        let order = found
            .filter(|order| order.customer_id == customer_id)
            .ok_or_else(|| error::not_found("order"))?;
        match order.status() {
            OrderStatus::Cancelled => Ok(CancelOrderResponse {
                status: order.status,
                version: order.version,
            }),
            OrderStatus::Delivered | OrderStatus::Rejected => Err(too_late(order.status())),
            // The order was placed after the command was decided.
            _ => Err(error::not_found("order")),
        }
    }

    /// Reads the order from the read model once that has applied all events before the decision.
    async fn find(
        &self,
        order_id: String,
        decided: &Answer<Outcome>,
        remaining: Duration,
    ) -> Result<Option<OrderView>, Status> {
        let position = EventsPosition {
            partition: u32::try_from(decided.partition).unwrap_or_default(),
            offset: decided.events_offset,
        };
        let mut request = Request::new(GetOrderRequest {
            order_id,
            min_version: 0,
            min_position: Some(position),
        });
        request.set_timeout(remaining);
        match self.query.clone().get_order(request).await {
            Ok(found) => Ok(found.into_inner().order),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }
}

#[tonic::async_trait]
impl OrderService for Api {
    async fn place_order(
        &self,
        request: Request<PlaceOrderRequest>,
    ) -> Result<Response<PlaceOrderResponse>, Status> {
        let deadline = deadline_of(&request);
        error::validate(request.get_ref())?;
        let request = request.into_inner();
        let wait = request.wait();
        let order_id = if request.order_id.is_empty() {
            Uuid::now_v7().to_string()
        } else {
            request.order_id
        };
        record_order_id(&order_id);
        let order = PlaceOrder {
            customer_id: request.customer_id,
            contact: request.contact,
            lines: request.lines,
            currency: request.currency,
        };
        let call = Call {
            aggregate_id: order_id.clone(),
            actor: order.customer_id.clone(),
            command: Command::PlaceOrder(order.clone()),
        };
        // A command that is written from here on is executed even when the deadline expires.
        let remaining = deadline.left()?;
        if wait == PlaceOrderWait::Durable {
            self.client.send(call).await.map_err(call_error_status)?;
            return Ok(Response::new(PlaceOrderResponse {
                order_id,
                ..Default::default()
            }));
        }
        let answer = self
            .client
            .call(call, remaining)
            .await
            .map_err(call_error_status)?;
        let placed = match &answer.outcome {
            Outcome::Accepted(accepted) => PlaceOrderResponse {
                order_id,
                status: accepted.status,
                version: answer.version,
            },
            Outcome::Rejection(rejection) if rejection.code() == OrderRejectionCode::Stale => {
                self.place_stale(order_id, &order, &answer, deadline.remaining())
                    .await?
            }
            Outcome::Rejection(rejection) => return Err(rejection_status(rejection)),
            Outcome::Parked(_) => return Err(error::unavailable("order", error::RETRY_AFTER)),
        };
        let answer = match wait {
            PlaceOrderWait::Confirmed => {
                confirmation::wait_until_settled(&self.query, placed, deadline).await?
            }
            _ => placed,
        };
        Ok(Response::new(answer))
    }

    async fn cancel_order(
        &self,
        request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        let deadline = deadline_of(&request);
        error::validate(request.get_ref())?;
        let request = request.into_inner();
        record_order_id(&request.order_id);
        let call = Call {
            aggregate_id: request.order_id.clone(),
            actor: request.customer_id.clone(),
            command: Command::CancelOrder(CancelOrder {
                customer_id: request.customer_id.clone(),
            }),
        };
        let answer = self
            .client
            .call(call, deadline.left()?)
            .await
            .map_err(call_error_status)?;
        let cancelled = match &answer.outcome {
            Outcome::Accepted(accepted) => CancelOrderResponse {
                status: accepted.status,
                version: answer.version,
            },
            Outcome::Rejection(rejection)
                if rejection.code() == OrderRejectionCode::UnknownOrder =>
            {
                let remaining = deadline.remaining();
                self.cancel_finished(request.order_id, &request.customer_id, &answer, remaining)
                    .await?
            }
            Outcome::Rejection(rejection) => return Err(rejection_status(rejection)),
            Outcome::Parked(_) => return Err(error::unavailable("order", error::RETRY_AFTER)),
        };
        Ok(Response::new(cancelled))
    }
}

/// Whether an order in the read model has the requested content. The read model has no contact to compare.
fn is_same(requested: &PlaceOrder, order: &OrderView) -> bool {
    requested.customer_id == order.customer_id
        && requested.currency == order.currency
        && requested.lines == order.lines
}

fn deadline_of<T>(request: &Request<T>) -> Deadline {
    request
        .extensions()
        .get()
        .copied()
        .unwrap_or_else(|| Deadline::after(DEFAULT_DEADLINE))
}

fn rejection_status(rejection: &OrderRejection) -> Status {
    match rejection.code() {
        OrderRejectionCode::IdReused => error::already_exists(reasons::ORDER_ID_REUSED, ID_REUSED),
        // Other customers do not learn that the order exists.
        OrderRejectionCode::UnknownOrder | OrderRejectionCode::ForeignOrder => {
            error::not_found("order")
        }
        OrderRejectionCode::TooLate => too_late(rejection.status()),
        OrderRejectionCode::Invalid => error::invalid_field("lines", "do not make a valid order"),
        OrderRejectionCode::Stale | OrderRejectionCode::Unspecified => {
            error::rejected(reasons::STALE_UNKNOWN, "the order id is too old or too new")
        }
    }
}

fn too_late(status: OrderStatus) -> Status {
    error::rejected(
        reasons::TOO_LATE,
        format!("the order is {}", status_name(status)),
    )
}

fn status_name(status: OrderStatus) -> String {
    status
        .as_str_name()
        .trim_start_matches("ORDER_STATUS_")
        .to_lowercase()
}

fn call_error_status(failure: CallError) -> Status {
    match failure {
        CallError::Deadline => error::deadline(),
        CallError::Send(engine::SendError::Full) => error::exhausted(error::RETRY_AFTER),
        CallError::Send(_) | CallError::NotReady => {
            error::unavailable("the order log", error::RETRY_AFTER)
        }
        CallError::Invalid(_) | CallError::Unreadable => error::internal(&failure),
    }
}
