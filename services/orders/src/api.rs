//! `OrderService`: turns calls into commands and outcomes into answers.

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
use observability::about_order;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

/// For calls without a deadline.
const PATIENCE: Duration = Duration::from_secs(10);

const ID_REUSED: &str = "the order id is taken by an order with another body";

/// Machine-readable reasons of refusals.
pub mod reasons {
    /// The order id lies outside the window and no such order exists: a new id may be used.
    pub const STALE_UNKNOWN: &str = "STALE_UNKNOWN";
    /// The order id is taken by an order with another body.
    pub const ORDER_ID_REUSED: &str = "ORDER_ID_REUSED";
    /// Shipped, delivered or rejected already.
    pub const TOO_LATE: &str = "TOO_LATE";
}

/// The service behind `ordermesh.orders.v1.OrderService`; cheap to clone.
#[derive(Clone)]
pub struct Api {
    caller: CommandClient<Orders>,
    query: QueryServiceClient<Peer>,
}

impl Api {
    /// Commands go through `caller`; late repetitions are looked up, and confirmations awaited, at `query`.
    pub fn new(caller: CommandClient<Orders>, query: &Peer) -> Self {
        Self {
            caller,
            query: QueryServiceClient::new(query.retrying()),
        }
    }

    /// A repetition that came after the horizon: the order may have left the processor's memory, but not the read
    /// model. Only when it is not there either may the client use a new id.
    async fn find_stale(
        &self,
        order_id: String,
        asked: &PlaceOrder,
        answer: &Answer<Outcome>,
        left: Duration,
    ) -> Result<PlaceOrderResponse, Status> {
        let Some(order) = self.find(order_id.clone(), answer, left).await? else {
            return Err(error::rejected(
                reasons::STALE_UNKNOWN,
                "the order id is too old or too new, and there is no such order: use a new id",
            ));
        };
        if !is_same(asked, &order) {
            return Err(error::already_exists(reasons::ORDER_ID_REUSED, ID_REUSED));
        }
        Ok(PlaceOrderResponse {
            order_id,
            status: order.status,
            version: order.version,
        })
    }

    /// An order that the processor does not know may have left its memory, but only when it is final. The answer is the
    /// one that it would have given.
    async fn cancel_finished(
        &self,
        order_id: String,
        customer_id: &str,
        answer: &Answer<Outcome>,
        left: Duration,
    ) -> Result<CancelOrderResponse, Status> {
        let found = self.find(order_id, answer, left).await?;
        let order = found
            .filter(|order| order.customer_id == customer_id)
            .ok_or_else(|| error::not_found("order"))?;
        match order.status() {
            OrderStatus::Cancelled => Ok(CancelOrderResponse {
                status: order.status,
                version: order.version,
            }),
            OrderStatus::Delivered | OrderStatus::Rejected => Err(too_late(order.status())),
            // Placed after the command was decided.
            _ => Err(error::not_found("order")),
        }
    }

    /// The order in a read model that knows all that was known to the decision.
    async fn find(
        &self,
        order_id: String,
        decided: &Answer<Outcome>,
        left: Duration,
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
        request.set_timeout(left);
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
        let deadline = patience(&request);
        error::validate(request.get_ref())?;
        let request = request.into_inner();
        let wait = request.wait();
        let order_id = if request.order_id.is_empty() {
            Uuid::now_v7().to_string()
        } else {
            request.order_id
        };
        about_order(&order_id);
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
        // Whatever is written from here on is carried out, however short the caller's patience.
        let left = deadline.left()?;
        if wait == PlaceOrderWait::Durable {
            self.caller.send(call).await.map_err(unanswered)?;
            return Ok(Response::new(PlaceOrderResponse {
                order_id,
                ..Default::default()
            }));
        }
        let answer = self.caller.call(call, left).await.map_err(unanswered)?;
        let placed = match &answer.outcome {
            Outcome::Accepted(accepted) => PlaceOrderResponse {
                order_id,
                status: accepted.status,
                version: answer.version,
            },
            Outcome::Rejection(rejection) if rejection.code() == OrderRejectionCode::Stale => {
                self.find_stale(order_id, &order, &answer, deadline.remaining())
                    .await?
            }
            Outcome::Rejection(rejection) => return Err(refused(rejection)),
            Outcome::Parked(_) => return Err(error::unavailable("order", error::RETRY_AFTER)),
        };
        let answer = match wait {
            PlaceOrderWait::Confirmed => {
                confirmation::await_it(&self.query, placed, deadline).await?
            }
            _ => placed,
        };
        Ok(Response::new(answer))
    }

    async fn cancel_order(
        &self,
        request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        let deadline = patience(&request);
        error::validate(request.get_ref())?;
        let request = request.into_inner();
        about_order(&request.order_id);
        let call = Call {
            aggregate_id: request.order_id.clone(),
            actor: request.customer_id.clone(),
            command: Command::CancelOrder(CancelOrder {
                customer_id: request.customer_id.clone(),
            }),
        };
        let answer = self
            .caller
            .call(call, deadline.left()?)
            .await
            .map_err(unanswered)?;
        let cancelled = match &answer.outcome {
            Outcome::Accepted(accepted) => CancelOrderResponse {
                status: accepted.status,
                version: answer.version,
            },
            Outcome::Rejection(rejection)
                if rejection.code() == OrderRejectionCode::UnknownOrder =>
            {
                let left = deadline.remaining();
                self.cancel_finished(request.order_id, &request.customer_id, &answer, left)
                    .await?
            }
            Outcome::Rejection(rejection) => return Err(refused(rejection)),
            Outcome::Parked(_) => return Err(error::unavailable("order", error::RETRY_AFTER)),
        };
        Ok(Response::new(cancelled))
    }
}

/// Whether an order in the read model is the one that is asked for; the contact is not kept there.
fn is_same(asked: &PlaceOrder, order: &OrderView) -> bool {
    asked.customer_id == order.customer_id
        && asked.currency == order.currency
        && asked.lines == order.lines
}

fn patience<T>(request: &Request<T>) -> Deadline {
    request
        .extensions()
        .get()
        .copied()
        .unwrap_or_else(|| Deadline::after(PATIENCE))
}

fn refused(rejection: &OrderRejection) -> Status {
    match rejection.code() {
        OrderRejectionCode::IdReused => error::already_exists(reasons::ORDER_ID_REUSED, ID_REUSED),
        // A stranger does not learn that the order exists.
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

fn unanswered(failure: CallError) -> Status {
    match failure {
        CallError::Deadline => error::deadline(),
        CallError::Send(engine::log::kafka::SendError::Full) => {
            error::exhausted(error::RETRY_AFTER)
        }
        CallError::Send(_) | CallError::NotReady => {
            error::unavailable("the order log", error::RETRY_AFTER)
        }
        CallError::Invalid(_) | CallError::Unreadable => error::internal(&failure),
    }
}
