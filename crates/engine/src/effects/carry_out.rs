//! Runs one effect: retried until its partner gives a definite answer.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use contracts::Contract;
use futures::FutureExt as _;
use parking_lot::Mutex;
use tracing::Instrument as _;

use super::clock::duration_until;
use super::result_sender::ResultSender;
use super::target::Target;
use super::trace::AttemptSpan;
use super::{
    Attempt, EffectContext, EffectHandler, EffectRuntime, Indeterminate, Limits, Origin, backoff,
};
use crate::metrics::Metrics;
use crate::{Command, Decider};

/// Shared by all effects of an executor.
pub struct Shared<P> {
    pub handler: P,
    pub results: ResultSender,
    pub environment: Arc<dyn EffectRuntime>,
    pub metrics: Metrics,
    pub limits: Limits,
    pub targets: Mutex<HashMap<&'static str, Arc<Target>>>,
}

impl<P> Shared<P> {
    fn target(&self, service: &'static str, name: &'static str) -> Arc<Target> {
        let mut targets = self.targets.lock();
        Arc::clone(targets.entry(name).or_insert_with(|| {
            let target = Arc::new(Target::new(service, name, self.limits.concurrency));
            self.metrics.targets.watch(&target);
            self.metrics.initialise_target(service, name);
            target
        }))
    }
}

/// An effect to carry out.
pub struct PendingEffect<D: Decider> {
    pub id: String,
    pub key: String,
    pub effect: D::Effect,
    /// Unix milliseconds.
    pub not_before_ms: i64,
    pub context: EffectContext,
}

/// Retries an effect until its partner gives a definite answer, and sends the answer.
pub async fn carry_out<D: Decider, P: EffectHandler<D>>(
    shared: Arc<Shared<P>>,
    pending: PendingEffect<D>,
) where
    Command<D>: Into<contracts::Command>,
{
    let wait = duration_until(pending.not_before_ms, shared.environment.unix_ms());
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let service = D::Contract::SERVICE.name();
    let name = shared.handler.target(&pending.effect);
    let target = shared.target(service, name);
    let _tracked = target.track(pending.context.since_ms.max(pending.not_before_ms));
    let _outstanding = GaugeGuard::increment(
        shared
            .metrics
            .effects_outstanding
            .with_label_values(&[service]),
    );
    let count = |result: &str| {
        shared
            .metrics
            .effects
            .with_label_values(&[service, name, result])
            .inc();
    };
    let mut may_have_run = pending.context.origin == Origin::TakenOver;
    let mut random = shared.environment.random();
    for number in 1.. {
        let attempt = Attempt {
            number,
            may_have_run,
        };
        let (tried, span) = try_once(&shared, &target, &pending, attempt).await;
        may_have_run = true;
        match tried {
            Ok(command) => {
                count("answered");
                shared
                    .metrics
                    .effect_attempts
                    .with_label_values(&[service, name])
                    .observe(f64::from(number));
                let trace = span.end("answered").or(pending.context.trace);
                shared.results.send(&pending.id, command, name, trace).await;
                return;
            }
            Err(Some(indeterminate)) => {
                let result = if indeterminate.partner_fault {
                    "unknown"
                } else {
                    "not_yet"
                };
                count(result);
                span.span().in_scope(|| {
                    tracing::debug!(service, target_name = name, key = pending.key, reason = %indeterminate, number, "no definite answer");
                });
                span.end(result);
            }
            Err(None) => {
                count("timed_out");
                span.end("timed_out");
            }
        }
        tokio::time::sleep(backoff::delay(number, &mut random)).await;
    }
}

/// One try, as soon as the target admits it; `Err(None)` after a time-out.
async fn try_once<D: Decider, P: EffectHandler<D>>(
    shared: &Shared<P>,
    target: &Target,
    pending: &PendingEffect<D>,
    attempt: Attempt,
) -> (Result<Command<D>, Option<Indeterminate>>, AttemptSpan) {
    let permit = target.acquire().await;
    let span = AttemptSpan::begin(pending.context.trace, target.name(), &pending.key, attempt);
    let call = shared
        .handler
        .perform(&pending.key, &pending.effect, attempt);
    let call = AssertUnwindSafe(call.instrument(span.span())).catch_unwind();
    let timer = shared
        .metrics
        .effect_seconds
        .with_label_values(&[target.service(), target.name()])
        .start_timer();
    let tried = tokio::time::timeout(shared.limits.deadline, call).await;
    timer.observe_duration();
    let answer = match tried {
        Ok(Ok(Ok(command))) => {
            permit.answered();
            Ok(command)
        }
        // No answer to this effect yet, but the partner responds.
        Ok(Ok(Err(indeterminate))) if !indeterminate.partner_fault => {
            permit.answered();
            Err(Some(indeterminate))
        }
        Ok(Ok(Err(indeterminate))) => {
            permit.failed();
            Err(Some(indeterminate))
        }
        Ok(Err(_)) => {
            permit.failed();
            Err(Some(Indeterminate {
                reason: "the call panicked".into(),
                partner_fault: true,
            }))
        }
        Err(_) => {
            permit.failed();
            Err(None)
        }
    };
    (answer, span)
}

/// Counts an effect as outstanding while its task exists.
struct GaugeGuard(prometheus::IntGauge);

impl GaugeGuard {
    fn increment(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
