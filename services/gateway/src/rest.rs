//! The REST API: the gRPC methods under REST paths, in the canonical JSON of their messages.

mod json;
mod openapi;
mod operation;
mod query;
mod watch;

pub(crate) mod problem;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use chassis::error;
use chassis::grpc::{Deadline, Peer};
use contracts::inventory::v1::AdjustStockRequest;
use contracts::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::orders::v1::order_service_client::OrderServiceClient;
use contracts::orders::v1::{CancelOrderRequest, OrderStatus, PlaceOrderRequest};
use contracts::query::v1::query_service_client::QueryServiceClient;
use contracts::query::v1::{
    GetOrderHistoryRequest, GetOrderRequest, GetStockRequest, ListOrdersRequest,
};
use http::{HeaderMap, HeaderName, StatusCode, header};
use tonic::{Request, Status};

use query::Parameters;

/// Header that makes a call safe to repeat. Its value is used as the id in the body.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The services behind the API.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) orders: OrderServiceClient<Peer>,
    pub(crate) inventory: InventoryServiceClient<Peer>,
    pub(crate) query: QueryServiceClient<Peer>,
}

/// A gRPC error; [`problem::translate`] turns it into problem details.
struct GrpcError(Status);

impl From<Status> for GrpcError {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl IntoResponse for GrpcError {
    fn into_response(self) -> Response {
        self.0.into_http()
    }
}

type RestResult = Result<Response, GrpcError>;
type QueryPairs = Query<Vec<(String, String)>>;

/// The routes of all operations.
pub(crate) fn routes(api: Api) -> Router {
    operation::all()
        .into_iter()
        .fold(Router::new(), |router, operation| {
            router.route(operation.path, operation.handler)
        })
        .with_state(api)
}

async fn place_order(
    State(mut api): State<Api>,
    Extension(deadline): Extension<Deadline>,
    headers: HeaderMap,
    body: Body,
) -> RestResult {
    let mut order: PlaceOrderRequest = json::read(body).await?;
    set_from_idempotency_key(&headers, &mut order.order_id, "order_id")?;
    let placed = api
        .orders
        .place_order(with_deadline(deadline, order))
        .await?
        .into_inner();
    // Version 0: the order is durable in the log, but not created yet.
    let status = if placed.version == 0 {
        StatusCode::ACCEPTED
    } else {
        StatusCode::CREATED
    };
    let location = [(header::LOCATION, format!("/v1/orders/{}", placed.order_id))];
    Ok((status, location, json::write(&placed)?).into_response())
}

async fn cancel_order(
    State(mut api): State<Api>,
    Extension(deadline): Extension<Deadline>,
    Path(id): Path<String>,
    body: Body,
) -> RestResult {
    let mut cancel: CancelOrderRequest = json::read(body).await?;
    set_from_request(id, &mut cancel.order_id, "order_id", "the path")?;
    let cancelled = api
        .orders
        .cancel_order(with_deadline(deadline, cancel))
        .await?
        .into_inner();
    Ok((StatusCode::ACCEPTED, json::write(&cancelled)?).into_response())
}

async fn list_orders(
    State(mut api): State<Api>,
    Extension(deadline): Extension<Deadline>,
    Query(pairs): QueryPairs,
) -> RestResult {
    let mut parameters = Parameters::new(pairs);
    let list = ListOrdersRequest {
        statuses: parameters.list("status", order_status),
        customer_id: parameters.get_or_default("customer_id"),
        page_size: parameters.get_or_default("page_size"),
        page_token: parameters.get_or_default("page_token"),
        placed_from: parameters.get("placed_from"),
        placed_before: parameters.get("placed_before"),
    };
    parameters.finish()?;
    let page = api
        .query
        .list_orders(with_deadline(deadline, list))
        .await?
        .into_inner();
    Ok(json::write(&page)?.into_response())
}

async fn get_order(
    State(mut api): State<Api>,
    Extension(deadline): Extension<Deadline>,
    Path(order_id): Path<String>,
    Query(pairs): QueryPairs,
) -> RestResult {
    let mut parameters = Parameters::new(pairs);
    let get = GetOrderRequest {
        order_id,
        min_version: parameters.get_or_default("min_version"),
        ..Default::default()
    };
    parameters.finish()?;
    let order = api
        .query
        .get_order(with_deadline(deadline, get))
        .await?
        .into_inner();
    Ok(json::write(&order)?.into_response())
}

async fn get_order_history(
    State(mut api): State<Api>,
    Extension(deadline): Extension<Deadline>,
    Path(order_id): Path<String>,
    Query(pairs): QueryPairs,
) -> RestResult {
    Parameters::new(pairs).finish()?;
    let get = GetOrderHistoryRequest { order_id };
    let history = api
        .query
        .get_order_history(with_deadline(deadline, get))
        .await?
        .into_inner();
    Ok(json::write(&history)?.into_response())
}

async fn get_stock(
    State(mut api): State<Api>,
    Extension(deadline): Extension<Deadline>,
    Path(sku): Path<String>,
    Query(pairs): QueryPairs,
) -> RestResult {
    let mut parameters = Parameters::new(pairs);
    let get = GetStockRequest {
        sku,
        min_version: parameters.get_or_default("min_version"),
    };
    parameters.finish()?;
    let stock = api
        .query
        .get_stock(with_deadline(deadline, get))
        .await?
        .into_inner();
    Ok(json::write(&stock)?.into_response())
}

async fn adjust_stock(
    State(mut api): State<Api>,
    Extension(deadline): Extension<Deadline>,
    Path(sku): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> RestResult {
    let mut adjust: AdjustStockRequest = json::read(body).await?;
    set_from_request(sku, &mut adjust.sku, "sku", "the path")?;
    set_from_idempotency_key(&headers, &mut adjust.adjustment_id, "adjustment_id")?;
    let adjusted = api
        .inventory
        .adjust_stock(with_deadline(deadline, adjust))
        .await?
        .into_inner();
    Ok(json::write(&adjusted)?.into_response())
}

/// A gRPC request with the deadline of the REST request.
fn with_deadline<M>(deadline: Deadline, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(deadline);
    request
}

fn set_from_idempotency_key(
    headers: &HeaderMap,
    id: &mut String,
    field: &str,
) -> Result<(), Status> {
    match single_header(headers, &IDEMPOTENCY_KEY)? {
        Some(key) => set_from_request(key.to_owned(), id, field, "the Idempotency-Key header"),
        None => Ok(()),
    }
}

/// The value of a header; `None` when it is missing, an error when it occurs more than once.
fn single_header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Status> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), more) = (values.next(), values.next()) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(value) if more.is_none() => Ok(Some(value)),
        _ => Err(error::invalid_field(
            name.as_str(),
            "must be given once, in ASCII",
        )),
    }
}

