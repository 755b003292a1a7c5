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

use crate::process::{elapse, runtime};

/// Both partners, on a runtime of their own: what they have been asked goes on when who asked is gone.
pub struct Partners {
    pub sandbox: Sandbox,
    runtime: Runtime,
    begun_ms: i64,
    begun: tokio::time::Instant,
    clock: Clock,
}

impl Partners {
    /// Partners who behave like that.
    pub fn new(behaviour: Behaviour, clock: &Clock) -> Self {
        let runtime = runtime();
        let begun = runtime.block_on(async { tokio::time::Instant::now() });
        let told = clock.clone();
        let sandbox = Sandbox::in_memory(behaviour, std::sync::Arc::new(move || told.unix_ms()));
        Self {
            sandbox,
            runtime,
            begun_ms: clock.unix_ms(),
            begun,
            clock: clock.clone(),
        }
    }

    /// The way to the provider.
    pub fn provider(&self) -> Transport {
        Transport::new(Remote {
            service: self.sandbox.provider(),
            handle: self.runtime.handle().clone(),
        })
    }

    /// The way to the carrier.
    pub fn carrier(&self) -> Transport {
        Transport::new(Remote {
            service: self.sandbox.carrier(),
            handle: self.runtime.handle().clone(),
        })
    }

    /// They do what there is to do by now.
    pub fn work(&self) {
        elapse(
            &self.runtime,
            self.begun,
            self.clock.unix_ms() - self.begun_ms,
        );
    }
}

/// A service that works on another runtime than its caller.
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
        let answer = self.handle.spawn(self.service.call(request));
        async move {
            match answer.await {
                Ok(answer) => answer,
                // The world ends.
                Err(_) => futures::future::pending().await,
            }
        }
        .boxed()
    }
}
