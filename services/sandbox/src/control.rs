//! The control service of the sandbox: lists the ledgers and sets the behaviour of the partners.

use std::pin::Pin;
use std::sync::Arc;

use chassis::error;
use contracts::sandbox::v1::sandbox_service_server::SandboxService;
use contracts::sandbox::v1::{
    GetBehaviourRequest, GetBehaviourResponse, LedgerBooking, LedgerPayment, ListBookingsRequest,
    ListPaymentsRequest, SetBehaviourRequest, SetBehaviourResponse,
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use crate::SharedBehaviour;
use crate::bookings::{self, Bookings};
use crate::charges::{self, Charges};
use crate::ledger::{Entry, Ledger};

type Listing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(crate) struct Control {
    payments: Arc<Ledger<Charges>>,
    bookings: Arc<Ledger<Bookings>>,
    behaviour: SharedBehaviour,
}

impl Control {
    pub(crate) fn new(
        payments: Arc<Ledger<Charges>>,
        bookings: Arc<Ledger<Bookings>>,
        behaviour: SharedBehaviour,
    ) -> Self {
        Self {
            payments,
            bookings,
            behaviour,
        }
    }
}

#[tonic::async_trait]
impl SandboxService for Control {
    type ListPaymentsStream = Listing<LedgerPayment>;
    type ListBookingsStream = Listing<LedgerBooking>;

    async fn list_payments(
        &self,
        _request: Request<ListPaymentsRequest>,
    ) -> Result<Response<Listing<LedgerPayment>>, Status> {
        let entries = self.payments.entries();
        Ok(Response::new(Box::pin(
            entries.map(|entry| entry.map(payment)),
        )))
    }

    async fn list_bookings(
        &self,
        _request: Request<ListBookingsRequest>,
    ) -> Result<Response<Listing<LedgerBooking>>, Status> {
        let entries = self.bookings.entries();
        Ok(Response::new(Box::pin(
            entries.map(|entry| entry.map(booking)),
        )))
    }

    async fn get_behaviour(
        &self,
        _request: Request<GetBehaviourRequest>,
    ) -> Result<Response<GetBehaviourResponse>, Status> {
        Ok(Response::new(GetBehaviourResponse {
            behaviour: Some(self.behaviour.get()),
        }))
    }

    async fn set_behaviour(
        &self,
        request: Request<SetBehaviourRequest>,
    ) -> Result<Response<SetBehaviourResponse>, Status> {
        let request = request.into_inner();
        error::validate(&request)?;
        self.behaviour.set(request.behaviour.unwrap_or_default());
        Ok(Response::new(SetBehaviourResponse {}))
    }
}

pub(crate) fn payment(entry: Entry<charges::Verdict>) -> LedgerPayment {
    let charge_key = match &entry.verdict {
        charges::Verdict::Refunded(refund) | charges::Verdict::RefundRefused { refund, .. } => {
            refund.charge_key.clone()
        }
        _ => String::new(),
    };
    LedgerPayment {
        kind: entry.verdict.kind().into(),
        amount: entry.verdict.amount(),
        reference: entry.verdict.reference(&entry.key),
        idempotency_key: entry.key,
        charge_key,
        time_ms: entry.time_ms,
    }
}

pub(crate) fn booking(entry: Entry<bookings::Verdict>) -> LedgerBooking {
    LedgerBooking {
        kind: entry.verdict.kind().into(),
        tracking_number: entry.verdict.tracking_number(&entry.key),
        idempotency_key: entry.key,
        time_ms: entry.time_ms,
    }
}
