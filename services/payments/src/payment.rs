//! The rule book of a payment. The id of a payment is the id of its order.
//!
//! ```text
//! (unknown)         ChargePayment            REQUESTED         PaymentRequested
//! REQUESTED         RecordCharged            PROCESSED         PaymentProcessed
//! REQUESTED         RecordChargeDeclined     DECLINED          PaymentDeclined
//! PROCESSED         SettlePayment            SETTLED           PaymentSettled
//!
//! REQUESTED         CancelPayment            CANCEL_REQUESTED  PaymentCancelRequested
//! CANCEL_REQUESTED  RecordChargeVoided       VOIDED            PaymentVoided
//! CANCEL_REQUESTED  RecordChargeDeclined     DECLINED          PaymentDeclined(while cancelling)
//! CANCEL_REQUESTED  RecordCharged            REFUNDING         PaymentRefundRequested(captured)
//! PROCESSED         CancelPayment            REFUNDING         PaymentRefundRequested
//! REFUNDING         RecordRefunded           REFUNDED          PaymentRefunded
//! REFUNDING         RecordRefundRefused      REFUNDING         PaymentRefundRefused (next attempt, later, flagged)
//!
//! (unknown), DECLINED, VOIDED, REFUNDED, SETTLED
//!                   CancelPayment            unchanged         PaymentCancelSettled
//! ```
//!
//! Everything else gives no events: repetitions, answers to an earlier attempt, and a cancellation while another one is
//! pending.

use std::convert::Infallible;

use contracts::core::v1::Money;
use contracts::orders::v1::order_command::Command as OrderCommand;
use contracts::orders::v1::{
    RecordPaymentCancelled, RecordPaymentDeclined, RecordPaymentProcessed,
};
use contracts::payments::v1::payment_command::Command;
use contracts::payments::v1::payment_event::Event;
use contracts::payments::v1::payment_outcome::Outcome;
use contracts::payments::v1::{
    Payment, PaymentCancelRequested, PaymentCancelSettled, PaymentCommandAccepted, PaymentDeclined,
    PaymentProcessed, PaymentRefundRefused, PaymentRefundRequested, PaymentRefunded,
    PaymentRequested, PaymentSettled, PaymentStatus as Status, PaymentVoided,
};
use contracts::{Message, Payments, Service, rules};
use engine::{Context, Decider, Outstanding};

/// The only attempt of a charge: a declined charge ends its payment.
pub(crate) const CHARGE_ATTEMPT: u32 = 1;

/// Longest wait after a refused refund, milliseconds.
pub(crate) const REFUND_WAIT_MAX_MS: i64 = 60 * 60_000;

/// The rules of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaymentRules {
    /// Time from the first refusal of a refund to its next attempt, milliseconds. Every further refusal doubles it, up
    /// to an hour.
    pub refund_wait_ms: i64,
}

impl Default for PaymentRules {
    fn default() -> Self {
        Self {
            refund_wait_ms: 60_000,
        }
    }
}

/// A call to the payment provider.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Charge the customer.
    Charge {
        /// The amount to charge.
        amount: Money,
        /// The customer to charge.
        customer_id: String,
    },
    /// Void the charge, unless it has already happened.
    Void {
        /// Idempotency key of the charge.
        charge_key: String,
    },
    /// Refund the charge.
    Refund {
        /// Number of this refund; the answer carries it.
        attempt: u32,
        /// Idempotency key of the charge.
        charge_key: String,
        /// The amount of the charge, which is always refunded in full.
        amount: Money,
    },
}

impl Decider for PaymentRules {
    type Contract = Payments;
    /// Never occurs: commands of other services and of the provider are never rejected.
    type Rejection = Infallible;
    type Effect = Effect;

    const RULES_VERSION: u32 = 2;
    const ASKER: Option<Service> = Some(Service::Orders);

