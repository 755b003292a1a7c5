//! A partner of effects: its concurrency limit, its breaker, and the age of its unanswered effects.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::breaker::{Admission, Breaker, CallKind, CallResult, State};

/// Shared by all effects of one service for one partner.
pub struct Target {
    service: &'static str,
    name: &'static str,
    permits: Semaphore,
    /// Held by the one effect that waits for the breaker. The others queue behind it, so that they neither wake
    /// together when the breaker half-opens nor overtake each other.
    turn: tokio::sync::Mutex<()>,
    breaker: Mutex<Breaker>,
    /// Wakes the effect that holds `turn` when the breaker's state may have changed.
    changed: Notify,
    awaited: Mutex<AwaitedEffects>,
}

/// Effects without an answer.
#[derive(Default)]
struct AwaitedEffects {
    /// Distinguishes effects of the same millisecond.
    next: u64,
    /// Start time (Unix milliseconds) and number, oldest first.
    since: BTreeSet<(i64, u64)>,
}

impl Target {
    /// A target with at most `concurrency` calls at once.
    pub fn new(service: &'static str, name: &'static str, concurrency: usize) -> Self {
        Self {
            service,
            name,
            permits: Semaphore::new(concurrency),
            turn: tokio::sync::Mutex::new(()),
            breaker: Mutex::default(),
            changed: Notify::new(),
            awaited: Mutex::default(),
        }
    }

    /// The service whose effects these are.
    pub const fn service(&self) -> &'static str {
        self.service
    }

    /// The partner.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Acquires a concurrency permit, then admission by the breaker. While the breaker is open no calls are made, so an
    /// effect that waits with a permit does not starve others.
    pub async fn acquire(&self) -> CallPermit<'_> {
        let permit = self.permits.acquire().await;
        let permit = permit.expect("the semaphore is never closed");
        let _turn = self.turn.lock().await;
        loop {
            let admission = self.breaker.lock().admit(Instant::now());
            match admission {
                Admission::Admitted(kind) => {
                    return CallPermit {
                        target: self,
                        kind,
                        result: CallResult::Abandoned,
                        _permit: permit,
                    };
                }
                Admission::Wait(wait) => {
                    // Either way, the breaker is asked again.
                    let _ = tokio::time::timeout(wait, self.changed.notified()).await;
                }
                Admission::WaitForProbe => self.changed.notified().await,
            }
        }
    }

    /// Counts an effect as unanswered since `since_ms` (Unix milliseconds) until the result is dropped.
    pub fn track(self: &Arc<Self>, since_ms: i64) -> TrackedEffect {
        let mut awaited = self.awaited.lock();
        awaited.next += 1;
        let entry = (since_ms, awaited.next);
        awaited.since.insert(entry);
        TrackedEffect {
            target: Arc::clone(self),
            entry,
        }
    }

    /// Start time of the oldest effect without an answer, Unix milliseconds.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.awaited
            .lock()
            .since
            .first()
            .map(|(since_ms, _)| *since_ms)
    }

    /// State of the breaker.
    pub fn state(&self) -> State {
        self.breaker.lock().state(Instant::now())
    }

    fn record(&self, kind: CallKind, result: CallResult) {
        let now = Instant::now();
        let mut breaker = self.breaker.lock();
        let before = breaker.state(now);
        breaker.record(kind, result, now);
        let after = breaker.state(now);
        drop(breaker);
        if before == State::Closed && after == State::Closed {
            return;
        }
        self.changed.notify_one();
        let (service, target_name) = (self.service, self.name);
        if before == State::Closed {
            tracing::warn!(service, target_name, "too many failures: breaker open");
        } else if after == State::Closed {
            tracing::info!(service, target_name, "answered again: breaker closed");
        }
    }
}

/// Permission for one call. Dropping it without a result, as when the effect's partition is revoked, counts as
/// abandoned, so that the breaker does not wait for a cancelled probe.
pub struct CallPermit<'a> {
    target: &'a Target,
    kind: CallKind,
    result: CallResult,
    _permit: SemaphorePermit<'a>,
}

impl CallPermit<'_> {
    /// The partner has answered.
    pub fn answered(mut self) {
        self.result = CallResult::Answered;
    }

    /// The partner has failed.
    pub fn failed(mut self) {
        self.result = CallResult::Failed;
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        self.target.record(self.kind, self.result);
    }
}

/// An effect without an answer.
pub struct TrackedEffect {
    target: Arc<Target>,
    entry: (i64, u64),
}

impl Drop for TrackedEffect {
    fn drop(&mut self) {
        self.target.awaited.lock().since.remove(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use futures::poll;

    use super::*;

    fn target(concurrency: usize) -> Arc<Target> {
        Arc::new(Target::new("payments", "provider", concurrency))
    }

    async fn open(target: &Target) {
        while target.state() != State::Open {
            target.acquire().await.failed();
        }
    }

    #[tokio::test]
    async fn the_oldest_effect_is_known_in_any_order() {
        let target = target(1);
        assert_eq!(target.oldest_ms(), None);
        let young = target.track(30);
        let old = target.track(10);
        let twin = target.track(10);
        assert_eq!(target.oldest_ms(), Some(10));
        drop(old);
        assert_eq!(target.oldest_ms(), Some(10));
        drop(twin);
        assert_eq!(target.oldest_ms(), Some(30));
        drop(young);
        assert_eq!(target.oldest_ms(), None);
    }

    #[tokio::test]
    async fn the_concurrency_limit_holds() {
        let target = target(2);
        let (first, second) = (target.acquire().await, target.acquire().await);
        let mut third = Box::pin(target.acquire());
        assert!(poll!(third.as_mut()).is_pending());
        first.failed();
        third.await.answered();
        second.answered();
    }

    #[tokio::test]
    async fn one_probe_is_admitted_and_the_others_after_its_answer() {
        let target = target(4);
        open(&target).await;
        let probe = target.acquire().await;
        assert_eq!(target.state(), State::HalfOpen);
        let mut others: Vec<_> = (0..3).map(|_| Box::pin(target.acquire())).collect();
        for other in &mut others {
            assert!(poll!(other.as_mut()).is_pending());
        }
        probe.answered();
        assert_eq!(target.state(), State::Closed);
        for permit in join_all(others).await {
            permit.answered();
        }
    }

    #[tokio::test]
    async fn an_answer_to_an_earlier_call_admits_all_at_once() {
        let target = target(4);
        let earlier = target.acquire().await;
        open(&target).await;
        let mut waiting = Box::pin(target.acquire());
        assert!(poll!(waiting.as_mut()).is_pending());
        earlier.answered();
        waiting.await.answered();
        assert_eq!(target.state(), State::Closed);
    }

    #[tokio::test]
    async fn after_an_abandoned_probe_the_next_is_admitted_and_after_a_failed_one_none() {
        let target = target(4);
        open(&target).await;
        let probe = target.acquire().await;
        let mut next = Box::pin(target.acquire());
        let mut last = Box::pin(target.acquire());
        for waiting in [&mut next, &mut last] {
            assert!(poll!(waiting.as_mut()).is_pending());
        }
        drop(probe);
        // An effect that is cancelled while it waits frees its turn.
        drop(next);
        let probe = last.await;
        assert_eq!(target.state(), State::HalfOpen);
        probe.failed();
        assert_eq!(target.state(), State::Open);
    }
}
