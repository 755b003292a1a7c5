//! The shipment: its state machine and row.

use contracts::shipping::v1::ShipmentStatus as Status;
use contracts::shipping::v1::shipment_event::Event;
use contracts::{Body as _, Shipping};
use uuid::Uuid;

use super::{EventContext, ProcessedCommand, ReferenceModel};
use crate::context::AuditContext;
use crate::report::Invariant;
use crate::rows::ShipmentRow;

/// The reference model of a shipment.
#[derive(Clone, Debug)]
pub(crate) struct ShipmentModel {
    pub(crate) status: Status,
    pub(crate) version: u64,
    pub(crate) tracking_number: String,
    pub(crate) row: ShipmentRow,
}

impl Default for ShipmentModel {
    fn default() -> Self {
        Self {
            status: Status::Unspecified,
            version: 0,
            tracking_number: String::new(),
            row: ShipmentRow::default(),
        }
    }
}

impl ShipmentModel {
    pub(crate) const fn is_finished(&self) -> bool {
        matches!(
            self.status,
            Status::Unspecified | Status::Delivered | Status::Refused | Status::Cancelled
        )
    }

    fn apply(&mut self, event: &Event) -> Result<(), String> {
        use Status::{
            Cancelled, Cancelling, Delivered, Dispatched, Refused, Requested, Unspecified,
        };
        let before = self.status;
        let (from, to): (&[Status], Status) = match event {
            Event::ShipmentRequested(_) => (&[Unspecified], Requested),
            Event::ShipmentDispatched(_) => (&[Requested, Cancelling], Dispatched),
            Event::ShipmentDelivered(_) => (&[Dispatched], Delivered),
            Event::ShipmentRefused(_) => (&[Requested, Cancelling], Refused),
            Event::ShipmentCancelRequested(_) => (&[Requested], Cancelling),
            Event::ShipmentCancelled(_) => (&[Cancelling], Cancelled),
            Event::ShipmentCancelRefused(_) => (&[Dispatched, Delivered], before),
            Event::ShipmentCancelSettled(event) if event.status() == before => {
                (&[Unspecified, Refused, Cancelled], before)
            }
            Event::ShipmentCancelSettled(_) => (&[], before),
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
    let name = status.as_str_name().trim_start_matches("SHIPMENT_STATUS_");
    name.to_ascii_lowercase()
}

impl ReferenceModel for Shipping {
    fn apply_event(context: &mut AuditContext, at: &EventContext<'_>, event: &Event) {
        let shipment = context
            .aggregates
            .lifecycle_mut(at)
            .shipment
            .get_or_insert_default();
        context.findings.checked(Invariant::I14);
        if let Err(wrong) = shipment.apply(event) {
            context.findings.violated(Invariant::I14, at.example(wrong));
        }
        shipment.version = at.version;
        if let Event::ShipmentDispatched(event) = event {
            shipment.tracking_number.clone_from(&event.tracking_number);
        }
        if at.is_applied
            && let Ok(order_id) = Uuid::try_parse(at.id)
        {
            let row = &mut shipment.row;
            row.order_id = order_id;
            row.version = at.row_version();
            row.status = match event {
                Event::ShipmentRequested(_) => Status::Requested as i16,
                Event::ShipmentDispatched(event) => {
                    row.tracking_number.clone_from(&event.tracking_number);
                    Status::Dispatched as i16
                }
                Event::ShipmentDelivered(_) => Status::Delivered as i16,
                Event::ShipmentRefused(_) => Status::Refused as i16,
                Event::ShipmentCancelRequested(_) => Status::Cancelling as i16,
                Event::ShipmentCancelled(_) => Status::Cancelled as i16,
                Event::ShipmentCancelRefused(_) => row.status,
                Event::ShipmentCancelSettled(event) => event.status() as i16,
            };
        }
        context.aggregates.queue_if_finished(at.id);
    }

    fn check_business_outcome(_: &mut AuditContext, _: &ProcessedCommand<'_, Self>) {}

    fn clear_deadlines(_: &mut Event) {}

    fn is_known(context: &AuditContext, id: &str) -> bool {
        let lifecycle = context.aggregates.lifecycles.get(id);
        lifecycle.is_some_and(|lifecycle| lifecycle.shipment.is_some())
    }
}
