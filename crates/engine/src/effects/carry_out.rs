//! One effect: tried until its partner gives a definite answer.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use contracts::Contract;
use futures::FutureExt as _;
use tracing::Instrument as _;

use super::answers::Answers;
use super::clock::until;
use super::target::Target;
use super::trace::Try;
use super::{
    Attempt, EffectContext, EffectHandler, EffectRuntime, Limits, Origin, Unknown, backoff,
};
use crate::metrics::Metrics;
use crate::{Command, Decider};

/// What all effects of an executor share.
pub struct Shared<P> {
    pub perform: P,
    pub answers: Answers,
    pub runtime: Arc<dyn EffectRuntime>,
    pub metrics: Metrics,
    pub limits: Limits,
    pub targets: Mutex<HashMap<&'static str, Arc<Target>>>,
}

impl<P> Shared<P> {
    fn target(&self, service: &'static str, name: &'static str) -> Arc<Target> {
        let mut targets = self.targets.lock().expect("no holder panics");
        Arc::clone(targets.entry(name).or_insert_with(|| {
            let target = Arc::new(Target::new(service, name, self.limits.concurrency));
            self.metrics.targets.watch(&target);
            self.metrics.begin_target(service, name);
            target
        }))
    }
}

/// An effect that is to be carried out.
pub struct Asked<D: Decider> {
    pub id: String,
    pub key: String,
    pub effect: D::Effect,
    /// Unix milliseconds.
    pub not_before_ms: i64,
    pub occasion: EffectContext,
}

/// Tries an effect until its partner gives a definite answer, and sends the answer.
pub async fn carry_out<D: Decider, P: EffectHandler<D>>(shared: Arc<Shared<P>>, asked: Asked<D>)
where
    Command<D>: Into<contracts::Command>,
{
    let wait = until(asked.not_before_ms, shared.runtime.unix_ms());
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let service = D::Contract::SERVICE.name();
    let name = shared.perform.target(&asked.effect);
    let target = shared.target(service, name);
    let _awaiting = target.awaiting(asked.occasion.since_ms.max(asked.not_before_ms));
    let _outstanding = Counted::one(
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
    let mut may_have_run = asked.occasion.origin == Origin::TakenOver;
    let mut random = shared.runtime.random();
    for number in 1.. {
        let attempt = Attempt {
            number,
            may_have_run,
        };
        let (tried, span) = try_once(&shared, &target, &asked, attempt).await;
        may_have_run = true;
        match tried {
            Ok(command) => {
                count("answered");
                shared
                    .metrics
                    .effect_attempts
                    .with_label_values(&[service, name])
                    .observe(f64::from(number));
                let trace = span.end("answered").or(asked.occasion.trace);
                shared.answers.send(&asked.id, command, name, trace).await;
                return;
            }
            Err(Some(unknown)) => {
                let result = if unknown.partner_fault {
                    "unknown"
                } else {
                    "not_yet"
                };
                count(result);
                span.span().in_scope(|| {
                    tracing::debug!(service, target_name = name, key = asked.key, reason = %unknown, number, "no definite answer");
                });
                span.end(result);
            }
            Err(None) => {
                count("timed_out");
                span.end("timed_out");
            }
        }
        tokio::time::sleep(backoff::after(number, &mut random)).await;
    }
}

/// One try, as soon as the target lets it pass; `Err(None)` when its time ran out.
async fn try_once<D: Decider, P: EffectHandler<D>>(
    shared: &Shared<P>,
    target: &Target,
    asked: &Asked<D>,
    attempt: Attempt,
) -> (Result<Command<D>, Option<Unknown>>, Try) {
    let passed = target.pass().await;
    let span = Try::begin(asked.occasion.trace, target.name(), &asked.key, attempt);
    let call = shared.perform.perform(&asked.key, &asked.effect, attempt);
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
            passed.answered();
            Ok(command)
        }
        // Not this effect's answer yet, but an answer.
        Ok(Ok(Err(unknown))) if !unknown.partner_fault => {
            passed.answered();
            Err(Some(unknown))
        }
        Ok(Ok(Err(unknown))) => {
            passed.failed();
            Err(Some(unknown))
        }
        Ok(Err(_)) => {
            passed.failed();
            Err(Some(Unknown {
                reason: "the call panicked".into(),
                partner_fault: true,
            }))
        }
        Err(_) => {
            passed.failed();
            Err(None)
        }
    };
    (answer, span)
}

/// Counts an effect as outstanding for as long as its task lives.
struct Counted(prometheus::IntGauge);

impl Counted {
    fn one(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
