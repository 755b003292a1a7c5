//! The changes of an order as Server-Sent Events.

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
use super::{Api, QueryPairs, RestResult, json, problem, single_header, with_deadline};

/// Header with the id of the last event that a reconnecting browser has received.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How long the response headers wait for changes that already exist. The query service has read them by then; this is
/// the time for their transfer.
const FIRST_CHANGE_TIMEOUT: Duration = Duration::from_millis(250);
/// Interval of comments that keep proxies from closing an idle stream.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Name of the event that reports why a stream ends before the order is final. Changes have no event name.
const PROBLEM_EVENT: &str = "problem";

pub(super) async fn watch_order(
    State(mut api): State<Api>,
    Extension(deadline): Extension<Deadline>,
    Path(order_id): Path<String>,
    headers: HeaderMap,
    Query(pairs): QueryPairs,
) -> RestResult {
    let mut parameters = Parameters::new(pairs);
    let requested = parameters.get_or_default("after_version");
    parameters.finish()?;
    // A reconnecting browser uses the same URL, so the header is newer than the parameter.
    let after_version = last_event_id(&headers)?.unwrap_or(requested);
    let watch = WatchOrderRequest {
        order_id,
        after_version,
    };
    let mut changes = api
        .query
        .watch_order(with_deadline(deadline, watch))
        .await?
        .into_inner();
    let first = match timeout(FIRST_CHANGE_TIMEOUT, changes.message()).await {
        Ok(Ok(None)) => return Ok(no_content()),
        Ok(change) => change?.map(Ok),
        Err(_nothing_yet) => None,
    };
    let events = stream::iter(first)
        .chain(changes)
        .map(|change| Ok::<_, Infallible>(event(change)));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE_INTERVAL);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

/// The response when no change will follow: 204 is the only status that stops a browser from reconnecting.
fn no_content() -> axum::response::Response {
    StatusCode::NO_CONTENT.into_response()
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Status> {
    let value = single_header(headers, &LAST_EVENT_ID)?;
    value.map(str::parse).transpose().map_err(|_| {
        error::invalid_field(LAST_EVENT_ID.as_str(), "must be the id of an earlier event")
    })
}

fn event(change: Result<WatchOrderResponse, Status>) -> Event {
    let encoded = change.and_then(|change| {
        let version = change.order.as_ref().map_or(0, |order| order.version);
        Ok((version, json::print(&change)?))
    });
    match encoded {
        Ok((version, data)) => Event::default().id(version.to_string()).data(data),
        Err(status) => Event::default()
            .event(PROBLEM_EVENT)
            .data(problem::print(&status)),
    }
}