    fn decide(
        &self,
        payment: &Payment,
        command: &Command,
        context: &Context<'_>,
    ) -> Result<Vec<Event>, Infallible> {
        let event = match (payment.status(), command) {
            (Status::Unspecified, Command::ChargePayment(charge)) => {
                Some(Event::PaymentRequested(PaymentRequested {
                    amount: charge.amount.clone(),
                    customer_id: charge.customer_id.clone(),
                }))
            }
            (Status::Requested, Command::RecordCharged(answer))
                if answer.attempt == CHARGE_ATTEMPT =>
            {
                Some(Event::PaymentProcessed(PaymentProcessed {
                    provider_reference: answer.provider_reference.clone(),
                }))
            }
            (
                status @ (Status::Requested | Status::CancelRequested),
                Command::RecordChargeDeclined(answer),
            ) if answer.attempt == CHARGE_ATTEMPT => {
                Some(Event::PaymentDeclined(PaymentDeclined {
                    reason: answer.reason.clone(),
                    while_cancelling: status == Status::CancelRequested,
                }))
            }
            (Status::Processed, Command::SettlePayment(_)) => {
                Some(Event::PaymentSettled(PaymentSettled {}))
            }

            (Status::Requested, Command::CancelPayment(_)) => {
                Some(Event::PaymentCancelRequested(PaymentCancelRequested {}))
            }
            (Status::CancelRequested, Command::RecordChargeVoided(answer))
                if answer.attempt == CHARGE_ATTEMPT =>
            {
                Some(Event::PaymentVoided(PaymentVoided {}))
            }
            (Status::CancelRequested, Command::RecordCharged(answer))
                if answer.attempt == CHARGE_ATTEMPT =>
            {
                Some(Event::PaymentRefundRequested(PaymentRefundRequested {
                    captured: true,
                    provider_reference: answer.provider_reference.clone(),
                }))
            }
            (Status::Processed, Command::CancelPayment(_)) => {
                Some(Event::PaymentRefundRequested(PaymentRefundRequested {
                    captured: false,
                    provider_reference: payment.provider_reference.clone(),
                }))
            }
            (Status::Refunding, Command::RecordRefunded(answer))
                if answer.attempt == payment.refund_attempt =>
            {
                Some(Event::PaymentRefunded(PaymentRefunded {
                    provider_reference: answer.provider_reference.clone(),
                }))
            }
            (Status::Refunding, Command::RecordRefundRefused(answer))
                if answer.attempt == payment.refund_attempt =>
            {
                let wait_ms = self.refund_wait_ms(answer.attempt);
                Some(Event::PaymentRefundRefused(PaymentRefundRefused {
                    reason: answer.reason.clone(),
                    retry_at_ms: context.time_ms.saturating_add(wait_ms),
                }))
            }
            (
                status @ (Status::Unspecified
                | Status::Declined
                | Status::Voided
                | Status::Refunded
                | Status::Settled),
                Command::CancelPayment(_),
            ) => Some(Event::PaymentCancelSettled(PaymentCancelSettled {
                status: status.into(),
            })),
            _ => None,
        };
        Ok(event.into_iter().collect())
    }

    fn evolve(payment: &mut Payment, event: &Event) {
        match (payment.status(), event) {
            (Status::Unspecified, Event::PaymentRequested(requested)) => {
                payment.set_status(Status::Requested);
                payment.amount = requested.amount.clone();
                payment.customer_id.clone_from(&requested.customer_id);
            }
            (Status::Requested, Event::PaymentProcessed(processed)) => {
                payment.set_status(Status::Processed);
                payment
                    .provider_reference
                    .clone_from(&processed.provider_reference);
            }
            (Status::Requested | Status::CancelRequested, Event::PaymentDeclined(_)) => {
                payment.set_status(Status::Declined);
            }
            (Status::Processed, Event::PaymentSettled(_)) => payment.set_status(Status::Settled),

            (Status::Requested, Event::PaymentCancelRequested(_)) => {
                payment.set_status(Status::CancelRequested);
            }
            (Status::CancelRequested, Event::PaymentVoided(_)) => {
                payment.set_status(Status::Voided)
            }
            (
                Status::CancelRequested | Status::Processed,
                Event::PaymentRefundRequested(requested),
            ) => {
                payment.set_status(Status::Refunding);
                payment.refund_attempt = 1;
                payment
                    .provider_reference
                    .clone_from(&requested.provider_reference);
            }
            (Status::Refunding, Event::PaymentRefunded(_)) => payment.set_status(Status::Refunded),
            (Status::Refunding, Event::PaymentRefundRefused(refused)) => {
                payment.refund_attempt += 1;
                payment.refund_at_ms = refused.retry_at_ms;
                payment.flagged = true;
            }
            _ => {}
        }
    }

