//! A partner that effects are for: how many may ask it at once, whether any may, and which have waited longest.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::breaker::{Answer, Breaker, Ended, Pass, State};

/// What all effects of one service for one partner share.
pub struct Target {
    service: &'static str,
    name: &'static str,
    permits: Semaphore,
    /// Held by the one effect that waits for the breaker. The others queue up behind it, so that they neither wake up
    /// together when it half-opens nor overtake each other.
    turn: tokio::sync::Mutex<()>,
    breaker: Mutex<Breaker>,
    /// Wakes the effect whose turn it is when the breaker may say something else.
    changed: Notify,
    awaited: Mutex<Awaited>,
}

/// The effects without an answer.
#[derive(Default)]
struct Awaited {
    /// Tells effects of the same millisecond apart.
    next: u64,
    /// Since when (Unix milliseconds), oldest first.
    since: BTreeSet<(i64, u64)>,
}

impl Target {
    /// A target that takes `concurrency` effects at once.
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

    /// Waits until one more effect may ask the partner: for a free place first, then for the breaker. While that is
    /// open nobody asks, so that a place which waits for it is kept from no one.
    pub async fn pass(&self) -> Passed<'_> {
        let permit = self.permits.acquire().await;
        let permit = permit.expect("the semaphore is never closed");
        let _turn = self.turn.lock().await;
        loop {
            let answer = self.breaker().ask(Instant::now());
            match answer {
                Answer::Go(pass) => {
                    return Passed {
                        target: self,
                        pass,
                        how: Ended::Abandoned,
                        _permit: permit,
                    };
                }
                Answer::Wait(wait) => {
                    // Over either way: it asks again.
                    let _ = tokio::time::timeout(wait, self.changed.notified()).await;
                }
                Answer::WaitForProbe => self.changed.notified().await,
            }
        }
    }

    /// Counts an effect as awaited since then (Unix milliseconds) for as long as the result lives.
    pub fn awaiting(self: &Arc<Self>, since_ms: i64) -> Awaiting {
        let mut awaited = self.awaited();
        awaited.next += 1;
        let place = (since_ms, awaited.next);
        awaited.since.insert(place);
        Awaiting {
            target: Arc::clone(self),
            place,
        }
    }

    /// Since when the oldest effect without an answer is awaited, Unix milliseconds.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.awaited().since.first().map(|(since_ms, _)| *since_ms)
    }

    /// What the breaker lets through now.
    pub fn state(&self) -> State {
        self.breaker().state(Instant::now())
    }

    fn ended(&self, pass: Pass, how: Ended) {
        let now = Instant::now();
        let mut breaker = self.breaker();
        let before = breaker.state(now);
        breaker.ended(pass, how, now);
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

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().expect("no holder panics")
    }

    fn awaited(&self) -> MutexGuard<'_, Awaited> {
        self.awaited.lock().expect("no holder panics")
    }
}

/// An effect on its way to the partner. One that is dropped without a word, its partition having gone, does not leave
/// the breaker waiting for its probe.
pub struct Passed<'a> {
    target: &'a Target,
    pass: Pass,
    how: Ended,
    _permit: SemaphorePermit<'a>,
}

impl Passed<'_> {
    /// The partner has answered.
    pub fn answered(mut self) {
        self.how = Ended::Answered;
    }

    /// The partner has failed.
    pub fn failed(mut self) {
        self.how = Ended::Failed;
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        self.target.ended(self.pass, self.how);
    }
}

/// An effect without an answer.
pub struct Awaiting {
    target: Arc<Target>,
    place: (i64, u64),
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        self.target.awaited().since.remove(&self.place);
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
            target.pass().await.failed();
        }
    }

    #[tokio::test]
    async fn the_oldest_is_known_whatever_the_order() {
        let target = target(1);
        assert_eq!(target.oldest_ms(), None);
        let young = target.awaiting(30);
        let old = target.awaiting(10);
        let twin = target.awaiting(10);
        assert_eq!(target.oldest_ms(), Some(10));
        drop(old);
        assert_eq!(target.oldest_ms(), Some(10));
        drop(twin);
        assert_eq!(target.oldest_ms(), Some(30));
        drop(young);
        assert_eq!(target.oldest_ms(), None);
    }

    #[tokio::test]
    async fn no_more_pass_at_once_than_may() {
        let target = target(2);
        let (first, second) = (target.pass().await, target.pass().await);
        let mut third = Box::pin(target.pass());
        assert!(poll!(third.as_mut()).is_pending());
        first.failed();
        third.await.answered();
        second.answered();
    }

    #[tokio::test]
    async fn one_probe_goes_ahead_and_the_others_follow_its_answer() {
        let target = target(4);
        open(&target).await;
        let probe = target.pass().await;
        assert_eq!(target.state(), State::HalfOpen);
        let mut others: Vec<_> = (0..3).map(|_| Box::pin(target.pass())).collect();
        for other in &mut others {
            assert!(poll!(other.as_mut()).is_pending());
        }
        probe.answered();
        assert_eq!(target.state(), State::Closed);
        for passed in join_all(others).await {
            passed.answered();
        }
    }

    #[tokio::test]
    async fn an_answer_to_an_earlier_call_lets_everybody_go_at_once() {
        let target = target(4);
        let earlier = target.pass().await;
        open(&target).await;
        let mut waiting = Box::pin(target.pass());
        assert!(poll!(waiting.as_mut()).is_pending());
        earlier.answered();
        waiting.await.answered();
        assert_eq!(target.state(), State::Closed);
    }

    #[tokio::test]
    async fn a_probe_that_is_given_up_is_followed_by_the_next_and_a_failed_one_by_none() {
        let target = target(4);
        open(&target).await;
        let probe = target.pass().await;
        let mut next = Box::pin(target.pass());
        let mut last = Box::pin(target.pass());
        for waiting in [&mut next, &mut last] {
            assert!(poll!(waiting.as_mut()).is_pending());
        }
        drop(probe);
        // Whoever is given up while it waits leaves its turn to the next.
        drop(next);
        let probe = last.await;
        assert_eq!(target.state(), State::HalfOpen);
        probe.failed();
        assert_eq!(target.state(), State::Open);
    }
}