/// Sets an id of the body from the path or a header. The body must not contain another value.
fn set_from_request(
    value: String,
    id: &mut String,
    field: &str,
    source: &str,
) -> Result<(), Status> {
    if !id.is_empty() && *id != value {
        return Err(error::invalid_field(
            field,
            format!("differs from {source}"),
        ));
    }
    *id = value;
    Ok(())
}

/// Parses `CONFIRMED`, `confirmed` or the full name in the contract.
fn order_status(text: &str) -> Option<i32> {
    const PREFIX: &str = "ORDER_STATUS_";
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix(PREFIX).unwrap_or(&name);
    let status = OrderStatus::from_str_name(&format!("{PREFIX}{name}"))?;
    (status != OrderStatus::Unspecified).then_some(status.into())
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_status_is_parsed_in_any_case() {
        let confirmed = Some(OrderStatus::Confirmed.into());
        for name in [
            "CONFIRMED",
            "confirmed",
            "ORDER_STATUS_CONFIRMED",
            "order_status_confirmed",
        ] {
            assert_eq!(order_status(name), confirmed, "{name}");
        }
        for name in ["", "unspecified", "lost", "3"] {
            assert_eq!(order_status(name), None, "{name}");
        }
    }

    #[test]
    fn an_idempotency_key_sets_the_id() {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, "a".parse().expect("it is a valid header"));
        for (body, valid) in [("", true), ("a", true), ("b", false)] {
            let mut id = body.to_owned();
            let outcome = set_from_idempotency_key(&headers, &mut id, "order_id");
            assert_eq!(
                outcome.as_ref().map_err(Status::code),
                if valid {
                    Ok(&())
                } else {
                    Err(Code::InvalidArgument)
                }
            );
            assert_eq!(id, if valid { "a" } else { "b" });
        }
        headers.append(IDEMPOTENCY_KEY, "a".parse().expect("it is a valid header"));
        assert!(set_from_idempotency_key(&headers, &mut String::new(), "order_id").is_err());
    }
}
