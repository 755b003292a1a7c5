//! One replica of a peer: its connections and its health.

use std::error::Error;
use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service as _, ServiceExt as _};

/// Connections per replica. Several, because all streams of an HTTP/2 connection share one lock.
const CONNECTIONS: usize = 4;
/// A replica that could not be connected to comes last for this long.
const DOWN_TIME: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before the health of a replica is requested again; doubled up to [`MAX_PAUSE`] while it does not answer. Both
/// are short because a rolling restart continues as soon as a replica is ready: clients must know it by then.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// A replica of a peer. tonic's own balancer is not used: it prefers connections without load, and connections that
/// fail at once have no load.
#[derive(Debug)]
pub(super) struct Replica {
    address: Authority,
    endpoint: Endpoint,
    connections: Vec<Channel>,
    down_until: Mutex<Option<Instant>>,
}

impl Replica {
    pub(super) fn connect_lazy(address: &Authority) -> Self {
        let endpoint = endpoint(address);
        let connections = (0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect();
        Self {
            address: address.clone(),
            endpoint,
            connections,
            down_until: Mutex::new(None),
        }
    }

    pub(super) const fn address(&self) -> &Authority {
        &self.address
    }

    /// Sends a request; `round` selects the connection.
    pub(super) async fn call(
        &self,
        round: usize,
        request: Request<Body>,
    ) -> Result<Response<Body>, tonic::transport::Error> {
        let mut connection = self.connections[round % CONNECTIONS].clone();
        connection.ready().await?.call(request).await
    }

    /// Marks the replica as down for [`DOWN_TIME`].
    pub(super) fn mark_down(&self) {
        *self.down_until.lock() = Some(Instant::now() + DOWN_TIME);
    }

    pub(super) fn is_down(&self) -> bool {
        let down_until = *self.down_until.lock();
        down_until.is_some_and(|until| Instant::now() < until)
    }

    /// Subscribes to the health of the replica over a separate connection and calls `report` with each change. Never
    /// ends. A replica without a health service counts as healthy, one that cannot be reached does not.
    pub(super) fn watch_health(
        &self,
        report: impl Fn(bool) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut client = HealthClient::new(self.endpoint.connect_lazy());
        async move {
            let mut pause = MIN_PAUSE;
            loop {
                match client.watch(HealthCheckRequest::default()).await {
                    Ok(answers) => {
                        let mut answers = answers.into_inner();
                        while let Ok(Some(answer)) = answers.message().await {
                            report(answer.status() != ServingStatus::NotServing);
                            pause = MIN_PAUSE;
                        }
                    }
                    Err(status) => report(status.code() != Code::Unavailable),
                }
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

fn endpoint(address: &Authority) -> Endpoint {
    let uri = http::Uri::builder()
        .scheme("http")
        .authority(address.clone())
        .path_and_query("/")
        .build();
    Endpoint::from(uri.expect("scheme, authority and path make a URI"))
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// Whether a call failed because no connection could be opened.
pub(super) fn is_unconnected(error: &tonic::transport::Error) -> bool {
    find::<ConnectError>(error).is_some()
}

/// Whether a call failed before the server processed it, as happens while a server closes its connections gracefully:
/// the call was not sent, or arrived after the last stream that the server accepted.
pub(super) fn is_unprocessed(error: &tonic::transport::Error) -> bool {
    let not_sent = find::<hyper::Error>(error).is_some_and(hyper::Error::is_canceled);
    let refused = find::<h2::Error>(error).is_some_and(|error| {
        let after_go_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        let refused_stream = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (after_go_away || refused_stream)
    });
    not_sent || refused
}

/// The first `E` in the chain of causes.
pub(super) fn find<E: Error + 'static>(error: &tonic::transport::Error) -> Option<&E> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
