//! How partners fail, on top of what they decide. Every call of a partner comes through [`Faulty::call`].

use std::future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chassis::error;
use contracts::sandbox::v1::{Behaviour, Faults};
use contracts::{Validate, carrier, provider, rules};
use hashlink::LruCache;
use tonic::{Request, Response, Status};

use crate::{Manners, dice};

/// Keys whose calls are counted. The key that was called longest ago is forgotten first, and begins anew.
const COUNTED_KEYS: usize = 100_000;

/// A request to a partner.
pub(crate) trait Call: Validate + Send + 'static {
    /// It only asks what has become of a key, so that nothing is in doubt when its answer is lost.
    const LOOKS_UP: bool;

    /// Its idempotency key.
    fn key(&self) -> &str;
}

macro_rules! calls {
    ($($request:ty => $looks_up:literal,)*) => {
        $(impl Call for $request {
            const LOOKS_UP: bool = $looks_up;

            fn key(&self) -> &str {
                &self.idempotency_key
            }
        })*
    };
}

calls! {
    provider::v1::ChargeRequest => false,
    provider::v1::RefundRequest => false,
    provider::v1::VoidRequest => false,
    provider::v1::LookupRequest => true,
    carrier::v1::BookRequest => false,
    carrier::v1::VoidRequest => false,
    carrier::v1::LookupRequest => true,
}

/// A partner that fails as often as it is told to.
pub(crate) struct Faulty<P> {
    partner: Arc<P>,
    manners: Manners,
    /// This partner's part of the behaviour.
    faults: fn(&Behaviour) -> Option<Faults>,
    /// Calls by key.
    calls: Mutex<LruCache<String, u32>>,
}

impl<P> Faulty<P> {
    pub(crate) fn new(
        partner: P,
        manners: Manners,
        faults: fn(&Behaviour) -> Option<Faults>,
    ) -> Self {
        Self {
            partner: Arc::new(partner),
            manners,
            faults,
            calls: Mutex::new(LruCache::new(COUNTED_KEYS)),
        }
    }

    /// Carries a call out, unless a fault comes in between.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with every violation of the contract's field rules; UNAVAILABLE and INTERNAL for a fault;
    /// that of `carry_out`.
    pub(crate) async fn call<Q: Call, A: Send + 'static, F>(
        &self,
        request: Request<Q>,
        carry_out: impl FnOnce(Arc<P>, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let behaviour = self.manners.get();
        let faults = (self.faults)(&behaviour).unwrap_or_default();
        if faults.outage {
            return Err(Status::unavailable("out of service"));
        }
        let request = request.into_inner();
        let violations = rules::field_violations(&request);
        if !violations.is_empty() {
            return Err(error::invalid(&violations));
        }

        let draw = self.draw(behaviour.seed, faults, request.key());
        if draw.picks("hang", faults.hang_percent) {
            // Ends with the caller's patience.
            future::pending::<()>().await;
        }
        if draw.picks("error", faults.error_percent) {
            return Err(if draw.picks("internal", 50) {
                Status::internal("out of order")
            } else {
                Status::unavailable("too busy")
            });
        }
        let is_late = draw.picks("slow", faults.slow_percent);
        let is_lost = !Q::LOOKS_UP && draw.picks("reply-lost", faults.reply_lost_percent);

        let answer = carry_out(Arc::clone(&self.partner), request);
        let answer = if is_late {
            late(Duration::from_millis(faults.slow_ms.into()), answer).await
        } else {
            answer.await
        };
        if is_lost {
            return Err(Status::unavailable("the answer was lost"));
        }
        answer.map(Response::new)
    }

    /// The call's own draw. An outage draws nothing and does not count as a call.
    fn draw(&self, seed: u64, faults: Faults, key: &str) -> Draw {
        let number = if faults == Faults::default() {
            0
        } else {
            self.count(key)
        };
        Draw {
            seed,
            call: format!("{number}/{key}"),
        }
    }

    fn count(&self, key: &str) -> u32 {
        let mut calls = self.calls.lock().expect("nobody panics while holding it");
        if let Some(count) = calls.get_mut(key) {
            *count = count.wrapping_add(1);
            *count
        } else {
            calls.insert(key.to_owned(), 1);
            1
        }
    }
}

/// Carries out what comes late, like a request that the network has held up: also when its caller has gone meanwhile.
async fn late<A: Send + 'static>(
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

/// The luck of one call.
struct Draw {
    seed: u64,
    /// Its number among the calls with its key, and the key.
    call: String,
}

impl Draw {
    fn picks(&self, fault: &str, percent: u32) -> bool {
        percent > 0 && dice::picks(self.seed, &format!("{fault}/{}", self.call), percent)
    }
}
