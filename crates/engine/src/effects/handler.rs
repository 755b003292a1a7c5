//! What a service says about carrying out its effects.

use std::future::Future;

use crate::{Command, Decider};

/// Carries out the effects of a rule book: asks the partner outside and turns a definite answer into a command.
///
/// Implementations do not retry, wait or count: back-off, deadline, concurrency and the breaker are the engine's.
pub trait EffectHandler<D: Decider>: Send + Sync + 'static {
    /// The partner that an effect is for: it names the breaker, the concurrency limit and the metric.
    fn target(&self, effect: &D::Effect) -> &'static str;

    /// Carries out an effect under its idempotency key.
    ///
    /// `attempt.may_have_run` says that an earlier try may have reached the partner: look the key up before
    /// repeating. "Not found" permits only to repeat the same key; "in progress" and time-outs are [`Unknown`].
    ///
    /// # Errors
    ///
    /// [`Unknown`] for everything that is no definite answer; the effect is tried again under the same key.
    fn perform(
        &self,
        key: &str,
        effect: &D::Effect,
        attempt: Attempt,
    ) -> impl Future<Output = Result<Command<D>, Unknown>> + Send;
}

/// Which try of an effect this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 1, 2, 3… within this process.
    pub number: u32,
    /// An earlier try, of this process or of a former owner, may have reached the partner.
    pub may_have_run: bool,
}

/// No definite answer came: the partner is down, slow, or still at it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unknown {
    /// For logs; lower case.
    pub reason: String,
    /// The partner itself is in trouble (not just this effect, such as a parcel still on its way): counts
    /// against its breaker.
    pub partner_fault: bool,
}
