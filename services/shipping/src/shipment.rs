//! The rule book of a shipment. The id of a shipment is the id of its order.
//!
//! ```text
//! (unknown)   ShipOrder             REQUESTED   ShipmentRequested
//! REQUESTED   RecordBooked          DISPATCHED  ShipmentDispatched
//! REQUESTED   RecordBookingRefused  REFUSED     ShipmentRefused
//! DISPATCHED  RecordDelivered       DELIVERED   ShipmentDelivered
//!
//! REQUESTED   CancelShipment        CANCELLING  ShipmentCancelRequested
//! CANCELLING  RecordBookingVoided   CANCELLED   ShipmentCancelled
//! CANCELLING  RecordBookingRefused  REFUSED     ShipmentRefused
//! CANCELLING  RecordBooked          DISPATCHED  ShipmentDispatched
//!
//! DISPATCHED, DELIVERED
//!             CancelShipment        unchanged   ShipmentCancelRefused
//! (unknown), REFUSED, CANCELLED
//!             CancelShipment        unchanged   ShipmentCancelSettled
//! ```
//!
//! Everything else gives no events: repetitions, late answers, and a cancellation while another one is pending.

use std::convert::Infallible;

use contracts::orders::v1::order_command::Command as OrderCommand;
use contracts::orders::v1::{
    Contact, RecordShipmentCancelled, RecordShipmentDelivered, RecordShipmentDispatched,
    RecordShipmentRefused,
};
use contracts::shipping::v1::shipment_command::Command;
use contracts::shipping::v1::shipment_event::Event;
use contracts::shipping::v1::shipment_outcome::Outcome;
use contracts::shipping::v1::{
    Shipment, ShipmentCancelRefused, ShipmentCancelRequested, ShipmentCancelSettled,
    ShipmentCancelled, ShipmentCommandAccepted, ShipmentDelivered, ShipmentDispatched,
    ShipmentRefused, ShipmentRequested, ShipmentStatus as Status,
};
use contracts::{Message, Service, Shipping, rules};
use engine::{Context, Decider, Outstanding};

/// The rules of a shipment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShipmentRules;

/// A call to the carrier.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Book a parcel.
    Book {
        /// The recipient.
        contact: Contact,
        /// Pieces in the parcel.
        pieces: u64,
    },
    /// Void the booking, unless the parcel is already booked.
    Void {
        /// Idempotency key of the booking.
        booking_key: String,
    },
    /// Wait for the delivery of the parcel.
    Track {
        /// Idempotency key of the booking.
        booking_key: String,
    },
}

impl Decider for ShipmentRules {
    type Contract = Shipping;
    /// Never occurs: commands of other services and of the carrier are never rejected.
    type Rejection = Infallible;
    type Effect = Effect;

    const RULES_VERSION: u32 = 1;
    const ASKER: Option<Service> = Some(Service::Orders);

    fn decide(
        &self,
        shipment: &Shipment,
        command: &Command,
        _context: &Context<'_>,
    ) -> Result<Vec<Event>, Infallible> {
        let event = match (shipment.status(), command) {
            (Status::Unspecified, Command::ShipOrder(order)) => {
                Some(Event::ShipmentRequested(ShipmentRequested {
                    contact: order.contact.clone(),
                    pieces: order.pieces,
                }))
            }
            // While cancelling, "booked" and "refused" decide the cancellation.
            (Status::Requested | Status::Cancelling, Command::RecordBooked(answer)) => {
                Some(Event::ShipmentDispatched(ShipmentDispatched {
                    tracking_number: answer.tracking_number.clone(),
                }))
            }
            (Status::Requested | Status::Cancelling, Command::RecordBookingRefused(answer)) => {
                Some(Event::ShipmentRefused(ShipmentRefused {
                    reason: answer.reason.clone(),
                }))
            }
            (Status::Dispatched, Command::RecordDelivered(_)) => {
                Some(Event::ShipmentDelivered(ShipmentDelivered {}))
            }

            (Status::Requested, Command::CancelShipment(_)) => {
                Some(Event::ShipmentCancelRequested(ShipmentCancelRequested {}))
            }
            (Status::Cancelling, Command::RecordBookingVoided(_)) => {
                Some(Event::ShipmentCancelled(ShipmentCancelled {}))
            }
            (Status::Dispatched | Status::Delivered, Command::CancelShipment(_)) => {
                Some(Event::ShipmentCancelRefused(ShipmentCancelRefused {}))
            }
            (
                status @ (Status::Unspecified | Status::Refused | Status::Cancelled),
                Command::CancelShipment(_),
            ) => Some(Event::ShipmentCancelSettled(ShipmentCancelSettled {
                status: status.into(),
            })),
            _ => None,
        };
        Ok(event.into_iter().collect())
    }

