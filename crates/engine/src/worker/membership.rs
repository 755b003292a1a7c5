//! The worker's group membership, and the broker's availability.
//!
//! A worker checks once a second that a command would be processed now: the broker answers, the group's coordinator has
//! confirmed the membership within the last heartbeats, and no partition is stalled. Otherwise the process is not
//! ready.
//!
//! librdkafka reconnects and rejoins by itself, but not always: when a broker is fenced and its clients receive
//! metadata of a cluster without brokers, 2.12.1 may drop every connection and open none again (librdkafka #5301, open
//! in 2.15.0). So the worker recreates a consumer, under the same instance id, when its membership is not confirmed for
//! some seconds although the coordinator answers another client, and when it is reported fenced although no replacement
//! member exists: [`Log::poll`] asks the broker which member holds the instance id.

use std::time::Duration;

use contracts::{Contract, Topic};

use super::{Error, Worker, WorkerPhase, WorkerSafeguard};
use crate::Decider;
use crate::effects::EffectScheduler;
use crate::log::replacement::FailureTracker;
use crate::log::{Log, Membership, Partition};

/// Between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two checks while the membership is not confirmed.
const UNCONFIRMED_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Longer than a usual rebalance. A member that is not in the group owns nothing, so a new join loses nothing.
const JOINING_PATIENCE: Duration = Duration::from_secs(5);

/// Consecutive answers of the broker before a consumer is replaced: time to find its coordinator by itself.
const MIN_ANSWERS: u32 = 3;

/// Results of the last checks of the broker and the group.
pub struct MembershipCheck {
    check_at: Duration,
    /// Index of the partition whose ends are fetched next.
    partition_index: usize,
    /// Consecutive answers of the broker.
    answers: u32,
    unconfirmed: FailureTracker,
    joining: FailureTracker,
}

impl Default for MembershipCheck {
    fn default() -> Self {
        Self {
            check_at: Duration::ZERO,
            partition_index: 0,
            answers: 0,
            unconfirmed: FailureTracker::default(),
            joining: FailureTracker::with_patience(JOINING_PATIENCE),
        }
    }
}

impl MembershipCheck {
    /// Makes the next check due at once.
    pub fn check_soon(&mut self, now: Duration) {
        self.check_at = self.check_at.min(now);
    }
}

impl<D: Decider, L: Log, S: EffectScheduler<D>> Worker<D, L, S> {
    /// Checks, when due, that a command would be processed now; recreates the consumer when it has lost its membership
    /// for good.
    pub(super) fn check_membership(&mut self) -> Result<(), Error> {
        let now = self.log.now();
        let has_generation = self.log.generation().is_some();
        let membership = self.log.membership();
        self.status.membership(match &membership {
            Membership::Unconfirmed { reason, .. } => Some(reason.clone()),
            Membership::Confirmed | Membership::Joining if has_generation => None,
            Membership::Confirmed | Membership::Joining => Some("joining the group".to_owned()),
        });
        if now < self.membership.check_at {
            return Ok(());
        }
        self.membership.check_at = now
            + match membership {
                Membership::Confirmed => CHECK_INTERVAL,
                Membership::Joining | Membership::Unconfirmed { .. } => UNCONFIRMED_CHECK_INTERVAL,
            };
        let partition = self.next_partition();
        match self.log.ends(Topic::Commands, partition) {
            Ok(ends) => {
                self.membership.answers += 1;
                self.broker_available();
                self.check_stalls(partition, ends)?;
            }
            // While the broker is unavailable it confirms no membership and delivers nothing: no reason to rejoin.
            Err(error) => {
                self.membership.answers = 0;
                self.stalls.forget();
                return self.handle_log_error(error);
            }
        }
        let now = self.log.now();
        let check = &mut self.membership;
        let is_lost = match &membership {
            Membership::Unconfirmed { lasts, .. } => {
                let since = now.saturating_sub(*lasts);
                check.answers >= MIN_ANSWERS && check.unconfirmed.has_failed_since(since, now)
            }
            Membership::Joining if !has_generation => {
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
        if !is_lost || !self.context.settings.has(WorkerSafeguard::ReplacingClients) {
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
            Err(error) => self.handle_log_error(error),
        }
    }

    /// Rotates through the processed partitions; partition 0 while there are none.
    fn next_partition(&mut self) -> Partition {
        let count = self.partitions.restored().count().max(1);
        self.membership.partition_index = (self.membership.partition_index + 1) % count;
        let mut restored = self.partitions.restored();
        restored
            .nth(self.membership.partition_index)
            .map(|(partition, _)| partition)
            .unwrap_or_default()
    }

    /// Clears the outage, unless the producer still has to be recreated.
    fn broker_available(&mut self) {
        if self.phase == WorkerPhase::Running {
            self.outage.answered();
            self.status.log_available();
        }
    }

    /// Recreates the consumer.
    pub(super) fn rejoin(&mut self, reason: &str) -> Result<(), Error> {
        let service = D::Contract::SERVICE;
        tracing::warn!(%service, reason, "rejoining the group");
        self.context
            .metrics
            .consumers_recreated
            .with_label_values(&[service.name()])
            .inc();
        self.release_partitions();
        match self.log.rejoin() {
            Ok(()) => Ok(()),
            Err(error) => self.handle_log_error(error),
        }
    }
}

fn describe(membership: &Membership) -> &str {
    match membership {
        Membership::Unconfirmed { reason, .. } => reason,
        Membership::Joining => "joining does not end",
        Membership::Confirmed => "the membership is confirmed",
    }
}
