//! Keeping a place in the group.
//!
//! A consumer joins again by itself after a lost connection, an expired session or a broker that was away. It has
//! been seen not to: when the handle of a broker goes while librdkafka (2.12.1) asks that broker for the group's
//! coordinator, the question ends without an answer, and nobody asks again. Such a consumer looks healthy and does
//! nothing for ever; so one that has had no place for long, although the broker answers, is made anew.

use std::time::Duration;

use contracts::{Contract, Topic};

use super::{Error, Worker};
use crate::Decider;
use crate::effects::Agenda;
use crate::log::Log;

/// Between looks at a place that is lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Answers of the broker, one a look, after which the consumer is made anew: longer than any session or rebalance.
const PATIENCE: u32 = 12;

/// How long the place has been lost while the broker answered.
#[derive(Default)]
pub struct Membership {
    next_look: Duration,
    answers: u32,
}

impl<D: Decider, L: Log, A: Agenda<D>> Worker<D, L, A> {
    /// Makes the consumer anew when it has lost its place for good.
    pub(super) fn keep_place(&mut self) -> Result<(), Error> {
        let now = self.log.now();
        if self.log.generation().is_some() {
            self.membership = Membership::default();
            return Ok(());
        }
        self.status.left();
        if now < self.membership.next_look {
            return Ok(());
        }
        self.membership.next_look = now + LOOK_EVERY;
        // A broker that is away has nobody in its groups: that is no reason.
        if self.log.ends(Topic::Commands, 0).is_err() {
            self.membership.answers = 0;
            return Ok(());
        }
        self.membership.answers += 1;
        if self.membership.answers <= PATIENCE {
            return Ok(());
        }
        self.membership = Membership::default();
        let service = D::Contract::SERVICE;
        tracing::warn!(%service, "no place in the group although the broker answers: joining anew");
        self.tools
            .metrics
            .consumers_recreated
            .with_label_values(&[service.name()])
            .inc();
        self.lose_everything();
        match self.log.rejoin() {
            Ok(()) => Ok(()),
            Err(error) => self.trouble(error),
        }
    }
}
