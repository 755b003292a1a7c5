//! Shipments.

use contracts::shipping::v1::ShipmentStatus;
use contracts::shipping::v1::shipment_event::Event;
use uuid::Uuid;

use super::order::{order_id, small};
use super::{ApplyError, Occurrence, Row, text};

/// A row of `shipments`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShipmentRow {
    /// The order that is shipped.
    pub order_id: Uuid,
    /// A [`ShipmentStatus`].
    pub status: i16,
    /// The carrier's; empty before dispatch.
    pub tracking_number: String,
    /// Events folded so far.
    pub version: i64,
}

from_row!(ShipmentRow {
    order_id,
    status,
    tracking_number,
    version
});

impl Row for ShipmentRow {
    type Event = Event;

    fn key(&self) -> String {
        self.order_id.to_string()
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn apply(
        row: Option<&Self>,
        occurrence: &Occurrence<'_>,
        event: &Event,
    ) -> Result<Self, ApplyError> {
        let mut row = match row {
            Some(row) => row.clone(),
            None => Self {
                order_id: order_id(occurrence.id)?,
                ..Self::default()
            },
        };
        row.version = occurrence.version;
        match event {
            Event::ShipmentRequested(_) => row.enter(ShipmentStatus::Requested),
            Event::ShipmentDispatched(dispatched) => {
                row.enter(ShipmentStatus::Dispatched);
                row.tracking_number = text("tracking_number", &dispatched.tracking_number)?;
            }
            Event::ShipmentDelivered(_) => row.enter(ShipmentStatus::Delivered),
            Event::ShipmentRefused(_) => row.enter(ShipmentStatus::Refused),
            Event::ShipmentCancelRequested(_) => row.enter(ShipmentStatus::Cancelling),
            Event::ShipmentCancelled(_) => row.enter(ShipmentStatus::Cancelled),
            // The parcel stays what it is: dispatched or delivered.
            Event::ShipmentCancelRefused(_) => {}
            Event::ShipmentCancelSettled(settled) => row.status = small("status", settled.status)?,
        }
        Ok(row)
    }
}

impl ShipmentRow {
    fn enter(&mut self, status: ShipmentStatus) {
        self.status = status as i16;
    }
}
