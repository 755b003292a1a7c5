//! Every operation of the API, in one table: the router and the document are both made of it.

use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
use http::Method;

use super::openapi;
use super::watch::watch_order;
use super::{
    Api, adjust_stock, cancel_order, get_order, get_order_history, get_stock, list_orders,
    place_order,
};

/// An operation: where it is, who answers it, and what the document says of it beyond what the contract says.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) handler: MethodRouter<Api>,
    /// Full name of the gRPC method that it stands for; empty for the document itself.
    pub(super) rpc: &'static str,
    /// Parameters of the path, and the fields of the request that they stand for.
    pub(super) path_fields: &'static [(&'static str, &'static str)],
    /// Parameters of the query, likewise.
    pub(super) query_fields: &'static [(&'static str, &'static str)],
    /// The field of the request that the Idempotency-Key header stands for.
    pub(super) key_field: Option<&'static str>,
    pub(super) answers: Vec<Success>,
    /// Statuses of refusals besides those that any operation may answer with.
    pub(super) refusals: &'static [u16],
}

/// A status that stands for an answer.
pub(super) struct Success {
    pub(super) status: u16,
    pub(super) means: &'static str,
    pub(super) content: Content,
}

/// What an answer consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The response of the gRPC method.
    Json,
    /// The response, and where the order is from now on.
    Located,
    /// Server-Sent Events, each a response of the gRPC method.
    Events,
    /// The document.
    Document,
    Nothing,
}

const fn success(status: u16, means: &'static str, content: Content) -> Success {
    Success {
        status,
        means,
        content,
    }
}

/// The table.
pub(super) fn all() -> Vec<Operation> {
    vec![
        Operation {
            key_field: Some("order_id"),
            answers: vec![
                success(
                    201,
                    "What is waited for has happened: by default, the order is created.",
                    Content::Located,
                ),
                success(
                    202,
                    "The order is durable and not created yet: a receipt.",
                    Content::Located,
                ),
            ],
            refusals: &[409, 413],
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
            refusals: &[404],
            ..get(
                "/v1/orders/{id}",
                get_order,
                "ordermesh.query.v1.QueryService.GetOrder",
            )
        },
        Operation {
            path_fields: &[("id", "order_id")],
            refusals: &[404],
            ..get(
                "/v1/orders/{id}/history",
                get_order_history,
                "ordermesh.query.v1.QueryService.GetOrderHistory",
            )
        },
        Operation {
            path_fields: &[("id", "order_id")],
            query_fields: &[("after_version", "after_version")],
            answers: vec![
                success(
                    200,
                    "An event for each change, with the order's version as its id. An event named `problem` carries \
                     problem details and is the last one.",
                    Content::Events,
                ),
                success(
                    204,
                    "The order is final and was seen to its end: there is nothing to come back for.",
                    Content::Nothing,
                ),
            ],
            refusals: &[404],
            ..get(
                "/v1/orders/{id}/watch",
                watch_order,
                "ordermesh.query.v1.QueryService.WatchOrder",
            )
        },
        Operation {
            path_fields: &[("id", "order_id")],
            answers: vec![success(202, "The cancellation is accepted.", Content::Json)],
            refusals: &[404, 409, 413],
            ..post(
                "/v1/orders/{id}/cancel",
                cancel_order,
                "ordermesh.orders.v1.OrderService.CancelOrder",
            )
        },
        Operation {
            path_fields: &[("sku", "sku")],
            query_fields: &[("min_version", "min_version")],
            refusals: &[404],
            ..get(
                "/v1/stock/{sku}",
                get_stock,
                "ordermesh.query.v1.QueryService.GetStock",
            )
        },
        Operation {
            path_fields: &[("sku", "sku")],
            key_field: Some("adjustment_id"),
            answers: vec![success(200, "The stock is adjusted.", Content::Json)],
            refusals: &[409, 413],
            ..post(
                "/v1/stock/{sku}/adjustments",
                adjust_stock,
                "ordermesh.inventory.v1.InventoryService.AdjustStock",
            )
        },
        Operation {
            answers: vec![success(200, "This document.", Content::Document)],
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
        answers: vec![success(200, "What was asked for.", Content::Json)],
        refusals: &[],
    }
}
