//! An order's changes as Server-Sent Events.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse as _, Sse};
use chassis::error;
use chassis::grpc::Deadline;
use contracts::query::v1::{WatchOrderRequest, WatchOrderResponse};
use futures::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderName, StatusCode};
use tokio::time::timeout;
use tonic::Status;

use super::query::Parameters;
use super::{Answer, Api, Pairs, json, only, problem, within};

/// Header in which a browser that comes back says what it has seen.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How long the head of the answer waits for what there is already. The first look has been taken by then: this is
/// the time that it takes to come here.
const FIRST_CHANGE: Duration = Duration::from_millis(250);
/// Between comments that keep proxies from closing a stream in which nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Name of the event that tells why a stream ends before the order is final; changes have none.
const PROBLEM: &str = "problem";

pub(super) async fn watch_order(
    State(mut api): State<Api>,
    Extension(deadline): Extension<Deadline>,
    Path(order_id): Path<String>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Answer {
    let mut parameters = Parameters::new(pairs);
    let asked = parameters.one("after_version");
    parameters.finish()?;
    // A browser comes back to the same URL: what it says now is newer.
    let after_version = last_event_id(&headers)?.unwrap_or(asked);
    let watch = WatchOrderRequest {
        order_id,
        after_version,
    };
    let mut changes = api
        .query
        .watch_order(within(deadline, watch))
        .await?
        .into_inner();
    let first = match timeout(FIRST_CHANGE, changes.message()).await {
        Ok(Ok(None)) => return Ok(over()),
        Ok(change) => change?.map(Ok),
        Err(_nothing_yet) => None,
    };
    let events = stream::iter(first)
        .chain(changes)
        .map(|change| Ok::<_, Infallible>(event(change)));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

/// Nothing will ever follow: the one status that keeps a browser from coming back.
fn over() -> axum::response::Response {
    StatusCode::NO_CONTENT.into_response()
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Status> {
    let given = only(headers, &LAST_EVENT_ID)?;
    given.map(str::parse).transpose().map_err(|_| {
        error::invalid_field(LAST_EVENT_ID.as_str(), "must be the id of an earlier event")
    })
}

fn event(change: Result<WatchOrderResponse, Status>) -> Event {
    let told = change.and_then(|change| {
        let version = change.order.as_ref().map_or(0, |order| order.version);
        Ok((version, json::print(&change)?))
    });
    match told {
        Ok((version, data)) => Event::default().id(version.to_string()).data(data),
        Err(status) => Event::default()
            .event(PROBLEM)
            .data(problem::print(&status)),
    }
}
