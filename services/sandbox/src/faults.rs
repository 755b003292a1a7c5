//! Injects faults into the calls of the partners. Every call passes through [`FaultInjector::call`].

use std::future;
use std::sync::Arc;
use std::time::Duration;

use chassis::error;
use contracts::sandbox::v1::{Behaviour, Faults};
use contracts::{Validate, carrier, provider, rules};
use hashlink::LruCache;
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use crate::{SharedBehaviour, derived};

/// Keys whose calls are counted. The least recently used key is evicted first; its count restarts.
const COUNTED_KEYS: usize = 100_000;

/// A request to a partner.
pub(crate) trait PartnerRequest: Validate + Send + 'static {
    /// Whether the request only reads the verdict on a key. The replies of such requests are never dropped: losing them
    /// would leave nothing in doubt.
    const IS_LOOKUP: bool;

    /// Its idempotency key.
    fn key(&self) -> &str;
}

macro_rules! partner_requests {
    ($($request:ty => $is_lookup:literal,)*) => {
        $(impl PartnerRequest for $request {
            const IS_LOOKUP: bool = $is_lookup;

            fn key(&self) -> &str {
                &self.idempotency_key
            }
        })*
    };
}

partner_requests! {
    provider::v1::ChargeRequest => false,
    provider::v1::RefundRequest => false,
    provider::v1::VoidRequest => false,
    provider::v1::LookupRequest => true,
    carrier::v1::BookRequest => false,
    carrier::v1::VoidRequest => false,
    carrier::v1::LookupRequest => true,
}

/// A partner with the faults of the current behaviour.
pub(crate) struct FaultInjector<P> {
    partner: Arc<P>,
    behaviour: SharedBehaviour,
    /// Selects this partner's faults.
    faults: fn(&Behaviour) -> Option<Faults>,
    /// Number of calls by key.
    calls: Mutex<LruCache<String, u32>>,
}

impl<P> FaultInjector<P> {
    pub(crate) fn new(
        partner: P,
        behaviour: SharedBehaviour,
        faults: fn(&Behaviour) -> Option<Faults>,
    ) -> Self {
        Self {
            partner: Arc::new(partner),
            behaviour,
            faults,
            calls: Mutex::new(LruCache::new(COUNTED_KEYS)),
        }
    }

    /// Executes a call with `execute`, unless a fault prevents it.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with every violation of the contract's field rules; UNAVAILABLE and INTERNAL for a fault;
    /// the errors of `execute`.
    pub(crate) async fn call<Q: PartnerRequest, A: Send + 'static, F>(
        &self,
        request: Request<Q>,
        execute: impl FnOnce(Arc<P>, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let behaviour = self.behaviour.get();
        let faults = (self.faults)(&behaviour).unwrap_or_default();
        if faults.outage {
            return Err(Status::unavailable("out of service"));
        }
        let request = request.into_inner();
        let violations = rules::field_violations(&request);
        if !violations.is_empty() {
            return Err(error::invalid(&violations));
        }

        let sampler = self.sampler(behaviour.seed, faults, request.key());
        if sampler.hits("hang", faults.hang_percent) {
            // The caller's deadline ends the call.
            future::pending::<()>().await;
        }
        if sampler.hits("error", faults.error_percent) {
            return Err(if sampler.hits("internal", 50) {
                Status::internal("out of order")
            } else {
                Status::unavailable("too busy")
            });
        }
        let is_slow = sampler.hits("slow", faults.slow_percent);
        let is_reply_lost = !Q::IS_LOOKUP && sampler.hits("reply-lost", faults.reply_lost_percent);

        let answer = execute(Arc::clone(&self.partner), request);
        let answer = if is_slow {
            delayed(Duration::from_millis(faults.slow_ms.into()), answer).await
        } else {
            answer.await
        };
        if is_reply_lost {
            return Err(Status::unavailable("the answer was lost"));
        }
        answer.map(Response::new)
    }

    /// The sampler of one call. Calls during an outage are not counted.
    fn sampler(&self, seed: u64, faults: Faults, key: &str) -> FaultSampler {
        let number = if faults == Faults::default() {
            0
        } else {
            self.count_call(key)
        };
        FaultSampler {
            seed,
            call: format!("{number}/{key}"),
        }
    }

    /// Counts a call and returns the number of calls with this key so far.
    fn count_call(&self, key: &str) -> u32 {
        let mut calls = self.calls.lock();
        if let Some(count) = calls.get_mut(key) {
            *count = count.wrapping_add(1);
            *count
        } else {
            calls.insert(key.to_owned(), 1);
            1
        }
    }
}

/// Executes a call after a delay, like a request that the network has held up: also when its caller has gone meanwhile.
async fn delayed<A: Send + 'static>(
    wait: Duration,
    answer: impl Future<Output = Result<A, Status>> + Send + 'static,
) -> Result<A, Status> {
    let task = tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        answer.await
    });
    task.await
        .unwrap_or_else(|panic| Err(error::internal(&panic)))
}

/// Decides which faults hit one call. Deterministic by seed, key and number of the call.
struct FaultSampler {
    seed: u64,
    /// Number of the call among those with its key, and the key.
    call: String,
}

impl FaultSampler {
    fn hits(&self, fault: &str, percent: u32) -> bool {
        percent > 0 && derived::is_selected(self.seed, &format!("{fault}/{}", self.call), percent)
    }
}
