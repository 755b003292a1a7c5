//! The payment provider's gRPC service.

use std::sync::Arc;

use chassis::error;
use contracts::core::v1::Money;
use contracts::provider::v1::payment_provider_server::PaymentProvider;
use contracts::provider::v1::{
    ChargeRequest, ChargeResponse, ChargeStatus, LookupRequest, LookupResponse, RefundRequest,
    RefundResponse, RefundStatus, VoidRequest, VoidResponse,
};
use tonic::{Request, Response, Status};

use crate::SharedBehaviour;
use crate::charges::{Charge, Charges, Refund, Verdict};
use crate::faults::FaultInjector;
use crate::ledger::Ledger;

pub(crate) struct Provider {
    ledger: Arc<Ledger<Charges>>,
    behaviour: SharedBehaviour,
}

impl Provider {
    pub(crate) fn new(ledger: Arc<Ledger<Charges>>, behaviour: SharedBehaviour) -> Self {
        Self { ledger, behaviour }
    }

    async fn charge(self: Arc<Self>, request: ChargeRequest) -> Result<ChargeResponse, Status> {
        let key = request.idempotency_key.clone();
        let Money {
            minor_units,
            currency,
        } = positive_amount(request.amount)?;
        let charge = Charge {
            minor_units,
            currency,
            customer_id: request.customer_id,
        };
        let behaviour = self.behaviour.get();
        let decide = |charges: &Charges, key: &str| Ok(charges.charge(key, charge, behaviour)?);
        let verdict = self.ledger.decide(key, decide).await?;
        Ok(ChargeResponse {
            status: charge_status(&verdict).into(),
            reference: verdict.reference(&request.idempotency_key),
            reason: verdict.reason().into(),
        })
    }

    async fn refund(self: Arc<Self>, request: RefundRequest) -> Result<RefundResponse, Status> {
        let key = request.idempotency_key.clone();
        let Money {
            minor_units,
            currency,
        } = positive_amount(request.amount)?;
        let refund = Refund {
            charge_key: request.charge_key,
            minor_units,
            currency,
        };
        let behaviour = self.behaviour.get();
        let decide = |charges: &Charges, key: &str| Ok(charges.refund(key, refund, behaviour)?);
        let verdict = self.ledger.decide(key, decide).await?;
        Ok(RefundResponse {
            status: refund_status(&verdict).into(),
            reference: verdict.reference(&request.idempotency_key),
            reason: verdict.reason().into(),
        })
    }

    async fn lookup(self: Arc<Self>, request: LookupRequest) -> Result<LookupResponse, Status> {
        let key = request.idempotency_key;
        Ok(match self.ledger.lookup(&key).await? {
            Some(verdict) => LookupResponse {
                charge: charge_status(&verdict).into(),
                refund: refund_status(&verdict).into(),
                reference: verdict.reference(&key),
                reason: verdict.reason().into(),
            },
            None => LookupResponse {
                charge: ChargeStatus::NotFound.into(),
                ..Default::default()
            },
        })
    }

    async fn void(self: Arc<Self>, request: VoidRequest) -> Result<VoidResponse, Status> {
        let key = request.idempotency_key;
        let decide = |charges: &Charges, key: &str| Ok(charges.void(key)?);
        let verdict = self.ledger.decide(key.clone(), decide).await?;
        Ok(VoidResponse {
            status: charge_status(&verdict).into(),
            reference: verdict.reference(&key),
            reason: verdict.reason().into(),
        })
    }
}

#[tonic::async_trait]
impl PaymentProvider for FaultInjector<Provider> {
    async fn charge(
        &self,
        request: Request<ChargeRequest>,
    ) -> Result<Response<ChargeResponse>, Status> {
        self.call(request, Provider::charge).await
    }

    async fn refund(
        &self,
        request: Request<RefundRequest>,
    ) -> Result<Response<RefundResponse>, Status> {
        self.call(request, Provider::refund).await
    }

    async fn lookup(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<LookupResponse>, Status> {
        self.call(request, Provider::lookup).await
    }

    async fn void(&self, request: Request<VoidRequest>) -> Result<Response<VoidResponse>, Status> {
        self.call(request, Provider::void).await
    }
}

fn positive_amount(amount: Option<Money>) -> Result<Money, Status> {
    amount
        .filter(|amount| amount.minor_units > 0)
        .ok_or_else(|| error::invalid_field("amount", "must be positive"))
}

/// The status of a charge in the contract; UNSPECIFIED for the verdict on a refund.
const fn charge_status(verdict: &Verdict) -> ChargeStatus {
    match verdict {
        Verdict::Charged(_) => ChargeStatus::Charged,
        Verdict::Declined(_) => ChargeStatus::Declined,
        Verdict::Voided => ChargeStatus::Voided,
        Verdict::Refunded(_) | Verdict::RefundRefused { .. } => ChargeStatus::Unspecified,
    }
}

/// The status of a refund in the contract; UNSPECIFIED for the verdict on a charge.
const fn refund_status(verdict: &Verdict) -> RefundStatus {
    match verdict {
        Verdict::Refunded(_) => RefundStatus::Refunded,
        Verdict::RefundRefused { .. } => RefundStatus::Refused,
        Verdict::Charged(_) | Verdict::Declined(_) | Verdict::Voided => RefundStatus::Unspecified,
    }
}
