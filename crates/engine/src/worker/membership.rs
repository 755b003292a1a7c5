//! The worker's place in the group, and a broker that answers.
//!
//! A worker proves once a second that a command would be processed now: the broker answers, the group's coordinator has
//! confirmed the worker's place within the last heartbeats, and no partition stands still. What is missing keeps the
//! process from being ready.
//!
//! librdkafka makes lost connections anew and joins again by itself, but not always: when a broker is fenced and its
//! clients are told of a cluster without brokers, 2.12.1 may drop every connection and open none again (librdkafka
//! #5301, open in 2.15.0). So a consumer whose place is not confirmed for some seconds, although the coordinator answers
//! another client, is made anew under the same instance id. So is one that is reported as fenced although no replacement
//! member exists: [`Log::poll`] asks the broker who holds the place.

use std::time::Duration;

use contracts::{Contract, Topic};

use super::{Error, Safeguard, Worker};
use crate::Decider;
use crate::effects::EffectScheduler;
use crate::log::replacement::Failing;
use crate::log::{Log, Membership, Partition};

/// Between two proofs.
const PROVE_EVERY: Duration = Duration::from_secs(1);
/// The same while the place is not confirmed.
const PROVE_SOON: Duration = Duration::from_millis(500);
/// Longer than a usual rebalance. A member without a place owns nothing, so joining anew loses nothing.
const JOINING_PATIENCE: Duration = Duration::from_secs(5);

/// Answers of the broker in a row that a consumer gets time for, to find its coordinator by itself.
const ANSWERS: u32 = 3;

/// What the last proofs have shown of the broker and the group.
pub struct MembershipCheck {
    prove_at: Duration,
    /// Whose end is asked for next.
    turn: usize,
    /// Answers of the broker in a row.
    answers: u32,
    unconfirmed: Failing,
    joining: Failing,
}

impl Default for MembershipCheck {
    fn default() -> Self {
        Self {
            prove_at: Duration::ZERO,
            turn: 0,
            answers: 0,
            unconfirmed: Failing::default(),
            joining: Failing::with_patience(JOINING_PATIENCE),
        }
    }
}

impl MembershipCheck {
    /// The next proof is due at once.
    pub fn doubt(&mut self, now: Duration) {
        self.prove_at = self.prove_at.min(now);
    }
}

impl<D: Decider, L: Log, A: EffectScheduler<D>> Worker<D, L, A> {
    /// Proves that a command would be processed now, when that is due; makes the consumer anew when it has lost its
    /// place for good.
    pub(super) fn check_membership(&mut self) -> Result<(), Error> {
        let now = self.log.now();
        let has_place = self.log.generation().is_some();
        let membership = self.log.membership();
        self.status.place(match &membership {
            Membership::Unconfirmed { reason, .. } => Some(reason.clone()),
            Membership::Confirmed | Membership::Joining if has_place => None,
            Membership::Confirmed | Membership::Joining => Some("joining the group".to_owned()),
        });
        if now < self.membership.prove_at {
            return Ok(());
        }
        self.membership.prove_at = now
            + match membership {
                Membership::Confirmed => PROVE_EVERY,
                Membership::Joining | Membership::Unconfirmed { .. } => PROVE_SOON,
            };
        let partition = self.next_partition();
        match self.log.ends(Topic::Commands, partition) {
            Ok(ends) => {
                self.membership.answers += 1;
                self.broker_answers();
                self.check_standstill(partition, ends)?;
            }
            // A broker that is away confirms no place, and delivers nothing: that is no reason to join anew.
            Err(error) => {
                self.membership.answers = 0;
                self.standstill.forget();
                return self.trouble(error);
            }
        }
        let now = self.log.now();
        let check = &mut self.membership;
        let is_lost = match &membership {
            Membership::Unconfirmed { lasts, .. } => {
                let since = now.saturating_sub(*lasts);
                check.answers >= ANSWERS && check.unconfirmed.has_failed_since(since, now)
            }
            Membership::Joining if !has_place => {
                check.unconfirmed.answered();
                check.joining.failed(now)
            }
            Membership::Joining => {
                check.unconfirmed.answered();
                false
            }
            Membership::Confirmed => {
                check.unconfirmed.answered();
                check.joining.answered();
                false
            }
        };
        if !is_lost || self.tools.settings.without == Some(Safeguard::ReplacingClients) {
            return Ok(());
        }
        match self.log.ask_coordinator() {
            Ok(()) => {
                self.membership.unconfirmed.replaced();
                self.membership.joining.replaced();
                self.rejoin(&format!(
                    "the coordinator answers, but: {}",
                    describe(&membership)
                ))
            }
            Err(error) => self.trouble(error),
        }
    }

    /// Whose turn it is among the partitions that are processed; any one while none is.
    fn next_partition(&mut self) -> Partition {
        let count = self.running.len().max(1);
        self.membership.turn = (self.membership.turn + 1) % count;
        let mut partitions = self.running.keys();
        partitions
            .nth(self.membership.turn)
            .copied()
            .unwrap_or_default()
    }

    /// A producer that cannot be made is trouble of its own.
    fn broker_answers(&mut self) {
        if self.recreate_at.is_none() {
            self.outage.answered();
            self.status.log_available();
        }
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

fn describe(membership: &Membership) -> &str {
    match membership {
        Membership::Unconfirmed { reason, .. } => reason,
        Membership::Joining => "joining does not end",
        Membership::Confirmed => "the place is confirmed",
    }
}
