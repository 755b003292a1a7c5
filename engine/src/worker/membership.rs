//! A place in the group, and a broker that answers.
//!
//! A consumer makes lost connections anew and joins again by itself; a worker without work would notice neither that
//! the broker is away nor that its place is lost. So it looks while there is reason to, and readiness says what it
//! finds.
//!
//! A consumer has been seen not to join again: when the handle of a broker goes while librdkafka (2.12.1) asks that
//! broker for the group's coordinator, the question ends without an answer, and nobody asks again. Such a consumer
//! looks healthy and does nothing for ever; so one that has had no place for long, although the broker answers, is made
//! anew. So is one that is fenced in favour of nobody: the log finds out who has its place.

use std::time::Duration;

use contracts::{Contract, Topic};

use super::{Error, Worker};
use crate::Decider;
use crate::effects::Agenda;
use crate::log::{Log, Partition};

/// Between looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Answers of the broker, one a look, after which the consumer is made anew: longer than any session or rebalance.
const PATIENCE: u32 = 60;
/// Any partition will do.
const SOME: Partition = 0;

/// What was heard of the broker and the group last.
#[derive(Default)]
pub struct Membership {
    /// When to look; `None` while all is well.
    look_at: Option<Duration>,
    /// How often the broker has answered in a row while there was no place.
    answers: u32,
}

impl Membership {
    /// Somebody has to look. A lost connection alone is no news: brokers close idle ones.
    pub fn doubt(&mut self, now: Duration) {
        self.look_at.get_or_insert(now);
    }
}

impl<D: Decider, L: Log, A: Agenda<D>> Worker<D, L, A> {
    /// Looks, if there is reason to; makes the consumer anew when it has lost its place for good.
    pub(super) fn keep_place(&mut self) -> Result<(), Error> {
        let now = self.log.now();
        let has_place = self.log.generation().is_some();
        if has_place {
            self.membership.answers = 0;
        } else {
            self.status.left();
            self.membership.doubt(now);
        }
        if self.membership.look_at.is_none_or(|look_at| look_at > now) {
            return Ok(());
        }
        self.membership.look_at = None;
        if let Err(error) = self.log.ends(Topic::Commands, SOME) {
            // A broker that is away has nobody in its groups: that is no reason to join anew.
            self.membership.answers = 0;
            self.trouble(error)?;
        } else {
            // A producer that cannot be made is trouble of its own.
            if self.recreate_at.is_none() {
                self.status.log_available();
            }
            if has_place {
                return Ok(());
            }
            self.membership.answers += 1;
            if self.membership.answers > PATIENCE {
                self.membership.answers = 0;
                self.rejoin("no place in it although the broker answers")?;
            }
        }
        self.membership.look_at = Some(self.log.now() + LOOK_EVERY);
        Ok(())
    }

    /// Makes the consumer anew.
    pub(super) fn rejoin(&mut self, reason: &str) -> Result<(), Error> {
        let service = D::Contract::SERVICE;
        tracing::warn!(%service, reason, "joining the group anew");
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
