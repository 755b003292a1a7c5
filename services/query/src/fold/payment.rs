//! Payments.

use contracts::payments::v1::PaymentStatus;
use contracts::payments::v1::payment_event::Event;
use uuid::Uuid;

use super::{ApplyError, EventMetadata, Row, order_id, text, to_smallint};

/// A row of `payments`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaymentRow {
    /// The order that is paid.
    pub order_id: Uuid,
    /// A [`PaymentStatus`].
    pub status: i16,
    /// Minor units; 0 when only a cancellation was requested.
    pub amount: i64,
    /// ISO 4217; empty when only a cancellation was requested.
    pub currency: String,
    /// The provider's reference of the charge.
    pub provider_reference: String,
    /// A refund was refused: an operator must act.
    pub flagged: bool,
    /// Events folded so far.
    pub version: i64,
}

from_row!(PaymentRow {
    order_id,
    status,
    amount,
    currency,
    provider_reference,
    flagged,
    version
});

impl Row for PaymentRow {
    type Event = Event;

    fn key(&self) -> String {
        self.order_id.to_string()
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn apply(
        row: Option<&Self>,
        metadata: &EventMetadata<'_>,
        event: &Event,
    ) -> Result<Self, ApplyError> {
        let mut row = match row {
            Some(row) => row.clone(),
            None => Self {
                order_id: order_id(metadata.id)?,
                ..Self::default()
            },
        };
        row.version = metadata.version;
        match event {
            Event::PaymentRequested(requested) => {
                row.set_status(PaymentStatus::Requested);
                if let Some(amount) = &requested.amount {
                    row.amount = amount.minor_units;
                    row.currency = text("currency", &amount.currency)?;
                }
            }
            Event::PaymentProcessed(processed) => {
                row.set_status(PaymentStatus::Processed);
                row.provider_reference = text("provider_reference", &processed.provider_reference)?;
            }
            Event::PaymentDeclined(_) => row.set_status(PaymentStatus::Declined),
            Event::PaymentSettled(_) => row.set_status(PaymentStatus::Settled),
            Event::PaymentCancelRequested(_) => row.set_status(PaymentStatus::CancelRequested),
            Event::PaymentVoided(_) => row.set_status(PaymentStatus::Voided),
            Event::PaymentRefundRequested(requested) => {
                row.set_status(PaymentStatus::Refunding);
                if requested.captured {
                    row.provider_reference =
                        text("provider_reference", &requested.provider_reference)?;
                }
            }
            Event::PaymentRefunded(_) => row.set_status(PaymentStatus::Refunded),
            Event::PaymentRefundRefused(_) => row.flagged = true,
            Event::PaymentCancelSettled(settled) => {
                row.status = to_smallint("status", settled.status)?
            }
        }
        Ok(row)
    }
}

impl PaymentRow {
    fn set_status(&mut self, status: PaymentStatus) {
        self.status = status as i16;
    }
}
