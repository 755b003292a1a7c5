//! `OrderService`: turns calls into commands and outcomes into answers.

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
use engine::{Answer, Call, CallError, Caller};
use observability::TraceParent;
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
    caller: Caller<Orders>,
    query: QueryServiceClient<Peer>,
}

impl Api {
    /// Commands go through `caller`; late repetitions are looked up at `query`.
    pub fn new(caller: Caller<Orders>, query: &Peer) -> Self {
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
    ) -> Result<Response<PlaceOrderResponse>, Status> {
        let position = EventsPosition {
            partition: u32::try_from(answer.partition).unwrap_or_default(),
            offset: answer.events_offset,
        };
        let mut request = Request::new(GetOrderRequest {
            order_id: order_id.clone(),
            min_version: 0,
            min_position: Some(position),
        });
        request.set_timeout(left);
        match self.query.clone().get_order(request).await {
            Ok(found) => {
                let order: OrderView = found.into_inner().order.unwrap_or_default();
                if !is_same(asked, &order) {
                    return Err(error::already_exists(reasons::ORDER_ID_REUSED, ID_REUSED));
                }
                Ok(Response::new(PlaceOrderResponse {
                    order_id,
                    status: order.status,
                    version: order.version,
                }))
            }
            Err(status) if status.code() == Code::NotFound => Err(error::rejected(
                reasons::STALE_UNKNOWN,
                "the order id is too old or too new, and there is no such order: use a new id",
            )),
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
            traceparent: TraceParent::current().map(TraceParent::header),
        };
        if wait == PlaceOrderWait::Durable {
            self.caller.send(call).await.map_err(unanswered)?;
            return Ok(Response::new(PlaceOrderResponse {
                order_id,
                ..Default::default()
            }));
        }
        let answer = self
            .caller
            .call(call, deadline.remaining())
            .await
            .map_err(unanswered)?;
        match &answer.outcome {
            Outcome::Accepted(accepted) => Ok(Response::new(PlaceOrderResponse {
                order_id,
                status: accepted.status,
                version: answer.version,
            })),
            Outcome::Rejection(rejection) if rejection.code() == OrderRejectionCode::Stale => {
                self.find_stale(order_id, &order, &answer, deadline.remaining())
                    .await
            }
            Outcome::Rejection(rejection) => Err(refused(rejection)),
            Outcome::Parked(_) => Err(error::unavailable("order", error::RETRY_AFTER)),
        }
    }

    async fn cancel_order(
        &self,
        request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        let deadline = patience(&request);
        error::validate(request.get_ref())?;
        let request = request.into_inner();
        let call = Call {
            aggregate_id: request.order_id,
            actor: request.customer_id.clone(),
            command: Command::CancelOrder(CancelOrder {
                customer_id: request.customer_id,
            }),
            traceparent: TraceParent::current().map(TraceParent::header),
        };
        let answer = self
            .caller
            .call(call, deadline.remaining())
            .await
            .map_err(unanswered)?;
        match &answer.outcome {
            Outcome::Accepted(accepted) => Ok(Response::new(CancelOrderResponse {
                status: accepted.status,
                version: answer.version,
            })),
            Outcome::Rejection(rejection) => Err(refused(rejection)),
            Outcome::Parked(_) => Err(error::unavailable("order", error::RETRY_AFTER)),
        }
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
        OrderRejectionCode::TooLate => error::rejected(
            reasons::TOO_LATE,
            format!("the order is {}", status_name(rejection.status())),
        ),
        OrderRejectionCode::Invalid => error::invalid_field("lines", "do not make a valid order"),
        OrderRejectionCode::Stale | OrderRejectionCode::Unspecified => {
            error::rejected(reasons::STALE_UNKNOWN, "the order id is too old or too new")
        }
    }
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