    fn react(payment: &Payment, event: &Event, id: &str) -> Vec<Message> {
        let answer = match event {
            Event::PaymentProcessed(processed) => {
                OrderCommand::RecordPaymentProcessed(RecordPaymentProcessed {
                    provider_reference: processed.provider_reference.clone(),
                })
            }
            Event::PaymentDeclined(declined) if !declined.while_cancelling => {
                OrderCommand::RecordPaymentDeclined(RecordPaymentDeclined {
                    reason: declined.reason.clone(),
                })
            }
            Event::PaymentDeclined(_) | Event::PaymentVoided(_) => cancelled(0),
            Event::PaymentRefunded(_) => cancelled(amount(payment).minor_units),
            Event::PaymentCancelSettled(settled) if settled.status() == Status::Refunded => {
                cancelled(amount(payment).minor_units)
            }
            Event::PaymentCancelSettled(_) => cancelled(0),
            Event::PaymentRequested(_)
            | Event::PaymentSettled(_)
            | Event::PaymentCancelRequested(_)
            | Event::PaymentRefundRequested(_)
            | Event::PaymentRefundRefused(_) => return Vec::new(),
        };
        vec![Message::new(id, answer)]
    }

    fn outstanding(payment: &Payment, id: &str) -> Vec<Outstanding<Self>> {
        let (key, effect, not_before_ms) = match payment.status() {
            Status::Requested => (
                charge_key(id),
                Effect::Charge {
                    amount: amount(payment),
                    customer_id: payment.customer_id.clone(),
                },
                0,
            ),
            Status::CancelRequested => (
                void_key(id),
                Effect::Void {
                    charge_key: charge_key(id),
                },
                0,
            ),
            Status::Refunding => {
                let attempt = payment.refund_attempt;
                (
                    refund_key(id, attempt),
                    Effect::Refund {
                        attempt,
                        charge_key: charge_key(id),
                        amount: amount(payment),
                    },
                    payment.refund_at_ms,
                )
            }
            _ => return Vec::new(),
        };
        vec![Outstanding::Effect {
            key,
            effect,
            not_before_ms,
        }]
    }

    fn accepted(payment: &Payment) -> Outcome {
        Outcome::Accepted(PaymentCommandAccepted {
            status: payment.status,
        })
    }

    fn rejected(rejection: &Infallible) -> Outcome {
        match *rejection {}
    }

    fn finished(payment: &Payment) -> bool {
        matches!(
            payment.status(),
            Status::Declined | Status::Voided | Status::Refunded | Status::Settled
        )
    }

    fn is_id(id: &str) -> bool {
        rules::uuid_v7(id).is_some()
    }
}

impl PaymentRules {
    /// Time to the next attempt after the refund `attempt` (1, 2, 3…) was refused, milliseconds.
    fn refund_wait_ms(&self, attempt: u32) -> i64 {
        let doubled = 1_i64 << attempt.saturating_sub(1).min(32);
        self.refund_wait_ms
            .saturating_mul(doubled)
            .min(REFUND_WAIT_MAX_MS)
    }
}

/// The key of the charge of the payment `id`.
fn charge_key(id: &str) -> String {
    format!("{id}/charge/{CHARGE_ATTEMPT}")
}

/// The key under which the charge of the payment `id` is voided.
fn void_key(id: &str) -> String {
    format!("{id}/void/{CHARGE_ATTEMPT}")
}

/// The key of a refund of the payment `id`.
fn refund_key(id: &str, attempt: u32) -> String {
    format!("{id}/refund/{attempt}")
}

fn cancelled(refunded: i64) -> OrderCommand {
    OrderCommand::RecordPaymentCancelled(RecordPaymentCancelled { refunded })
}

/// The payment's amount. The field rules require it in every `ChargePayment`; the provider would refuse a payment
/// without one.
fn amount(payment: &Payment) -> Money {
    payment.amount.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests;
