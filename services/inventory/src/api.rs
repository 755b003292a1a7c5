//! `InventoryService`: turns calls into commands and outcomes into responses.

use std::time::Duration;

use chassis::error;
use chassis::grpc::Deadline;
use contracts::Inventory;
use contracts::inventory::v1::inventory_service_server::InventoryService;
use contracts::inventory::v1::stock_command::Command;
use contracts::inventory::v1::stock_outcome::Outcome;
use contracts::inventory::v1::{
    AdjustStock, AdjustStockRequest, AdjustStockResponse, StockRejection, StockRejectionCode,
};
use engine::{Call, CallError, CommandClient};
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// The deadline of calls without one.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
/// The actor of all adjustments: the API does not authenticate its callers.
const ACTOR: &str = "api";

/// Machine-readable reasons of errors.
pub mod reasons {
    /// The adjustment id is outside the range of time in which a repetition is recognised.
    pub const STALE: &str = "STALE";
    /// The adjustment id was used with another delta.
    pub const ADJUSTMENT_ID_REUSED: &str = "ADJUSTMENT_ID_REUSED";
    /// On hand would fall below what is reserved.
    pub const BELOW_RESERVED: &str = "BELOW_RESERVED";
    /// The number of received pieces would overflow.
    pub const OVERFLOW: &str = "OVERFLOW";
}

/// The service behind `ordermesh.inventory.v1.InventoryService`; cheap to clone.
#[derive(Clone)]
pub struct Api {
    client: CommandClient<Inventory>,
}

impl Api {
    /// Sends commands with `client`.
    pub fn new(client: CommandClient<Inventory>) -> Self {
        Self { client }
    }
}

#[tonic::async_trait]
impl InventoryService for Api {
    async fn adjust_stock(
        &self,
        request: Request<AdjustStockRequest>,
    ) -> Result<Response<AdjustStockResponse>, Status> {
        let deadline: Deadline = request
            .extensions()
            .get()
            .copied()
            .unwrap_or_else(|| Deadline::after(DEFAULT_DEADLINE));
        error::validate(request.get_ref())?;
        let request = request.into_inner();
        let adjustment_id = if request.adjustment_id.is_empty() {
            Uuid::now_v7().to_string()
        } else {
            request.adjustment_id
        };
        let call = Call {
            aggregate_id: request.sku,
            command: Command::AdjustStock(AdjustStock {
                adjustment_id: adjustment_id.clone(),
                delta: request.delta,
            }),
            actor: ACTOR.to_owned(),
        };
        let answer = self
            .client
            .call(call, deadline.left()?)
            .await
            .map_err(call_error_status)?;
        match answer.outcome {
            Outcome::Accepted(accepted) => Ok(Response::new(AdjustStockResponse {
                adjustment_id,
                on_hand: accepted.on_hand,
                reserved: accepted.reserved,
                version: answer.version,
            })),
            Outcome::Rejection(rejection) => Err(rejection_status(&rejection)),
            Outcome::Parked(_) => Err(error::unavailable("product", error::RETRY_AFTER)),
        }
    }
}

fn rejection_status(rejection: &StockRejection) -> Status {
    let figures = format!(
        "on hand {}, reserved {}",
        rejection.on_hand, rejection.reserved
    );
    match rejection.code() {
        StockRejectionCode::IdReused => error::already_exists(
            reasons::ADJUSTMENT_ID_REUSED,
            "the adjustment id was used with another delta",
        ),
        StockRejectionCode::BelowReserved => error::rejected(
            reasons::BELOW_RESERVED,
            format!("stock must not fall below what is reserved: {figures}"),
        ),
        StockRejectionCode::Overflow => error::rejected(
            reasons::OVERFLOW,
            format!("stock cannot be counted: {figures}"),
        ),
        StockRejectionCode::Stale | StockRejectionCode::Unspecified => error::rejected(
            reasons::STALE,
            "the adjustment id is too old or too new: use a new id",
        ),
    }
}

fn call_error_status(failure: CallError) -> Status {
    match failure {
        CallError::Deadline => error::deadline(),
        CallError::Send(engine::SendError::Full) => error::exhausted(error::RETRY_AFTER),
        CallError::Send(_) | CallError::NotReady => {
            error::unavailable("the stock log", error::RETRY_AFTER)
        }
        CallError::Invalid(_) | CallError::Unreadable => error::internal(&failure),
    }
}
