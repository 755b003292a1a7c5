//! The table of all operations of the API: the source of both the router and the OpenAPI document.

use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
use http::Method;

use super::openapi;
use super::watch::watch_order;
use super::{
    Api, adjust_stock, cancel_order, get_order, get_order_history, get_stock, list_orders,
    place_order,
};

/// An operation: its route and handler, and what the document needs beyond the contract.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) handler: MethodRouter<Api>,
    /// Full name of the gRPC method that it calls; empty for the document itself.
    pub(super) rpc: &'static str,
    /// Parameters of the path, and the fields of the request that they set.
    pub(super) path_fields: &'static [(&'static str, &'static str)],
    /// Parameters of the query, likewise.
    pub(super) query_fields: &'static [(&'static str, &'static str)],
    /// The field of the request that the Idempotency-Key header sets.
    pub(super) key_field: Option<&'static str>,
    pub(super) successes: Vec<Success>,
    /// Error statuses besides those that every operation can return.
    pub(super) error_statuses: &'static [u16],
}

/// A successful response.
pub(super) struct Success {
    pub(super) status: u16,
    pub(super) description: &'static str,
    pub(super) content: Content,
}

/// The content of a successful response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The response of the gRPC method.
    Json,
    /// The response, with the location of the order in a header.
    JsonWithLocation,
    /// Server-Sent Events, each a response of the gRPC method.
    Events,
    /// The document.
    Document,
    Nothing,
}

const fn success(status: u16, description: &'static str, content: Content) -> Success {
    Success {
        status,
        description,
        content,
    }
}

/// The table.
pub(super) fn all() -> Vec<Operation> {
    vec![
        Operation {
            key_field: Some("order_id"),
            successes: vec![
                success(
                    201,
                    "The order has reached the state that the request waits for: by default, it is created.",
                    Content::JsonWithLocation,
                ),
                success(
                    202,
                    "The order is durable, but not created yet.",
                    Content::JsonWithLocation,
                ),
            ],
            error_statuses: &[409, 413],
            ..post(
                "/v1/orders",
                place_order,
                "ordermesh.orders.v1.OrderService.PlaceOrder",
            )
        },
        Operation {
            query_fields: &[
                ("status", "statuses"),
                ("customer_id", "customer_id"),
                ("placed_from", "placed_from"),
                ("placed_before", "placed_before"),
                ("page_size", "page_size"),
                ("page_token", "page_token"),
            ],
            ..get(
                "/v1/orders",
                list_orders,
                "ordermesh.query.v1.QueryService.ListOrders",
            )
        },
        Operation {
            path_fields: &[("id", "order_id")],
            query_fields: &[("min_version", "min_version")],
            error_statuses: &[404],
            ..get(
                "/v1/orders/{id}",
                get_order,
                "ordermesh.query.v1.QueryService.GetOrder",
            )
        },
        Operation {
            path_fields: &[("id", "order_id")],
            error_statuses: &[404],
            ..get(
                "/v1/orders/{id}/history",
                get_order_history,
                "ordermesh.query.v1.QueryService.GetOrderHistory",
            )
        },
        Operation {
            path_fields: &[("id", "order_id")],
            query_fields: &[("after_version", "after_version")],
            successes: vec![
                success(
                    200,
                    "An event for each change, with the order's version as its id. An event named `problem` carries \
                     problem details and is the last one.",
                    Content::Events,
                ),
                success(
                    204,
                    "The order is final and the client has received all its changes. Do not reconnect.",
                    Content::Nothing,
                ),
            ],
            error_statuses: &[404],
            ..get(
                "/v1/orders/{id}/watch",
                watch_order,
                "ordermesh.query.v1.QueryService.WatchOrder",
            )
        },
        Operation {
            path_fields: &[("id", "order_id")],
            successes: vec![success(202, "The cancellation is accepted.", Content::Json)],
            error_statuses: &[404, 409, 413],
            ..post(
                "/v1/orders/{id}/cancel",
                cancel_order,
                "ordermesh.orders.v1.OrderService.CancelOrder",
            )
        },
        Operation {
            path_fields: &[("sku", "sku")],
            query_fields: &[("min_version", "min_version")],
            error_statuses: &[404],
            ..get(
                "/v1/stock/{sku}",
                get_stock,
                "ordermesh.query.v1.QueryService.GetStock",
            )
        },
        Operation {
            path_fields: &[("sku", "sku")],
            key_field: Some("adjustment_id"),
            successes: vec![success(200, "The stock is adjusted.", Content::Json)],
            error_statuses: &[409, 413],
            ..post(
                "/v1/stock/{sku}/adjustments",
                adjust_stock,
                "ordermesh.inventory.v1.InventoryService.AdjustStock",
            )
        },
        Operation {
            successes: vec![success(200, "This document.", Content::Document)],
            ..get("/openapi.json", openapi::document, "")
        },
    ]
}

fn get<H, T>(path: &'static str, handler: H, rpc: &'static str) -> Operation
where
    H: Handler<T, Api>,
    T: 'static,
{
    operation(Method::GET, path, routing::get(handler), rpc)
}

fn post<H, T>(path: &'static str, handler: H, rpc: &'static str) -> Operation
where
    H: Handler<T, Api>,
    T: 'static,
{
    operation(Method::POST, path, routing::post(handler), rpc)
}

fn operation(
    method: Method,
    path: &'static str,
    handler: MethodRouter<Api>,
    rpc: &'static str,
) -> Operation {
    Operation {
        method,
        path,
        handler,
        rpc,
        path_fields: &[],
        query_fields: &[],
        key_field: None,
        successes: vec![success(200, "The requested data.", Content::Json)],
        error_statuses: &[],
    }
}
