//! The carrier's gRPC service.

use std::sync::Arc;
use std::time::Duration;

use contracts::carrier::v1::carrier_server::Carrier as CarrierService;
use contracts::carrier::v1::{
    BookRequest, BookResponse, BookingStatus, LookupRequest, LookupResponse, VoidRequest,
    VoidResponse,
};
use tonic::{Request, Response, Status};

use crate::bookings::{Bookings, Verdict};
use crate::faults::FaultInjector;
use crate::ledger::Ledger;
use crate::{Clock, SharedBehaviour};

pub(crate) struct Carrier {
    ledger: Arc<Ledger<Bookings>>,
    behaviour: SharedBehaviour,
    clock: Clock,
}

impl Carrier {
    pub(crate) fn new(
        ledger: Arc<Ledger<Bookings>>,
        behaviour: SharedBehaviour,
        clock: Clock,
    ) -> Self {
        Self {
            ledger,
            behaviour,
            clock,
        }
    }

    async fn book(self: Arc<Self>, request: BookRequest) -> Result<BookResponse, Status> {
        let key = request.idempotency_key;
        let behaviour = self.behaviour.get();
        let now_ms = (self.clock)();
        let decide = |bookings: &Bookings, key: &str| Ok(bookings.book(key, behaviour, now_ms));
        let verdict = self.ledger.decide(key.clone(), decide).await?;
        Ok(BookResponse {
            status: self.status(verdict).into(),
            tracking_number: verdict.tracking_number(&key),
            reason: verdict.reason().into(),
        })
    }

    async fn lookup(self: Arc<Self>, request: LookupRequest) -> Result<LookupResponse, Status> {
        let key = request.idempotency_key;
        let Some(verdict) = self.ledger.lookup(&key).await? else {
            return Ok(LookupResponse {
                status: BookingStatus::NotFound.into(),
                ..Default::default()
            });
        };
        let wait =
            Duration::from_millis(request.wait_ms.into()).min(self.remaining_transit(verdict));
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(LookupResponse {
            status: self.status(verdict).into(),
            tracking_number: verdict.tracking_number(&key),
            reason: verdict.reason().into(),
        })
    }

    async fn void(self: Arc<Self>, request: VoidRequest) -> Result<VoidResponse, Status> {
        let key = request.idempotency_key;
        let decide = |bookings: &Bookings, key: &str| Ok(bookings.void(key));
        let verdict = self.ledger.decide(key.clone(), decide).await?;
        Ok(VoidResponse {
            status: self.status(verdict).into(),
            tracking_number: verdict.tracking_number(&key),
            reason: verdict.reason().into(),
        })
    }

    /// The status in the contract, which distinguishes a booked parcel from a delivered one.
    fn status(&self, verdict: Verdict) -> BookingStatus {
        match verdict {
            Verdict::Booked { .. } if self.remaining_transit(verdict).is_zero() => {
                BookingStatus::Delivered
            }
            Verdict::Booked { .. } => BookingStatus::Booked,
            Verdict::Refused => BookingStatus::Refused,
            Verdict::Voided => BookingStatus::Voided,
        }
    }

    /// Time until the parcel arrives; zero when it has arrived or there is none.
    fn remaining_transit(&self, verdict: Verdict) -> Duration {
        match verdict {
            Verdict::Booked { arrives_ms } => {
                let wait_ms = arrives_ms - (self.clock)();
                Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0))
            }
            Verdict::Refused | Verdict::Voided => Duration::ZERO,
        }
    }
}

#[tonic::async_trait]
impl CarrierService for FaultInjector<Carrier> {
    async fn book(&self, request: Request<BookRequest>) -> Result<Response<BookResponse>, Status> {
        self.call(request, Carrier::book).await
    }

    async fn lookup(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<LookupResponse>, Status> {
        self.call(request, Carrier::lookup).await
    }

    async fn void(&self, request: Request<VoidRequest>) -> Result<Response<VoidResponse>, Status> {
        self.call(request, Carrier::void).await
    }
}
