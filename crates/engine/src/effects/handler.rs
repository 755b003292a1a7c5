//! The interface by which a service carries out its effects.

use std::convert::Infallible;
use std::future::Future;

use crate::{Command, Decider};

/// Carries out the effects of a rule book: calls the partner outside and turns a definite answer into a command.
///
/// Implementations do not retry, wait or count: the engine does back-off, deadline, concurrency and the breaker.
pub trait EffectHandler<D: Decider>: Send + Sync + 'static {
    /// Name of the effect's partner, for the breaker, the concurrency limit and the metrics.
    fn target(&self, effect: &D::Effect) -> &'static str;

    /// Carries out an effect under its idempotency key.
    ///
    /// With `attempt.may_have_run`, an earlier try may have reached the partner: look the key up before repeating.
    /// "Not found" only permits repeating the same key; "in progress" and time-outs are [`Indeterminate`].
    ///
    /// # Errors
    ///
    /// [`Indeterminate`] for everything but a definite answer; the engine retries the effect under the same key.
    fn perform(
        &self,
        key: &str,
        effect: &D::Effect,
        attempt: Attempt,
    ) -> impl Future<Output = Result<Command<D>, Indeterminate>> + Send;
}

/// The handler of a rule book without effects.
#[derive(Clone, Copy, Debug)]
pub struct NoEffects;

impl<D: Decider<Effect = Infallible>> EffectHandler<D> for NoEffects {
    fn target(&self, effect: &Infallible) -> &'static str {
        match *effect {}
    }

    async fn perform(
        &self,
        _key: &str,
        effect: &Infallible,
        _attempt: Attempt,
    ) -> Result<Command<D>, Indeterminate> {
        match *effect {}
    }
}

/// One try of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 1, 2, 3… within this process.
    pub number: u32,
    /// An earlier try, of this process or of a former owner, may have reached the partner.
    pub may_have_run: bool,
}

/// No definite answer: the partner is down, slow, or still processing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Indeterminate {
    /// For logs; lower case.
    pub reason: String,
    /// The partner itself fails (not only this effect is unfinished, as with a parcel in transit): counts against its
    /// breaker.
    pub partner_fault: bool,
}
