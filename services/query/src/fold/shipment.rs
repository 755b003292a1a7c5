//! Shipments.

use contracts::shipping::v1::ShipmentStatus;
use contracts::shipping::v1::shipment_event::Event;
use uuid::Uuid;

use super::{ApplyError, EventMetadata, Row, order_id, text, to_smallint};

/// A row of `shipments`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShipmentRow {
    /// The order that is shipped.
    pub order_id: Uuid,
    /// A [`ShipmentStatus`].
    pub status: i16,
    /// The carrier's number; empty before dispatch.
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
            Event::ShipmentRequested(_) => row.set_status(ShipmentStatus::Requested),
            Event::ShipmentDispatched(dispatched) => {
                row.set_status(ShipmentStatus::Dispatched);
                row.tracking_number = text("tracking_number", &dispatched.tracking_number)?;
            }
            Event::ShipmentDelivered(_) => row.set_status(ShipmentStatus::Delivered),
            Event::ShipmentRefused(_) => row.set_status(ShipmentStatus::Refused),
            Event::ShipmentCancelRequested(_) => row.set_status(ShipmentStatus::Cancelling),
            Event::ShipmentCancelled(_) => row.set_status(ShipmentStatus::Cancelled),
            // The status does not change: dispatched or delivered.
            Event::ShipmentCancelRefused(_) => {}
            Event::ShipmentCancelSettled(settled) => {
                row.status = to_smallint("status", settled.status)?
            }
        }
        Ok(row)
    }
}

impl ShipmentRow {
    fn set_status(&mut self, status: ShipmentStatus) {
        self.status = status as i16;
    }
}
