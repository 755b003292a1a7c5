//! The payment provider and the carrier: the sandbox, reached without a network.

use std::convert::Infallible;
use std::task::{Context, Poll};

use chassis::grpc::Transport;
use contracts::sandbox::v1::Behaviour;
use engine::log::simulated::Clock;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use sandbox::Sandbox;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tower::Service;

use crate::process::{paused_runtime, run_until};

/// Both partners, on a runtime of their own: their calls continue after the caller has crashed.
pub struct Partners {
    pub sandbox: Sandbox,
    runtime: Runtime,
    started_ms: i64,
    started: tokio::time::Instant,
    clock: Clock,
}

impl Partners {
    /// Partners with that behaviour.
    pub fn new(behaviour: Behaviour, clock: &Clock) -> Self {
        let runtime = paused_runtime();
        let started = runtime.block_on(async { tokio::time::Instant::now() });
        let sandbox_clock = clock.clone();
        let sandbox = Sandbox::in_memory(
            behaviour,
            std::sync::Arc::new(move || sandbox_clock.unix_ms()),
        );
        Self {
            sandbox,
            runtime,
            started_ms: clock.unix_ms(),
            started,
            clock: clock.clone(),
        }
    }

    /// The transport to the payment provider.
    pub fn provider(&self) -> Transport {
        Transport::new(Remote {
            service: self.sandbox.provider(),
            handle: self.runtime.handle().clone(),
        })
    }

    /// The transport to the carrier.
    pub fn carrier(&self) -> Transport {
        Transport::new(Remote {
            service: self.sandbox.carrier(),
            handle: self.runtime.handle().clone(),
        })
    }

    /// Runs the work of the partners that is due.
    pub fn run_due_work(&self) {
        run_until(
            &self.runtime,
            self.started,
            self.clock.unix_ms() - self.started_ms,
        );
    }
}

/// A service that runs on another runtime than its caller.
#[derive(Clone)]
struct Remote<S> {
    service: S,
    handle: tokio::runtime::Handle,
}

impl<S> Service<Request<Body>> for Remote<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let response = self.handle.spawn(self.service.call(request));
        async move {
            match response.await {
                Ok(response) => response,
                // The runtime of the partners is shut down: the run is over.
                Err(_) => futures::future::pending().await,
            }
        }
        .boxed()
    }
}