    fn evolve(shipment: &mut Shipment, event: &Event) {
        match (shipment.status(), event) {
            (Status::Unspecified, Event::ShipmentRequested(requested)) => {
                shipment.set_status(Status::Requested);
                shipment.contact = requested.contact.clone();
                shipment.pieces = requested.pieces;
            }
            (Status::Requested | Status::Cancelling, Event::ShipmentDispatched(dispatched)) => {
                shipment.set_status(Status::Dispatched);
                shipment
                    .tracking_number
                    .clone_from(&dispatched.tracking_number);
            }
            (Status::Requested | Status::Cancelling, Event::ShipmentRefused(_)) => {
                shipment.set_status(Status::Refused);
            }
            (Status::Dispatched, Event::ShipmentDelivered(_)) => {
                shipment.set_status(Status::Delivered);
            }

            (Status::Requested, Event::ShipmentCancelRequested(_)) => {
                shipment.set_status(Status::Cancelling);
            }
            (Status::Cancelling, Event::ShipmentCancelled(_)) => {
                shipment.set_status(Status::Cancelled);
            }
            _ => {}
        }
    }

    fn react(shipment: &Shipment, event: &Event, id: &str) -> Vec<Message> {
        let answer = match event {
            // A refused cancellation has the same answer: the parcel is dispatched.
            Event::ShipmentDispatched(_) | Event::ShipmentCancelRefused(_) => {
                OrderCommand::RecordShipmentDispatched(RecordShipmentDispatched {
                    tracking_number: shipment.tracking_number.clone(),
                })
            }
            Event::ShipmentDelivered(_) => {
                OrderCommand::RecordShipmentDelivered(RecordShipmentDelivered {})
            }
            Event::ShipmentRefused(refused) => {
                OrderCommand::RecordShipmentRefused(RecordShipmentRefused {
                    reason: refused.reason.clone(),
                })
            }
            Event::ShipmentCancelled(_) | Event::ShipmentCancelSettled(_) => {
                OrderCommand::RecordShipmentCancelled(RecordShipmentCancelled {})
            }
            Event::ShipmentRequested(_) | Event::ShipmentCancelRequested(_) => return Vec::new(),
        };
        vec![Message::new(id, answer)]
    }

    fn outstanding(shipment: &Shipment, id: &str) -> Vec<Outstanding<Self>> {
        let booking_key = format!("{id}/book/1");
        let (key, effect) = match shipment.status() {
            Status::Requested => (
                booking_key,
                Effect::Book {
                    // The field rules require a contact in every `ShipOrder`; the carrier would refuse a booking
                    // without one.
                    contact: shipment.contact.clone().unwrap_or_default(),
                    pieces: shipment.pieces,
                },
            ),
            Status::Cancelling => (format!("{id}/void/1"), Effect::Void { booking_key }),
            Status::Dispatched => (format!("{id}/track/1"), Effect::Track { booking_key }),
            _ => return Vec::new(),
        };
        vec![Outstanding::Effect {
            key,
            effect,
            not_before_ms: 0,
        }]
    }

    fn accepted(shipment: &Shipment) -> Outcome {
        Outcome::Accepted(ShipmentCommandAccepted {
            status: shipment.status,
        })
    }

    fn rejected(rejection: &Infallible) -> Outcome {
        match *rejection {}
    }

    fn finished(shipment: &Shipment) -> bool {
        matches!(
            shipment.status(),
            Status::Delivered | Status::Cancelled | Status::Refused
        )
    }

    fn is_id(id: &str) -> bool {
        rules::uuid_v7(id).is_some()
    }
}

#[cfg(test)]
mod tests;
