//! Executes the effects of shipping: a client of a carrier with the API `ordermesh.carrier.v1`.

use std::time::Duration;

use chassis::error::blames_request;
use chassis::grpc::Transport;
use contracts::carrier::v1::carrier_client::CarrierClient;
use contracts::carrier::v1::{
    BookRequest, BookingStatus, LookupRequest, LookupResponse, VoidRequest,
};
use contracts::orders::v1::Contact;
use contracts::rules::shorten_reason;
use contracts::shipping::v1::shipment_command::Command;
use contracts::shipping::v1::{
    RecordBooked, RecordBookingRefused, RecordBookingVoided, RecordDelivered,
};
use engine::effects::{Attempt, EffectHandler, Indeterminate};
use tonic::{Request, Status};

use crate::shipment::{Effect, ShipmentRules};

/// Target of bookings and voids: the name of their breaker and limit, and the label of their metrics.
pub const CARRIER: &str = "carrier";

/// Target of tracking. Its calls wait for deliveries; a separate target keeps them from using up the limit of bookings.
pub const CARRIER_TRACKING: &str = "carrier-tracking";

/// The longest wait that the contract allows in a look-up.
const LOOKUP_WAIT_MAX: Duration = Duration::from_secs(60);

/// The partner in the reasons of indeterminate answers.
const PARTNER: &str = "carrier";

/// The longest tracking number that the field rules allow, characters.
const TRACKING_NUMBER_MAX_LEN: usize = 64;

/// The deadlines of calls to the carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Of every call. Without a response by then, the result is unknown.
    pub call: Duration,
    /// How long a tracking call waits for the delivery, in addition to `call`; at most a minute. The sum must not
    /// exceed the engine's deadline of an effect.
    pub tracking_wait: Duration,
}

/// A gRPC client of a carrier.
#[derive(Clone, Debug)]
pub struct Carrier {
    client: CarrierClient<Transport>,
    deadlines: Deadlines,
}

impl Carrier {
    /// Calls the carrier through `peer`.
    pub fn new(peer: impl Into<Transport>, deadlines: Deadlines) -> Self {
        let tracking_wait = deadlines.tracking_wait.min(LOOKUP_WAIT_MAX);
        Self {
            client: CarrierClient::new(peer.into()),
            deadlines: Deadlines {
                tracking_wait,
                ..deadlines
            },
        }
    }

    async fn book(
        &self,
        key: &str,
        contact: &Contact,
        pieces: u64,
        attempt: Attempt,
    ) -> Result<Command, Indeterminate> {
        if attempt.may_have_run {
            let found = self.lookup(key, Duration::ZERO).await?;
            if found.status() != BookingStatus::NotFound {
                return booking_command(found.status(), found.tracking_number, found.reason);
            }
        }
        let request = BookRequest {
            idempotency_key: key.into(),
            contact: Some(contact.clone()),
            pieces,
        };
        let request = within(self.deadlines.call, request);
        let answer = self.client.clone().book(request).await;
        let answer = answer.map_err(failed)?.into_inner();
        booking_command(answer.status(), answer.tracking_number, answer.reason)
    }

    /// Needs no look-up before a repetition: the response to a void contains the result of the booking.
    async fn void(&self, booking_key: &str) -> Result<Command, Indeterminate> {
        let request = VoidRequest {
            idempotency_key: booking_key.into(),
        };
        let request = within(self.deadlines.call, request);
        let answer = self.client.clone().void(request).await;
        let answer = answer.map_err(failed)?.into_inner();
        booking_command(answer.status(), answer.tracking_number, answer.reason)
    }

    async fn track(&self, booking_key: &str) -> Result<Command, Indeterminate> {
        let found = self
            .lookup(booking_key, self.deadlines.tracking_wait)
            .await?;
        match found.status() {
            BookingStatus::Delivered => Ok(Command::RecordDelivered(RecordDelivered {})),
            BookingStatus::Booked => Err(Indeterminate {
                reason: "the parcel is in transit".into(),
                partner_fault: false,
            }),
            other => Err(Indeterminate {
                reason: format!(
                    "the carrier no longer knows the parcel as booked: {}",
                    other.as_str_name()
                ),
                partner_fault: true,
            }),
        }
    }

    async fn lookup(
        &self,
        booking_key: &str,
        wait: Duration,
    ) -> Result<LookupResponse, Indeterminate> {
        let request = LookupRequest {
            idempotency_key: booking_key.into(),
            wait_ms: u32::try_from(wait.as_millis()).expect("the wait is a minute at most"),
        };
        let request = within(self.deadlines.call + wait, request);
        let found = self.client.clone().lookup(request).await;
        Ok(found.map_err(failed)?.into_inner())
    }
}

impl EffectHandler<ShipmentRules> for Carrier {
    fn target(&self, effect: &Effect) -> &'static str {
        match effect {
            Effect::Book { .. } | Effect::Void { .. } => CARRIER,
            Effect::Track { .. } => CARRIER_TRACKING,
        }
    }

    async fn perform(
        &self,
        key: &str,
        effect: &Effect,
        attempt: Attempt,
    ) -> Result<Command, Indeterminate> {
        match effect {
            Effect::Book { contact, pieces } => self.book(key, contact, *pieces, attempt).await,
            Effect::Void { booking_key } => self.void(booking_key).await,
            Effect::Track { booking_key } => self.track(booking_key).await,
        }
    }
}

fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// The command for the result of a booking. Bookings, voids and look-ups all return it.
fn booking_command(
    status: BookingStatus,
    tracking_number: String,
    reason: String,
) -> Result<Command, Indeterminate> {
    match status {
        // Only tracking reports the delivery.
        BookingStatus::Booked | BookingStatus::Delivered => {
            let length = tracking_number.chars().count();
            if !(1..=TRACKING_NUMBER_MAX_LEN).contains(&length) {
                return Err(Indeterminate {
                    reason: format!("the carrier's tracking number has {length} characters"),
                    partner_fault: true,
                });
            }
            Ok(Command::RecordBooked(RecordBooked { tracking_number }))
        }
        BookingStatus::Refused => Ok(Command::RecordBookingRefused(RecordBookingRefused {
            reason: shorten_reason(&reason),
        })),
        // A booking gets this response when a void came first: this process or a later owner is cancelling the
        // shipment.
        BookingStatus::Voided => Ok(Command::RecordBookingVoided(RecordBookingVoided {})),
        BookingStatus::InProgress => Err(Indeterminate::in_progress(PARTNER)),
        BookingStatus::Unspecified | BookingStatus::NotFound => {
            Err(Indeterminate::no_result(PARTNER))
        }
    }
}

fn failed(status: Status) -> Indeterminate {
    Indeterminate::failed(PARTNER, &status, blames_request(status.code()))
}

#[cfg(test)]
mod tests;
