//! Carries out the effects of shipping at a carrier that speaks `ordermesh.carrier.v1`.

use std::time::Duration;

use chassis::grpc::Transport;
use contracts::carrier::v1::carrier_client::CarrierClient;
use contracts::carrier::v1::{
    BookRequest, BookingStatus, LookupRequest, LookupResponse, VoidRequest,
};
use contracts::orders::v1::Contact;
use contracts::shipping::v1::shipment_command::Command;
use contracts::shipping::v1::{
    RecordBooked, RecordBookingRefused, RecordBookingVoided, RecordDelivered,
};
use engine::effects::{Attempt, EffectHandler, Unknown};
use tonic::{Code, Request, Status};

use crate::shipment::{Effect, ShipmentRules};

/// Target of bookings and voids: names their breaker, their limit and their metric.
pub const CARRIER: &str = "carrier";

/// Target of tracking. Its calls wait for parcels: on their own they cannot take the places of bookings.
pub const CARRIER_TRACKING: &str = "carrier-tracking";

/// The longest wait that the contract lets a look-up ask for.
const LOOKUP_WAIT_MAX: Duration = Duration::from_secs(60);

/// The field rule of an answer's reason, in characters.
const REASON_MAX_LEN: usize = 256;

/// The field rule of a tracking number, in characters.
const TRACKING_NUMBER_MAX_LEN: usize = 64;

/// How long the carrier may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For an answer. What has none by then is unknown.
    pub call: Duration,
    /// How long one tracking call waits for a parcel, besides `call`; at most a minute. Both together must fit into
    /// the engine's deadline of an effect.
    pub tracking_wait: Duration,
}

/// A carrier behind gRPC.
#[derive(Clone, Debug)]
pub struct Carrier {
    client: CarrierClient<Transport>,
    deadlines: Deadlines,
}

impl Carrier {
    /// A carrier behind `peer`, which is the transport of its calls.
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
    ) -> Result<Command, Unknown> {
        if attempt.may_have_run {
            let found = self.lookup(key, Duration::ZERO).await?;
            if found.status() != BookingStatus::NotFound {
                return booking_answer(found.status(), found.tracking_number, found.reason);
            }
        }
        let request = BookRequest {
            idempotency_key: key.into(),
            contact: Some(contact.clone()),
            pieces,
        };
        let request = within(self.deadlines.call, request);
        let answer = self.client.clone().book(request).await;
        let answer = answer.map_err(unknown)?.into_inner();
        booking_answer(answer.status(), answer.tracking_number, answer.reason)
    }

    /// Needs no look-up before a repetition: a void answers what the key's booking has come to.
    async fn void(&self, booking_key: &str) -> Result<Command, Unknown> {
        let request = VoidRequest {
            idempotency_key: booking_key.into(),
        };
        let request = within(self.deadlines.call, request);
        let answer = self.client.clone().void(request).await;
        let answer = answer.map_err(unknown)?.into_inner();
        booking_answer(answer.status(), answer.tracking_number, answer.reason)
    }

    async fn track(&self, booking_key: &str) -> Result<Command, Unknown> {
        let found = self
            .lookup(booking_key, self.deadlines.tracking_wait)
            .await?;
        match found.status() {
            BookingStatus::Delivered => Ok(Command::RecordDelivered(RecordDelivered {})),
            BookingStatus::Booked => Err(Unknown {
                reason: "the parcel is on its way".into(),
                partner_fault: false,
            }),
            other => Err(Unknown {
                reason: format!(
                    "the carrier no longer knows the parcel as booked: {}",
                    other.as_str_name()
                ),
                partner_fault: true,
            }),
        }
    }

    async fn lookup(&self, booking_key: &str, wait: Duration) -> Result<LookupResponse, Unknown> {
        let request = LookupRequest {
            idempotency_key: booking_key.into(),
            wait_ms: u32::try_from(wait.as_millis()).expect("the wait is a minute at most"),
        };
        let request = within(self.deadlines.call + wait, request);
        let found = self.client.clone().lookup(request).await;
        Ok(found.map_err(unknown)?.into_inner())
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
    ) -> Result<Command, Unknown> {
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

/// What became of a booking, said by a booking, a void or a look-up alike.
fn booking_answer(
    status: BookingStatus,
    tracking_number: String,
    reason: String,
) -> Result<Command, Unknown> {
    match status {
        // That the parcel has arrived by now is for tracking to say.
        BookingStatus::Booked | BookingStatus::Delivered => {
            let length = tracking_number.chars().count();
            if !(1..=TRACKING_NUMBER_MAX_LEN).contains(&length) {
                return Err(Unknown {
                    reason: format!("the carrier's tracking number has {length} characters"),
                    partner_fault: true,
                });
            }
            Ok(Command::RecordBooked(RecordBooked { tracking_number }))
        }
        BookingStatus::Refused => Ok(Command::RecordBookingRefused(RecordBookingRefused {
            reason: reason.chars().take(REASON_MAX_LEN).collect(),
        })),
        // To a booking this is the answer when a void came first: the shipment is being cancelled, by this process
        // or by a later owner.
        BookingStatus::Voided => Ok(Command::RecordBookingVoided(RecordBookingVoided {})),
        BookingStatus::InProgress => Err(Unknown {
            reason: "the carrier is still at it".into(),
            partner_fault: false,
        }),
        BookingStatus::Unspecified | BookingStatus::NotFound => Err(Unknown {
            reason: "the carrier's answer says nothing about the key".into(),
            partner_fault: true,
        }),
    }
}

/// A call that failed: only the codes that speak of this one request leave the carrier itself out of doubt.
fn unknown(status: Status) -> Unknown {
    let about_the_request = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
    );
    Unknown {
        reason: format!("the carrier failed: {status}"),
        partner_fault: !about_the_request,
    }
}

#[cfg(test)]
mod tests;
