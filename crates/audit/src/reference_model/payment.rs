//! The payment: its state machine, money and row.

use contracts::core::v1::Money;
use contracts::payments::v1::PaymentStatus as Status;
use contracts::payments::v1::payment_event::Event;
use contracts::{Body as _, Payments};
use uuid::Uuid;

use super::{EventContext, ProcessedCommand, ReferenceModel};
use crate::context::AuditContext;
use crate::report::Invariant;
use crate::rows::PaymentRow;

/// The reference model of a payment.
#[derive(Clone, Debug)]
pub(crate) struct PaymentModel {
    pub(crate) status: Status,
    pub(crate) version: u64,
    /// The requested amount.
    pub(crate) amount: Money,
    /// Number of captures.
    pub(crate) captures: u32,
    /// Number of refunds.
    pub(crate) refunds: u32,
    pub(crate) row: PaymentRow,
}

impl Default for PaymentModel {
    fn default() -> Self {
        Self {
            status: Status::Unspecified,
            version: 0,
            amount: Money::default(),
            captures: 0,
            refunds: 0,
            row: PaymentRow::default(),
        }
    }
}

impl PaymentModel {
    pub(crate) const fn is_finished(&self) -> bool {
        matches!(
            self.status,
            Status::Unspecified
                | Status::Declined
                | Status::Voided
                | Status::Refunded
                | Status::Settled
        )
    }

    fn apply(&mut self, event: &Event) -> Result<(), String> {
        let before = self.status;
        let (from, to): (&[Status], Status) = match event {
            Event::PaymentRequested(_) => (&[Status::Unspecified], Status::Requested),
            Event::PaymentProcessed(_) => (&[Status::Requested], Status::Processed),
            Event::PaymentDeclined(event) if event.while_cancelling => {
                (&[Status::CancelRequested], Status::Declined)
            }
            Event::PaymentDeclined(_) => (&[Status::Requested], Status::Declined),
            Event::PaymentSettled(_) => (&[Status::Processed], Status::Settled),
            Event::PaymentCancelRequested(_) => (&[Status::Requested], Status::CancelRequested),
            Event::PaymentVoided(_) => (&[Status::CancelRequested], Status::Voided),
            Event::PaymentRefundRequested(event) if event.captured => {
                (&[Status::CancelRequested], Status::Refunding)
            }
            Event::PaymentRefundRequested(_) => (&[Status::Processed], Status::Refunding),
            Event::PaymentRefunded(_) => (&[Status::Refunding], Status::Refunded),
            Event::PaymentRefundRefused(_) => (&[Status::Refunding], Status::Refunding),
            Event::PaymentCancelSettled(event) => {
                return if self.is_finished() && event.status() == before {
                    Ok(())
                } else {
                    Err(format!(
                        "{} while {}",
                        cancellation_text(event.status()),
                        status_name(before)
                    ))
                };
            }
        };
        self.status = to;
        if from.contains(&before) {
            Ok(())
        } else {
            Err(format!("{} while {}", event.kind(), status_name(before)))
        }
    }
}

fn status_name(status: Status) -> String {
    let name = status.as_str_name().trim_start_matches("PAYMENT_STATUS_");
    name.to_ascii_lowercase()
}

fn cancellation_text(status: Status) -> String {
    format!("its cancellation was settled as {}", status_name(status))
}

impl ReferenceModel for Payments {
    fn apply_event(context: &mut AuditContext, at: &EventContext<'_>, event: &Event) {
        let payment = context
            .aggregates
            .lifecycle_mut(at)
            .payment
            .get_or_insert_default();
        context.findings.checked(Invariant::I14);
        if let Err(wrong) = payment.apply(event) {
            context.findings.violated(Invariant::I14, at.example(wrong));
        }
        payment.version = at.version;
        match event {
            Event::PaymentRequested(event) => {
                payment.amount = event.amount.clone().unwrap_or_default();
            }
            Event::PaymentProcessed(_) => payment.captures += 1,
            Event::PaymentRefundRequested(event) if event.captured => payment.captures += 1,
            Event::PaymentRefunded(_) => payment.refunds += 1,
            _ => {}
        }
        if at.is_applied
            && let Ok(order_id) = Uuid::try_parse(at.id)
        {
            payment.row.order_id = order_id;
            update_row(&mut payment.row, at, event);
        }
        context.aggregates.queue_if_finished(at.id);
    }

    fn check_business_outcome(_: &mut AuditContext, _: &ProcessedCommand<'_, Self>) {}

    fn clear_deadlines(event: &mut Event) {
        if let Event::PaymentRefundRefused(event) = event {
            event.retry_at_ms = 0;
        }
    }

    fn is_known(context: &AuditContext, id: &str) -> bool {
        let lifecycle = context.aggregates.lifecycles.get(id);
        lifecycle.is_some_and(|lifecycle| lifecycle.payment.is_some())
    }
}

/// Updates the row by an event.
fn update_row(row: &mut PaymentRow, at: &EventContext<'_>, event: &Event) {
    row.version = at.row_version();
    let status = match event {
        Event::PaymentRequested(event) => {
            if let Some(amount) = &event.amount {
                row.amount = amount.minor_units;
                row.currency.clone_from(&amount.currency);
            }
            Status::Requested
        }
        Event::PaymentProcessed(event) => {
            row.provider_reference.clone_from(&event.provider_reference);
            Status::Processed
        }
        Event::PaymentDeclined(_) => Status::Declined,
        Event::PaymentSettled(_) => Status::Settled,
        Event::PaymentCancelRequested(_) => Status::CancelRequested,
        Event::PaymentVoided(_) => Status::Voided,
        Event::PaymentRefundRequested(event) => {
            if event.captured {
                row.provider_reference.clone_from(&event.provider_reference);
            }
            Status::Refunding
        }
        Event::PaymentRefunded(_) => Status::Refunded,
        Event::PaymentRefundRefused(_) => {
            row.flagged = true;
            return;
        }
        Event::PaymentCancelSettled(event) => event.status(),
    };
    row.status = status as i16;
}
